"""Speed, measured: pytest-benchmark suites and load runs. Results as JSON in `results/`."""
