"""Every named query prepares on the migrated schema, is called, and is called by a name that exists."""

import ast
import re
from pathlib import Path

import asyncpg
import pytest

from orqestra.store.queries import load_queries

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "orqestra"
QUERIES = load_queries()
SQL = {path.name: path.read_text() for path in (PACKAGE / "store" / "sql").iterdir()}
FETCHES = {"fetch", "fetch_one", "insist"}
# What looks like a call of a query and is one of asyncpg's own methods.
NOT_QUERIES = {PACKAGE / "store" / "database.py", PACKAGE / "store" / "migrations.py"}


def called() -> dict[str, set[str]]:
    """Return the name of every query that is fetched, with the files where."""
    names: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path in NOT_QUERIES or "v1" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FETCHES:
                for name in _texts(node.args[0], tree) if node.args else ():
                    names.setdefault(name, set()).add(path.name)
    return names


def _texts(argument: ast.expr, tree: ast.Module) -> list[str]:
    """Return the texts that an argument may be: a literal, a choice of two, or a variable of one of these."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value]
    if isinstance(argument, ast.IfExp):
        return [*_texts(argument.body, tree), *_texts(argument.orelse, tree)]
    if isinstance(argument, ast.Name):
        return [
            text
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == argument.id
            for text in _texts(node.value, tree)
        ]
    return []


async def test_every_query_prepares_on_the_migrated_schema(database: str) -> None:
    connection = await asyncpg.connect(database)
    for query in QUERIES.values():
        statement = await connection.prepare(query.text)
        assert len(statement.get_parameters()) == len(query.parameters), query.name
    await connection.close()


def test_every_query_is_called_and_every_call_names_a_query() -> None:
    assert set(called()) == set(QUERIES)


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_parameters_are_numbered_once_each_and_none_is_left(name: str) -> None:
    query = QUERIES[name]

    numbers = {int(number) for number in re.findall(r"\$(\d+)", query.text)}

    assert numbers == set(range(1, len(query.parameters) + 1))
    assert not re.search(r"(?<!:):[a-z_]", query.text)


def test_every_query_of_a_file_is_loaded_and_says_why_it_is_there() -> None:
    written = [name for text in SQL.values() for name in re.findall(r"^-- (?:name|also): (\w+)", text, re.MULTILINE)]

    assert sorted(written) == sorted(QUERIES)
    for name, text in SQL.items():
        assert text.startswith("-- "), f"{name} does not begin with what it owns"


@pytest.mark.parametrize("file", sorted(SQL))
def test_comments_of_sql_hold_nothing_that_is_taken_for_a_parameter_or_a_text(file: str) -> None:
    """A comment is cut at its two dashes: a text that holds two would be cut as well."""
    for line in SQL[file].splitlines():
        code = re.sub(r"'[^']*'", "", line).split("--")[0]
        assert code.count("'") == 0, line
        assert "--" not in "".join(re.findall(r"'[^']*'", line.split("-- ")[0])), line
