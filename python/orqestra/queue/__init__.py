"""Redis: hints only. Everything here may be lost, doubled or stale; it only costs latency.

Start with `lua/take.lua`, which begins with the schema of the keys; `hints` calls the scripts,
`connection` owns the clients and says when Redis is away.
"""
