"""Which failures are retried: the words, what is no word, and the decision."""

import pytest

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.report import Reason
from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import (
    NAMES,
    Failure,
    Jitter,
    RetryRules,
    format_rules,
    parse_rules,
    parse_words,
    refusal,
)

BAD_WORDS = [
    ("segfault", "'segfault' is not known; allowed are an exit code (3), a range of them (10-20), signal:NAME, exit,"),
    ("", "'' is not known"),
    ("TIMEOUT", "'TIMEOUT' is not known"),
    ("worker_lost", "'worker_lost' is not known"),
    ("-1", "'-1' is not known"),
    ("1.5", "'1.5' is not known"),
    ("\u0663", "is not known"),
    ("3,4", "'3,4' is not known"),
    ("on=3 never", "'on=3 never' is not known"),
    ("x" * 99, f"'{'x' * 40}...' is not known"),
    ("0", "'0' is not an exit code of a failure; 1 to 255 are allowed; 0 is a success"),
    ("0-3", "'0-3' is not an exit code of a failure; 1 to 255 are allowed; 0 is a success"),
    ("256", "'256' is not an exit code of a failure; 1 to 255 are allowed"),
    ("10-999", "'10-999' is not an exit code of a failure; 1 to 255 are allowed"),
    ("20-10", "'20-10' runs backwards; write 10-20"),
    ("signal:", "'signal:' is no signal; write signal:KILL, or signal:1 to signal:64"),
    ("signal:0", "'signal:0' is no signal"),
    ("signal:65", "'signal:65' is no signal"),
    ("signal:NOPE", "'signal:NOPE' is no signal"),
    ("signal:_", "'signal:_' is no signal"),
]

EXIT_3 = Failure(reason=Reason.EXITED, exit_code=3)
EXIT_75 = Failure(reason=Reason.EXITED, exit_code=75)
KILLED = Failure(reason=Reason.SIGNALLED, exit_signal=9)
TIMEOUT = Failure(reason=Reason.TIMEOUT, exit_signal=15)
TIMEOUT_75 = Failure(reason=Reason.TIMEOUT, exit_code=75)
AFTER_GRACE = Failure(reason=Reason.KILLED_AFTER_GRACE, exit_signal=9)
OOM = Failure(reason=Reason.OOM, exit_signal=9)
LIMIT = Failure(reason=Reason.RESOURCE_LIMIT, exit_signal=24)
NOT_FOUND = Failure(reason=Reason.SPAWN_FAILED, exit_code=127)
REJECTED = Failure(reason=Reason.RESULT_REJECTED)
ALL = (EXIT_3, EXIT_75, KILLED, TIMEOUT, TIMEOUT_75, AFTER_GRACE, OOM, LIMIT, NOT_FOUND, REJECTED)

# What is said of on and never, and which of all failures are then retried.
DECISIONS: list[tuple[tuple[str, ...], tuple[str, ...], set[Failure]]] = [
    ((), (), set(ALL)),
    (("3",), (), {EXIT_3, EXIT_75}),
    (("1-5",), (), {EXIT_3, EXIT_75}),
    (("4-9",), (), {EXIT_75}),
    (("exit",), (), {EXIT_3, EXIT_75, NOT_FOUND}),
    (("126-127",), (), {NOT_FOUND, EXIT_75}),
    (("spawn_failed",), (), {NOT_FOUND, EXIT_75}),
    (("signal:9",), (), {KILLED, EXIT_75}),
    (("signal:15",), (), {EXIT_75}),
    (("signal:1",), (), {EXIT_75}),
    (("signal",), (), {KILLED, EXIT_75}),
    (("timeout",), (), {TIMEOUT, TIMEOUT_75, AFTER_GRACE, EXIT_75}),
    (("killed_after_grace",), (), {AFTER_GRACE, EXIT_75}),
    (("oom", "resource_limit"), (), {OOM, LIMIT, EXIT_75}),
    ((), ("3",), set(ALL) - {EXIT_3}),
    ((), ("75",), set(ALL) - {EXIT_75}),
    ((), ("exit",), set(ALL) - {EXIT_3, EXIT_75, NOT_FOUND}),
    ((), ("signal",), set(ALL) - {KILLED}),
    ((), ("spawn_failed",), set(ALL) - {NOT_FOUND}),
    ((), ("127",), set(ALL) - {NOT_FOUND}),
    ((), ("timeout",), set(ALL) - {TIMEOUT, TIMEOUT_75, AFTER_GRACE}),
    (("timeout",), ("killed_after_grace",), {TIMEOUT, TIMEOUT_75, EXIT_75}),
    (("exit", "signal"), ("3", "signal:9"), {EXIT_75, NOT_FOUND}),
    (("3",), ("70-80",), {EXIT_3}),
    (("3",), ("3",), {EXIT_75}),
]


