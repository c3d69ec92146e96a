"""Orqestra beside other job queues: the same no-op work on the same machine, in one run (`make bench-peers`).

Start with `contest` (one entrant, one round: end to end, then drain). It runs the programs of a `peer`
(what it is and how it is to be run, declared in `programs/<name>/peer.toml`) in its `environment`, on a
`store` of its own, and sees by `counts` and by the store how far it is. `ours` does the same with Orqestra.
`runner` has everybody take turns, `report` says what came out and `page` writes it into the README.
"""
