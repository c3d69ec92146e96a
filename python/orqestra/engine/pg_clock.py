"""An estimate of Postgres' clock, which alone says when a job is due."""

from orqestra.clock import Clock


class PostgresClock:
    """Postgres' time as of the last reading, carried forward by this machine's monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ms = clock.unix_ms() - clock.monotonic() * 1000

    def set(self, now_ms: int) -> None:
        """Take over a reading of Postgres' clock."""
        self._offset_ms = now_ms - self._clock.monotonic() * 1000

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        return int(self._clock.monotonic() * 1000 + self._offset_ms)
