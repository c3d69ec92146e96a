"""Named queries out of `.sql` files: `-- name: claim_jobs` begins one, `:ids` is a parameter.

`-- also: NAME, without TEXT` below its name makes a second one of it, which lacks that text.

A name is unique over all files; a test prepares each of them on the migrated schema and finds those
that nothing calls.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_ALSO: Final = re.compile(r"^-- also: (\w+), without (.+)$", re.MULTILINE)
_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z]\w*)")
_COMMENT: Final = re.compile(r"--[^\n]*")


@dataclass(frozen=True, kw_only=True)
class Query:
    """One statement, its parameters numbered in the order of their first appearance."""

    name: str
    text: str
    parameters: tuple[str, ...]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return `values` in the order of the numbers; each is needed and no other is allowed."""
        if values.keys() != set(self.parameters):
            odd = sorted(values.keys() ^ set(self.parameters))
            raise TypeError(f"query {self.name} takes {', '.join(self.parameters)}; check {', '.join(odd)}")
        return [values[name] for name in self.parameters]


def load_queries(package: str = "orqestra.store") -> dict[str, Query]:
    """Read every query in the folder `sql` of a package; raises ValueError if a name stands twice."""
    queries: dict[str, Query] = {}
    for file in sorted(files(package).joinpath("sql").iterdir(), key=lambda file: file.name):
        for name, sql in _split(file.read_text("utf-8")):
            if name in queries:
                raise ValueError(f"query {name} stands twice, the second time in {file.name}")
            queries[name] = _parse(name, sql)
    return queries


def _split(text: str) -> Iterator[tuple[str, str]]:
    parts = _NAME.split(text)
    for name, sql in zip(parts[1::2], parts[2::2], strict=True):
        yield name, sql
        for other, without in _ALSO.findall(sql):
            if without not in _COMMENT.sub("", sql):
                raise ValueError(f"query {name} has no {without!r}, which {other} is to lack")
            yield other, sql.replace(without, "")


def _parse(name: str, sql: str) -> Query:
    text = _COMMENT.sub("", sql).strip().rstrip(";")
    parameters = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    numbers = {parameter: f"${number}" for number, parameter in enumerate(parameters, start=1)}
    text = _PARAMETER.sub(lambda match: numbers[match[1]], text)
    return Query(name=name, text=f"/* {name} */ {text}", parameters=parameters)
