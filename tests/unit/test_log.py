"""Logs: one stream, text or JSON, and nothing in them that could forge or leak."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from orqestra.log import LIBRARIES, configure, get_logger


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Give `logging`, which is the process's own, back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    own = logging.getLogger("orqestra")
    own_level = own.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    own.setLevel(own_level)


def test_elsewhere_than_on_a_terminal_a_line_is_a_json_document() -> None:
    stream = io.StringIO()
    configure(stream=stream)

    get_logger("orqestra.engine.relay").info("rows relayed", rows=3, ids=[2**60, 2])

    line = json.loads(stream.getvalue())
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["level"] == "info"
    assert line["logger"] == "orqestra.engine.relay"
    assert line["ids"] == [2**60, 2]
    assert line["timestamp"].endswith("Z")


def test_on_a_terminal_it_is_text_in_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    configure(stream=stream)

    get_logger("orqestra.app").info("started", address="127.0.0.1:1")

    assert "started" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


@pytest.mark.parametrize(("format", "stream"), [("auto", Terminal()), ("text", io.StringIO())])
def test_there_are_no_colours_where_nobody_wants_them(
    monkeypatch: pytest.MonkeyPatch, format: str, stream: io.StringIO
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    configure(format=format, stream=stream)

    get_logger("orqestra.app").info("started")

    assert "started" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_value_can_neither_start_a_line_nor_steer_the_terminal() -> None:
    stream = Terminal()
    configure(stream=stream)

    get_logger("orqestra.app").info("worker came", worker="w\n2026 [error] forged \x1b[2J")

    assert stream.getvalue().count("\n") == 1
    assert "\x1b[2J" not in stream.getvalue()


@pytest.mark.parametrize("format", ["text", "json"])
def test_an_exception_comes_with_its_traceback_and_without_local_variables(format: str) -> None:
    stream = io.StringIO()
    configure(format=format, stream=stream)
    password = "hunter2"

    try:
        int("a" * len(password))
    except ValueError:
        get_logger("orqestra.app").exception("step failed")

    assert "aaaaaaa" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert password not in stream.getvalue()


def test_a_value_that_json_does_not_know_appears_as_its_repr() -> None:
    stream = io.StringIO()
    configure(stream=stream)

    get_logger("orqestra.app").info("odd", raw=b"\xff", text="\udc80", many={1})

    assert json.loads(stream.getvalue())["raw"] == "b'\\xff'"


def test_the_level_is_for_our_own_and_the_libraries_begin_at_warning() -> None:
    stream = io.StringIO()
    configure(level="debug", stream=stream)
    uvicorn = logging.getLogger(LIBRARIES[0])

    get_logger("orqestra.app").debug("ours")
    uvicorn.info("not this")
    uvicorn.warning("but this %s", "one")

    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["ours", "but this one"]


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    configure(level="warning", stream=stream)

    get_logger("orqestra.app").info("started")

    assert stream.getvalue() == ""


def test_a_library_with_a_handler_of_its_own_writes_only_once() -> None:
    stream = io.StringIO()
    logging.getLogger("grpc").addHandler(logging.StreamHandler(stream))
    configure(stream=stream)

    logging.getLogger("grpc").error("channel broke")

    assert stream.getvalue().count("channel broke") == 1


def test_warnings_go_to_the_same_stream() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure(stream=stream)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)

    assert "old ways" in json.loads(stream.getvalue())["event"]


def test_a_logger_made_before_the_set_up_follows_it() -> None:
    log = get_logger("orqestra.early")
    stream = io.StringIO()
    configure(stream=stream)

    log.bind(session=7).info("bound")

    assert json.loads(stream.getvalue())["session"] == 7
