"""What `orqestra bench` measures: loads on a whole system, and the limits of the machine beside them.

A scenario is one module: start with `shell`. It makes its own choices of jobs and limits, and is put
together from the rest: `system` (a system of our own, or one that runs), `load` (submit, wait, look at
every job), `limit` (what the machine can do at best), `processes` (CPU and memory of what we started),
`machine` (where it was), and `report` (what comes out).
"""
