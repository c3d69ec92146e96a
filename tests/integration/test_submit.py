"""Storing jobs: one statement per batch, ids in order, one id per key, and a hint for each new row."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec
from orqestra.model.retry import RetryPolicy
from tests.support.engine import Engine, noop

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY_BYTES = bytes(range(256)) + b"\xff\xfe\x00"


async def test_a_batch_has_ids_in_its_order_and_one_outbox_row(engine: Engine) -> None:
    await engine.hints()

    stored = await engine.store(*(noop(payload=b"%d" % number) for number in range(1000)))

    ids = [job_id for job_id in stored.ids if job_id is not None]
    rows = await engine.sql("SELECT id, payload FROM jobs WHERE id = ANY($1::bigint[]) ORDER BY id", ids)
    assert [(row["id"], int(row["payload"])) for row in rows] == list(zip(ids, range(1000), strict=True))
    assert len(await engine.sql("SELECT id FROM outbox")) == 1
    [(_, entries)] = stored.hints
    assert len(entries) == 22 * 1000
    assert await engine.hints() == dict.fromkeys(ids, 0)


async def test_a_job_is_stored_with_all_that_it_was_asked_with(engine: Engine) -> None:
    spec = noop(
        payload=ANY_BYTES,
        queue="media",
        priority=9,
        requires=("gpu=a100", "zone=eu"),
        retries=RetryPolicy(max_retries=3, base_ms=10, factor=1.5, cap_ms=99),
        timeout_ms=1,
        grace_ms=2,
        key="all of it",
        tags=("nightly", 'ü, {"x"}', "NULL"),
    )

    row = await engine.job((await engine.store(spec)).ids[0] or 0)

    assert (row["payload"], row["tags"]) == (ANY_BYTES, list(spec.tags))
    assert (row["queue"], row["priority"], row["idempotency_key"]) == ("media", 9, "all of it")
    assert (row["max_retries"], row["backoff_base_ms"], row["backoff_factor"]) == (3, 10, 1.5)
    assert (row["backoff_cap_ms"], row["timeout_ms"], row["grace_ms"]) == (99, 1, 2)
    [lane] = await engine.sql("SELECT queue, requires FROM lanes WHERE id = $1", row["lane_id"])
    assert (lane["queue"], lane["requires"]) == ("media", ["gpu=a100", "zone=eu"])
    assert (row["state"], row["fence"], row["delayed"]) == ("pending", 0, False)


async def test_what_only_some_jobs_of_a_batch_have_stays_with_them(engine: Engine) -> None:
    stored = await engine.store(noop(), noop(tags=("a",)), noop(key="sparse"), noop(delay_ms=60_000))

    rows = [await engine.job(job_id or 0) for job_id in stored.ids]

    assert [row["tags"] for row in rows] == [None, ["a"], None, None]
    assert [row["idempotency_key"] for row in rows] == [None, None, "sparse", None]
    assert [row["delayed"] for row in rows] == [False, False, False, True]


async def test_a_delay_counts_from_the_statement_and_its_hint_says_when(engine: Engine) -> None:
    await engine.hints()
    soon = datetime.now(UTC) + timedelta(minutes=1)

    by_delay, by_time, past = (
        await engine.store(noop(delay_ms=60_000), noop(at=soon), noop(at=soon - timedelta(days=1)))
    ).ids

    rows = {job_id: await engine.job(job_id or 0) for job_id in (by_delay, by_time, past)}
    assert rows[by_delay]["available_at"] - rows[by_delay]["created_at"] == timedelta(minutes=1)
    assert rows[by_time]["available_at"] == soon
    assert [rows[job_id]["delayed"] for job_id in (by_delay, by_time, past)] == [True, True, False]
    hints = await engine.hints()
    assert hints[past or 0] == 0
    for job_id in (by_delay, by_time):
        # Rounded up, so that a hint is never early.
        ahead = hints[job_id or 0] - rows[job_id]["available_at"].timestamp() * 1000
        assert 0 <= ahead < 1.01


async def test_the_same_key_twice_in_one_batch_is_one_job(engine: Engine) -> None:
    await engine.hints()

    first, between, again = (await engine.store(noop(key="twice"), noop(), noop(key="twice", priority=9))).ids

    assert first == again != between
    assert (await engine.job(first or 0))["priority"] == 4
    assert await engine.hints() == {first: 0, between: 0}


async def test_a_known_key_answers_its_first_id_and_stores_nothing(engine: Engine) -> None:
    first = await engine.store(noop(key="known"))
    await engine.hints()

    again = await engine.store(noop(key="known"))
    mixed = await engine.store(noop(), noop(key="known"), noop(key="unknown"))

    assert (again.ids, again.hints) == (first.ids, [])
    assert mixed.ids[1] == first.ids[0]
    assert await engine.hints() == {mixed.ids[0]: 0, mixed.ids[2]: 0}


async def test_two_servers_with_the_same_keys_in_opposite_order_agree(engine: Engine) -> None:
    for attempt in range(10):
        keys = [f"both {attempt} {number}" for number in range(200)]

        one, other = await asyncio.gather(
            engine.store(*(noop(key=key) for key in keys)),
            engine.store(*(noop(key=key) for key in reversed(keys))),
        )

        assert one.ids == other.ids[::-1]
        [row] = await engine.sql("SELECT count(*) AS jobs FROM jobs WHERE idempotency_key = ANY($1)", keys)
        assert row["jobs"] == len(keys)


async def test_batches_beyond_the_largest_statement_are_stored_all_or_none(engine: Engine) -> None:
    [ids] = await engine.take_in([noop()] * 2500)

    assert ids == sorted(set(ids))
    assert len(ids) == 2500

    [refused] = await engine.take_in([noop(key="lone")] + [noop()] * 1500 + [bad_for_postgres()])
    assert isinstance(refused, InvalidInput) and "Postgres refuses" in str(refused)
    assert await engine.sql("SELECT 1 FROM jobs WHERE idempotency_key = 'lone'") == []


async def test_only_the_guilty_caller_of_a_group_commit_gets_the_error(engine: Engine) -> None:
    results = await engine.take_in([noop()], [noop(), noop()], [bad_for_postgres()], [noop()])

    assert [len(ids) if isinstance(ids, list) else str(ids)[:4] for ids in results] == [1, 2, "job:", 1]


async def test_a_key_that_is_freed_meanwhile_does_not_store_others_twice(engine: Engine) -> None:
    """The row that had the key goes between the insert and the look for it: a trigger deletes it just then."""
    await engine.store(noop(key="freed"))
    await engine.sql(
        "CREATE FUNCTION free_key() RETURNS trigger LANGUAGE plpgsql AS $$"
        "BEGIN DELETE FROM jobs WHERE idempotency_key = 'freed' AND queue = 'default'; RETURN NULL; END $$"
    )
    await engine.sql("CREATE TRIGGER free_key AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION free_key()")
    [[plain], [keyed]] = await engine.take_in([noop(tags=("once",))], [noop(key="freed", queue="later")])

    await engine.sql("DROP TRIGGER free_key ON outbox")
    assert [row["id"] for row in await engine.sql("SELECT id FROM jobs WHERE tags = '{once}'")] == [plain]
    assert (await engine.job(keyed))["queue"] == "later"


def bad_for_postgres() -> JobSpec:
    """A job that the checks of a door would not let through: text that Postgres cannot hold."""
    return noop(tags=("a\0b",))
