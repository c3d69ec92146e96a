"""Postgres: the truth. Every statement is a named query in `sql/`; every change of state is one of them.

Start with `sql/submit.sql` and `sql/jobs.sql`, then `jobs` (submit, claim, settle), `sessions` and `runs`.
`database` owns the connections and says which errors mean what; `migrations` owns the schema.
"""
