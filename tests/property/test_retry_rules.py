"""Rules come back as they were kept, whatever words they are made of."""

from hypothesis import given
from hypothesis import strategies as st

from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import (
    WORDS,
    Failure,
    Jitter,
    RetryRules,
    format_rules,
    parse_rules,
    parse_words,
    refusal,
)

codes = st.integers(1, 255)
spans = st.tuples(codes, codes).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
words = st.one_of(
    codes.map(str),
    spans,
    st.integers(1, 64).map(lambda number: f"signal:{number}"),
    st.sampled_from(["signal:KILL", "signal:sigterm", *WORDS]),
)
lists = st.lists(words, max_size=8)
failures = st.builds(
    Failure,
    reason=st.sampled_from(["exited", "signalled", "timeout", "killed_after_grace", "oom", "spawn_failed"]),
    exit_code=st.none() | st.integers(0, 255),
    exit_signal=st.none() | st.integers(1, 64),
)


@given(lists, lists, st.sampled_from(Jitter))
def test_what_is_kept_is_read_as_it_was(on: list[str], never: list[str], jitter: Jitter) -> None:
    rules = RetryRules(on=parse_words("on", on), never=parse_words("never", never), jitter=jitter)

    assert parse_rules(format_rules(rules)) == rules


@given(lists)
def test_the_order_of_words_does_not_matter_and_their_form_is_stable(on: list[str]) -> None:
    kept = parse_words("on", on)

    assert parse_words("on", sorted(on)) == parse_words("on", [*on, *kept]) == kept


@given(lists, failures)
def test_never_is_the_opposite_of_on_but_for_a_temporary_failure(listed: list[str], failure: Failure) -> None:
    kept = parse_words("words", listed)
    on, never = (refusal(rules, failure) is None for rules in (RetryRules(on=kept), RetryRules(never=kept)))

    is_temporary = (failure.reason, failure.exit_code) == ("exited", 75)
    assert on != never or is_temporary or not kept


@given(lists, lists)
def test_a_policy_that_is_let_in_is_kept(on: list[str], never: list[str]) -> None:
    policy = RetryPolicy(on=tuple(on), never=tuple(never))

    kept = parse_rules(policy.rules())

    assert (kept.on, kept.never) == (parse_words("on", on), parse_words("never", never))
