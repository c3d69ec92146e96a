"""The comparison in benchmarks/README.md is that of the newest results, which tell nothing of their maker."""

import json

from benchmarks.peers import page
from tests.house.test_benchmarks import PATH, texts


def test_the_comparison_is_that_of_the_newest_results() -> None:
    text = page.PAGE.read_text()

    assert page.page(text, page.newest()) == text, "run `make bench-peers`"


def test_the_results_tell_nothing_of_their_maker() -> None:
    for results in page.RESULTS.glob("*.json"):
        document = json.loads(results.read_text())
        assert [text for text in texts(document) if PATH.search(text)] == []
        assert {"lines", "ratio", "machine", "rounds"} <= set(document)
