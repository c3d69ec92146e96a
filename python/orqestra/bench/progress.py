"""How far a scenario is, for whoever wants to show it."""

from typing import Protocol


class Progress(Protocol):
    """Told of what is done now and how much of it is."""

    def begin(self, what: str, total: int) -> None:
        """Begin with something else: so many of `what`."""

    def reached(self, done: int) -> None:
        """Have done so many of it."""


class Unseen:
    """Progress that nobody looks at."""

    def begin(self, what: str, total: int) -> None:
        """Do nothing."""

    def reached(self, done: int) -> None:
        """Do nothing."""
