"""A real Postgres, a real Redis and the real server and workers, in one folder and without installation.

Used by `orqestra dev`, `make demo`, the benchmarks and the tests. Start with `stack` (all of it, in
order), then `postgres` and `redis` (one service each), `process` (a child that ends when we do),
`launch` (the few lines between fork and exec) and `directory` (whose folder it is).
"""
