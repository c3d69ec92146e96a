"""Faults on a whole cluster, and the checker that decides whether every promise held.

Where to start: `cell.py` (one fault), `cluster.py` (what is hurt), `evidence.py` (what is known afterwards),
`checker.py` (what that means).
"""
