"""What a server tells Prometheus."""

import re
from pathlib import Path

from orqestra.engine.repairs import Repair
from tests.support.metrics import repairs, scrape
from tests.support.server import RunningServer, running_server, settings_for

TABLE_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


async def test_every_repair_is_there_from_the_start(server: RunningServer) -> None:
    samples = await scrape(server.http)

    told = {name: value for name, value in samples.items() if name.startswith("orqestra_repairs_total")}
    assert told == {f"orqestra_repairs_total{{{repair}}}": 0 for repair in Repair}


def test_every_repair_is_explained() -> None:
    document = DOCUMENT.read_text()

    explained = TABLE_ROW.findall(document[document.index("## Repairs") :])

    assert explained == [str(repair) for repair in Repair]


async def test_every_metric_is_explained(server: RunningServer) -> None:
    samples = await scrape(server.http)

    names = {re.sub(r"_(bucket|sum|count|created)$", "", name.partition("{")[0]) for name in samples}

    explained = set(re.findall(r"^\| `(orqestra_\w+)", DOCUMENT.read_text(), re.MULTILINE))
    assert names == explained


async def test_it_tells_sessions_redis_the_loops_and_their_lag(server: RunningServer) -> None:
    async with server.worker() as first, server.worker() as second:
        await first.open()
        await second.open()
        samples = await scrape(server.http)

    assert samples["orqestra_sessions"] == 2
    assert samples["orqestra_redis_up"] == 1
    assert samples["orqestra_service_errors_total{dispatcher}"] == 0
    assert samples["orqestra_loop_lag_seconds_bucket{+Inf}"] == samples["orqestra_loop_lag_seconds_count"]


async def test_two_servers_of_one_process_count_for_themselves(
    server: RunningServer, database: str, redis_url: str, redis_namespace: str
) -> None:
    settings = settings_for(database, redis_url, redis_namespace)
    async with running_server(settings) as other, other.worker() as worker:
        stream = await worker.dial(acknowledge=False)
        await stream.send(hello=worker.hello())
        await stream.next("welcome")
        await other.submit()
        await stream.next("goodbye")

        assert (await repairs(other.http)).get("worker_stuck") == 1
        assert "worker_stuck" not in await repairs(server.http)
