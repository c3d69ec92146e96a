"""What a server tells Prometheus, read as Prometheus would."""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

READ_SECONDS = 5.0


async def scrape(http: str) -> dict[str, float]:
    """Return every sample of the server at HOST:PORT, as `name` or `name{value of its one label}`."""
    text = await asyncio.to_thread(_read, f"http://{http}/metrics")
    return {
        _name(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def repairs(http: str) -> dict[str, int]:
    """Return how often each kind of repair was counted there, those that never were left out."""
    prefix = "orqestra_repairs_total{"
    samples = await scrape(http)
    return {name[len(prefix) : -1]: int(count) for name, count in samples.items() if name.startswith(prefix) and count}


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=READ_SECONDS) as answer:
        return str(answer.read().decode())


def _name(name: str, labels: dict[str, str]) -> str:
    return f"{name}{{{','.join(labels.values())}}}" if labels else name
