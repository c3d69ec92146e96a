"""Named queries: names, numbered parameters, and what is not taken for one."""

from pathlib import Path

import pytest

from orqestra.store.queries import Query, load_queries

QUERY = Query(name="q", text="SELECT $1, $2", parameters=("first", "second"))


def test_values_are_put_in_the_order_of_the_numbers() -> None:
    assert QUERY.arguments({"second": 2, "first": 1}) == [1, 2]


@pytest.mark.parametrize("values", [{}, {"first": 1}, {"first": 1, "second": 2, "third": 3}, {"First": 1, "second": 2}])
def test_a_missing_or_an_odd_value_is_named(values: dict[str, int]) -> None:
    odd = sorted(values.keys() ^ {"first", "second"})

    with pytest.raises(TypeError, match=f"query q takes first, second; check {', '.join(odd)}"):
        QUERY.arguments(values)


def test_a_parameter_that_stands_twice_has_one_number() -> None:
    run = load_queries()["list_runs"]

    assert len(set(run.parameters)) == len(run.parameters)
    assert run.text.count(f"${run.parameters.index('name') + 1}") > 1


def test_casts_are_not_parameters_and_comments_are_gone() -> None:
    for query in load_queries().values():
        assert not {"text", "bigint", "bytea", "integer"} & set(query.parameters), query.name
        assert "--" not in query.text, query.name


def test_each_statement_begins_with_its_name_for_those_who_watch_the_database() -> None:
    for name, query in load_queries().items():
        assert query.name == name
        assert query.text.startswith(f"/* {name} */ ")
        assert ";" not in query.text, name


def test_a_second_query_lacks_what_it_is_said_to_lack() -> None:
    first, second = (load_queries()[name] for name in ("submit_jobs", "submit_jobs_without_keys"))

    assert second.parameters == first.parameters
    assert second.text.split("*/", 1)[1].split() == [
        *first.text.split("*/", 1)[1].replace("ON CONFLICT DO NOTHING", "").split()
    ]


def test_what_a_second_query_lacks_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lacking" / "sql"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "one.sql").write_text("-- name: one\n-- also: other, without ORDER BY id\nSELECT id FROM jobs;\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ValueError, match="query one has no 'ORDER BY id', which other is to lack"):
        load_queries("lacking")
