"""The bars: what has to be reached, what is aimed at, and where to find what was seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.flat.cases import AT_LEAST
from benchmarks.flat.cases import CASES as FLAT_CASES
from benchmarks.peers.report import AIM_RATIO, BAR_RATIO
from tools.benchmark_ratios import ratios

Document = dict[str, Any]
Find = Callable[[Document], float | None]

STREAMS: Final = 2000
# What is started as `python -m`, without the option that names a file for the figures.
BENCH: Final = ("orqestra", "bench")
RUNS: Final[Mapping[str, Sequence[str]]] = {
    "throughput": (*BENCH, "throughput"),
    "single": (*BENCH, "single", "--callers", "256"),
    "latency": (*BENCH, "latency"),
    "backlog": (*BENCH, "backlog", "--jobs", "1000000", "--compare", "10000"),
    "delayed": (*BENCH, "delayed", "--jobs", "10000"),
    "shell": (*BENCH, "shell"),
    "flat": ("benchmarks.flat", *FLAT_CASES),
    "fleet": ("benchmarks.fleet", "--streams", "2", str(STREAMS)),
}
# These take long, and run if they are named.
LONG: Final = ("flat", "fleet")
# Kept elsewhere: by `make bench`, by `make bench-peers`.
MICRO: Final = "micro"
PEERS: Final = "peers"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One promise. What was seen is the median of what `find` finds in the rounds of `run`; more is better, or less."""

    name: str
    run: str
    find: Find
    bar: float
    aim: float | None = None
    unit: str = ""
    less_is_better: bool = False

    def seen(self, rounds: Sequence[Document]) -> float | None:
        """Return what was seen; None if nothing was kept."""
        found = [each for document in rounds if (each := self.find(document)) is not None]
        return median(found) if found else None

    def holds(self, seen: float) -> bool:
        """Return whether that is enough."""
        return seen <= self.bar if self.less_is_better else seen >= self.bar


def _at(*names: str) -> Find:
    def find(document: Document) -> float | None:
        value: Any = document
        for name in names:
            value = value[name]
        return None if value is None else float(value)

    return find


def _to_xargs(document: Document) -> float:
    return float(document["jobs_per_s"]) / float(document["xargs_per_s"])


def _of_peer(name: str) -> Find:
    return lambda document: next((line["ours_to_this"] for line in document["lines"] if line["peer"] == name), None)


def _of_case(name: str) -> Find:
    return lambda document: next((case["ratio"] for case in document["cases"] if case["case"] == name), None)


def _of_fleet(read: Find) -> Find:
    return lambda document: next((read(each) for each in document["fleet"] if each["streams"] == STREAMS), None)


def _assignments_per_s(group: str) -> Find:
    def find(document: Document) -> float | None:
        seconds = (
            each["stats"]["median"] / each["extra_info"]["assignments"]
            for each in document["benchmarks"]
            if each["group"] == group and each["name"].endswith("_rust")
        )
        return next((1e-6 / each for each in seconds), None)

    return find


def _times_the_twin(group: str) -> Find:
    return lambda document: ratios(document).get(group)


def _matcher() -> list[Bar]:
    groups = ("matcher: 1000 jobs, 20 sessions, 100 lanes", "matcher: 1000 jobs, 2000 sessions, 10,000 lanes")
    return [
        bar
        for group in groups
        for bar in (
            Bar(name=group, run=MICRO, find=_assignments_per_s(group), bar=2, aim=10, unit=" M/s"),
            Bar(name=f"{group}, to its twin", run=MICRO, find=_times_the_twin(group), bar=20, aim=100),
        )
    ]


def _fleet() -> list[Bar]:
    idle = _of_fleet(lambda each: 100 * float(each["idle"]["server_share"]))
    memory = _of_fleet(lambda each: float(each["bytes_per_stream"]) / 1000)
    latency = _of_fleet(lambda each: float(each["latencies"]["p99"]))
    name = f"{STREAMS} streams"
    return [
        Bar(name=f"{name}: idle server, of a core", run="fleet", find=idle, bar=20, unit=" %", less_is_better=True),
        Bar(name=f"{name}: memory of each", run="fleet", find=memory, bar=50, unit=" kB", less_is_better=True),
        Bar(name=f"{name}: submit to Assign, p99", run="fleet", find=latency, bar=50, unit=" ms", less_is_better=True),
    ]


def _latency(name: str, run: str, quantile: str, bar: float, aim: float) -> Bar:
    find = _at("latency_ms", quantile)
    return Bar(name=f"{name}, {quantile}", run=run, find=find, bar=bar, aim=aim, unit=" ms", less_is_better=True)


BARS: Final[Sequence[Bar]] = (
    Bar(name="throughput, to the raw cycle", run="throughput", find=_at("ratio"), bar=0.5, aim=0.75),
    Bar(
        name="throughput, to graphile-worker",
        run=PEERS,
        find=_of_peer("graphile-worker"),
        bar=BAR_RATIO,
        aim=AIM_RATIO,
    ),
    Bar(name="one job a call, 256 callers, to batches", run="single", find=_at("ratio_to_batch"), bar=0.25, aim=0.5),
    _latency("submit to start, idle", "latency", "p50", 3, 2),
    _latency("submit to start, idle", "latency", "p99", 8, 5),
    Bar(name="a backlog of 1,000,000, to 10,000", run="backlog", find=_at("drain_ratio"), bar=0.9, aim=1.0),
    _latency("lateness, 10,000 due within a second", "delayed", "p99", 100, 30),
    Bar(name="short commands, to bare threads", run="shell", find=_at("ratio"), bar=0.7, aim=0.85),
    Bar(name="short commands, to xargs -P2", run="shell", find=_to_xargs, bar=1.0),
    *_matcher(),
    *(Bar(name=f"flat: {case}", run="flat", find=_of_case(case), bar=AT_LEAST) for case in FLAT_CASES),
    *_fleet(),
)
