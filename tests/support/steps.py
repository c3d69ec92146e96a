"""How often each line of the package runs: what runs once for each job stands out, for it runs more often for more."""

import re
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Self

import orqestra

PACKAGE: Final = Path(orqestra.__file__).parent
# In the place of a line: a function is entered, or gone on with where it has waited or yielded.
ENTERED: Final = 0
# A comprehension belongs to the function that it stands in, of which newer Pythons make it a part.
INNER: Final = re.compile(r"(\.<locals>\.<\w+>)+$")


class Steps:
    """Counts what this thread runs of the package while it is entered, which may be again and again.

    A line counts each time that it is come to, each turn of a loop or of a comprehension by itself. What C does counts
    for nothing, however many jobs it is about.
    """

    def __init__(self) -> None:
        self._places: Counter[tuple[CodeType, int]] = Counter()

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(self._before)

    def beyond(self, other: "Steps", times: int) -> set[str]:
        """Return the functions in which some place ran so many times more often than in the other count."""
        return {
            _name(code) for (code, line), count in self._places.items() if count - other._places[code, line] >= times
        }

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return None
        self._places[frame.f_code, ENTERED] += 1
        return self._go_on

    def _go_on(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self._places[frame.f_code, frame.f_lineno] += 1
        return self._go_on


def _name(code: CodeType) -> str:
    """Return `engine/claims.py::Claims.claim`."""
    return f"{Path(code.co_filename).relative_to(PACKAGE).as_posix()}::{INNER.sub('', code.co_qualname)}"
