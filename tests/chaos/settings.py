"""What the harness tells the processes that it starts: names of variables, read by `launch` alone."""

CONTROL = "ORQESTRA_CHAOS_CONTROL"
NAME = "ORQESTRA_CHAOS_NAME"
CLOCK_OFFSET = "ORQESTRA_CHAOS_CLOCK_OFFSET"
BROKEN = "ORQESTRA_CHAOS_BROKEN"
# Behind the name of a worker: its supervisor, on strings of its own.
SUPERVISOR = "/supervisor"
