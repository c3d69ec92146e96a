"""Which speeds are promised, and whether they are reached: `python -m benchmarks.bars`, or `make bars`.

`bar` declares them, each with the run whose kept figures it is read from. `page` sets them side by side in
`benchmarks/README.md`, and `__main__` measures.
"""