def test_words_are_kept_in_their_shortest_form_each_once_and_in_order() -> None:
    written = [
        "timeout",
        "signal:kill",
        "10-20",
        " 3",
        "signal:SIGKILL",
        "signal:TERM",
        "003",
        "7-7",
        "exit",
        "signal:9",
    ]

    kept = parse_words("retry.on", written)

    assert kept == ("3", "7", "10-20", "signal:9", "signal:15", "exit", "timeout")
    assert parse_words("retry.on", kept) == kept


@pytest.mark.parametrize(("word", "problem"), BAD_WORDS)
def test_what_is_no_word_is_refused_with_what_is_allowed(word: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_words("retry.never", ["3", word])

    assert refused.value.field == "retry.never"
    assert problem in refused.value.problem
    assert len(refused.value.problem) < 300


def test_there_are_only_so_many_words() -> None:
    assert len(parse_words("on", [str(code) for code in range(1, limits.RETRY_WORDS + 1)])) == limits.RETRY_WORDS
    with pytest.raises(InvalidInput, match="65 words; at most 64 are allowed"):
        parse_words("on", ["3"] * (limits.RETRY_WORDS + 1))


def test_every_name_is_a_reason() -> None:
    assert set(NAMES) < set(Reason)


@pytest.mark.parametrize(("on", "never", "retried"), DECISIONS)
def test_a_failure_is_retried_if_it_is_listed_and_not_named_by_never(
    on: tuple[str, ...], never: tuple[str, ...], retried: set[Failure]
) -> None:
    rules = RetryRules(on=on, never=never)

    assert {failure for failure in ALL if refusal(rules, failure) is None} == retried


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (EXIT_3, "exit code 3 is not retried"),
        (KILLED, "signal 9 is not retried"),
        (TIMEOUT, "timeout is not retried"),
        (NOT_FOUND, "spawn_failed is not retried"),
    ],
)
def test_a_refusal_says_what_is_not_retried(failure: Failure, told: str) -> None:
    assert refusal(RetryRules(on=("oom",)), failure) == told


def test_rules_are_kept_as_one_line_and_usual_ones_not_at_all() -> None:
    rules = RetryRules(on=("3", "10-20"), never=("signal:9",), jitter=Jitter.EQUAL)

    assert format_rules(rules) == "on=3,10-20 never=signal:9 jitter=equal"
    assert format_rules(RetryRules(jitter=Jitter.NONE)) == "jitter=none"
    assert format_rules(RetryRules()) is None
    assert parse_rules(None) == RetryRules()


def test_a_kept_word_of_a_later_version_matches_nothing() -> None:
    rules = parse_rules("on=3,eclipse never=signal:eclipse future=1")

    assert refusal(rules, EXIT_3) is None
    assert refusal(rules, KILLED) == "signal 9 is not retried"


def test_a_policy_gives_its_rules_as_they_are_kept() -> None:
    assert RetryPolicy(max_retries=3).rules() is None
    assert RetryPolicy(on=("timeout", "signal:KILL"), jitter=Jitter.NONE).rules() == "on=signal:9,timeout jitter=none"
