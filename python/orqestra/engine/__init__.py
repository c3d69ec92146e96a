"""The server's loops and what they decide with. Every loop is a Service and may run on many servers.

In the order of a job's life: `intake` (group commit), `relay` (outbox to Redis), `dispatcher` (take,
claim, send), `sessions` (streams and leases), `settlement` (results), `workflows`, `cancels`. `expiry`,
`refill`, `link` and `audit` heal; `janitor` and `retention` delete; `watch` and `live` tell those who look on.
"""
