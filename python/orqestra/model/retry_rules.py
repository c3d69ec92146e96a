"""Which failures are retried: a pure decision over words, and the text in which a job's row keeps them.

Words, as people write them and in the order in which they are kept:

    3, 10-20             these exit codes, of a command that ended by itself or could not be started
    signal:KILL          this signal, by name or number; kept as its number, signal:9
    exit, signal         any exit code but 0, any signal
    timeout              longer than its timeout, killed_after_grace among them
    killed_after_grace   longer than its timeout, and TERM did not end it
    oom, resource_limit  ended by the limit of its memory, by another limit of the job's
    spawn_failed         could not be started, by its own fault

An end that has a name of its own (`timeout`, `oom` ...) is meant by that name only, whatever exit code or
signal it came with. The kept text is `on=3,10-20,timeout never=signal:9 jitter=equal`, without what is not set.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from orqestra.model import limits
from orqestra.model.errors import InvalidInput

# EX_TEMPFAIL of sysexits.h: "the user is invited to retry". No list of `on` has to name it.
TEMPORARY_FAILURE: Final = 75
CODE_MAX: Final = 255
SIGNAL_MAX: Final = 64
ANY_EXIT: Final = "exit"
ANY_SIGNAL: Final = "signal"
TIMEOUT: Final = "timeout"
# Each stands for an end of the same name (`model.report.Reason`); timeout for one more.
NAMES: Final = (TIMEOUT, "killed_after_grace", "oom", "resource_limit", "spawn_failed")
WORDS: Final = (ANY_EXIT, ANY_SIGNAL, *NAMES)

_TIMEOUTS: Final = frozenset({TIMEOUT, "killed_after_grace"})
_WITH_CODE: Final = frozenset({"exited", "spawn_failed"})
_SIGNALLED: Final = "signalled"
_SIGNAL: Final = "signal:"
_CODES: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_SHOWN_CHARS: Final = 40
_KNOWN: Final = f"an exit code (3), a range of them (10-20), signal:NAME, {', '.join(WORDS)}"


class Jitter(StrEnum):
    """How much of a delay is left to chance: all of it, its second half, nothing."""

    FULL = "full"
    EQUAL = "equal"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRules:
    """What `refusal` decides by. `on` empty: every failure is retried. `never` wins over `on`."""

    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    jitter: Jitter = Jitter.FULL


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """How a failed attempt ended; `reason` is one of `model.report.Reason`."""

    reason: str
    exit_code: int | None = None
    exit_signal: int | None = None

    def __str__(self) -> str:
        if self.reason == _SIGNALLED:
            return f"signal {self.exit_signal}"
        return f"exit code {self.exit_code}" if self.reason == "exited" else self.reason


EVERY_FAILURE: Final = RetryRules()


def refusal(rules: RetryRules, failure: Failure) -> str | None:
    """Return why this failure is not retried; None if it may be."""
    never = any(_matches(word, failure) for word in rules.never)
    listed = not rules.on or _is_temporary(failure) or any(_matches(word, failure) for word in rules.on)
    return None if listed and not never else f"{failure} is not retried"


def parse_words(field: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return words in the form in which they are kept, each once, in order.

    Raises:
        InvalidInput: naming `field`, the word and what is allowed.
    """
    if len(words) > limits.RETRY_WORDS:
        raise InvalidInput(field, f"{len(words)} words; at most {limits.RETRY_WORDS} are allowed")
    return tuple(sorted({_word(field, word.strip()) for word in words}, key=_place))


def format_rules(rules: RetryRules) -> str | None:
    """Return the text that a row keeps; None for rules that refuse nothing and jitter fully."""
    parts = (("on", ",".join(rules.on)), ("never", ",".join(rules.never)))
    jitter = () if rules.jitter is Jitter.FULL else (("jitter", rules.jitter),)
    return " ".join(f"{name}={value}" for name, value in (*parts, *jitter) if value) or None


@lru_cache(maxsize=1024)
def parse_rules(text: str | None) -> RetryRules:
    """Return the rules of a kept text: the opposite of `format_rules`. A word that is not known matches nothing."""
    if text is None:
        return EVERY_FAILURE
    values = dict(part.split("=", 1) for part in text.split(" "))
    on, never = (tuple(values[name].split(",")) if name in values else () for name in ("on", "never"))
    return RetryRules(on=on, never=never, jitter=Jitter(values.get("jitter", Jitter.FULL)))


def _matches(word: str, failure: Failure) -> bool:
    if word in NAMES:
        return failure.reason == word or (word == TIMEOUT and failure.reason in _TIMEOUTS)
    if word.startswith(ANY_SIGNAL):
        return failure.reason == _SIGNALLED and word in {ANY_SIGNAL, f"{_SIGNAL}{failure.exit_signal}"}
    if failure.reason not in _WITH_CODE or not failure.exit_code:
        return False
    codes = _CODES.fullmatch(word)
    return word == ANY_EXIT or (codes is not None and failure.exit_code in _range(codes))


def _is_temporary(failure: Failure) -> bool:
    return failure.reason == "exited" and failure.exit_code == TEMPORARY_FAILURE


def _word(field: str, word: str) -> str:
    if word in WORDS:
        return word
    if codes := _CODES.fullmatch(word):
        return _checked_codes(field, word, codes)
    if word.startswith(_SIGNAL):
        return _checked_signal(field, word)
    shown = word if len(word) <= _SHOWN_CHARS else f"{word[:_SHOWN_CHARS]}..."
    raise InvalidInput(field, f"{shown!r} is not known; allowed are {_KNOWN}")


def _checked_codes(field: str, word: str, codes: re.Match[str]) -> str:
    span = _range(codes)
    first, last = span.start, span.stop - 1
    if not (1 <= first <= CODE_MAX and last <= CODE_MAX):
        success = "; 0 is a success" if not first else ""
        raise InvalidInput(field, f"{word!r} is not an exit code of a failure; 1 to {CODE_MAX} are allowed{success}")
    if last < first:
        raise InvalidInput(field, f"{word!r} runs backwards; write {last}-{first}")
    return str(first) if first == last else f"{first}-{last}"


def _checked_signal(field: str, word: str) -> str:
    name = word.removeprefix(_SIGNAL).upper()
    named: int = getattr(signal.Signals, f"SIG{name.removeprefix('SIG')}", 0)
    number = int(name) if _NUMBER.fullmatch(name) else int(named)
    if not 1 <= number <= SIGNAL_MAX:
        shown = word[:_SHOWN_CHARS]
        raise InvalidInput(field, f"{shown!r} is no signal; write signal:KILL, or signal:1 to signal:{SIGNAL_MAX}")
    return f"{_SIGNAL}{number}"


def _range(codes: re.Match[str]) -> range:
    return range(int(codes[1]), int(codes[2] or codes[1]) + 1)


def _place(word: str) -> tuple[int, int, int]:
    """Return where a kept word stands: codes, then signals by number, then the others as they are listed."""
    if codes := _CODES.fullmatch(word):
        return 0, _range(codes).start, _range(codes).stop
    if word.startswith(_SIGNAL):
        return 1, int(word.removeprefix(_SIGNAL)), 0
    return 2, WORDS.index(word), 0
