"""What `orqestra bench` measures: loads on a whole system, and the limits of the machine beside them.

A scenario is one module: start with `throughput`. It makes its own choices of jobs and is put together from
the rest: `system` (a system of our own, or one that runs), `stage` (a queue and workers of our own in it:
`workers`, each of which is a `worker` that tells by a `journal` when jobs start), `measure` (what is done
around every load), `load` and `open_loop` (submit and wait, by the calls of `wire`), `audit` (look at every
job), `leaving` (cancel them if the run is cut off), `limit` and `cycle` (what the machine can do at best),
`processes` (CPU and memory of what we started), `machine` (where it was), and `report` (what comes out).
"""
