"""Thousands of connected workers on one server: `python -m benchmarks.fleet`.

What a stream costs that has nothing to do, in memory and CPU of the server, and whether jobs become slower or
dearer with the number of workers that could get them. The workers are simulated, many in a process, but each
has a connection of its own and speaks as a real one does (docs/protocol.md). Start with `phase`.
"""
