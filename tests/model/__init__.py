"""A small exhaustive model of the protocol of docs/protocol.md: every order of events, not a sample of them.

Read `words` (what there is), `guards` (what the SQL checks), then `server`, `worker` and `faults` (what may
happen next), `invariants` (what must hold) and `search` (how all of it is visited). `flaws` are protocols with
one mistake each, which the search must reject. `python -m tests.model` runs it and prints the counterexamples.
"""
