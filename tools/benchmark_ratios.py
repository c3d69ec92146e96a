"""The ratios in a file of `benchmarks/results/`: what can be compared with another run of another day.

A ratio is of two figures of one run, in turns where it is a comparison. Higher is always better.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

Document = dict[str, Any]

LANGUAGES: Final = ("rust", "python")


def ratios(document: Document) -> dict[str, float]:
    """Return every ratio of a run by the label that the tables have for it."""
    benchmarks: list[Document] = document["benchmarks"]
    found = {label(each): float(each["extra_info"]["ratio"]) for each in benchmarks if "ratio" in each["extra_info"]}
    for group, pair in twins(benchmarks).items():
        rust, python = (pair.get(language) for language in LANGUAGES)
        if rust and python:
            found[group] = python["stats"]["median"] / rust["stats"]["median"]
    return found


def besides(document: Document) -> dict[str, str]:
    """Return what the ratios of a run are to, by the same labels, where they name it."""
    benchmarks: list[Document] = document["benchmarks"]
    return {label(each): each["extra_info"]["beside"] for each in benchmarks if "beside" in each["extra_info"]}


def twins(benchmarks: Iterable[Document]) -> dict[str, dict[str, Document]]:
    """Return, by group, the benchmarks of what is there in Rust and in plain Python, by language."""
    groups: dict[str, dict[str, Document]] = {}
    for benchmark in benchmarks:
        language = language_of(benchmark)
        if language is not None:
            groups.setdefault(benchmark["group"], {})[language] = benchmark
    return groups


def language_of(benchmark: Document) -> str | None:
    """Return the language of a benchmark that is one of two twins; None of any other."""
    words = re.split(r"[^a-z]+", benchmark["name"])
    return next((language for language in LANGUAGES if language in words), None)


def label(benchmark: Document) -> str:
    """Return `group: name, parameter`, in plain words; without the name where that is a parameter's alone."""
    name, _, parameter = benchmark["name"].removeprefix("test_").partition("[")
    words = ", ".join(part for part in (name.replace("_", " "), *parameter.rstrip("]").split("-")) if part)
    return f"{benchmark['group']}: {words}" if benchmark["group"] else words
