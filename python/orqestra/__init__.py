"""Orqestra: a durable, fast, distributed job orchestrator.

Where to start: `docs/life-of-a-job.md` walks one job through the code. `orqestra.client` is the
library that programs import; everything else serves the server, the worker and the command line.
"""

__version__ = "0.1.0"
