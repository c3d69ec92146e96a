"""Structured logs: one stream on stderr, text for a terminal and JSON for machines.

Events are constant words, what varies goes into fields: ids, counts, durations, never payloads,
output or settings. All loggers are those of `logging` underneath, so that the libraries below us
end in the same stream, and a program that only imports `orqestra.client` keeps its own set-up.
"""

import json
import logging
import os
import sys
from typing import Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "text", "json")
# They bring handlers of their own, which would write the same line a second time.
LIBRARIES: Final = ("uvicorn", "uvicorn.access", "uvicorn.error", "grpc", "asyncio")

_STAMPS: Final[tuple[Processor, ...]] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Send everything to `stream` (stderr): Orqestra's own from `level` on, the libraries' from warning on.

    `auto` is text on a terminal and JSON elsewhere. Colours need a terminal and no `NO_COLOR`.
    A server that is given to uvicorn needs `log_config=None`, or uvicorn puts its own set-up back.
    """
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(_formatter(format, target))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
    logging.getLogger("orqestra").setLevel(level.upper())
    logging.captureWarnings(True)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module: `get_logger(__name__)`. It may be made before `configure` is called."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_STAMPS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast(structlog.stdlib.BoundLogger, logger)


def _formatter(format: str, stream: TextIO) -> logging.Formatter:
    is_terminal = stream.isatty()
    wants_text = format == "text" or (format == "auto" and is_terminal)
    render = _text(colors=is_terminal and not os.environ.get("NO_COLOR")) if wants_text else _json()
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=list(_STAMPS),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


def _text(*, colors: bool) -> tuple[Processor, ...]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        # Others' strings come quoted, so that none can forge a line or steer the terminal.
        repr_native_str=True,
        # Not the pretty one of rich: that prints local variables, and with them payloads and secrets.
        exception_formatter=structlog.dev.plain_traceback,
    )
    return (renderer,)


def _json() -> tuple[Processor, ...]:
    return (structlog.processors.format_exc_info, _render_json)


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Render one line with time, level and event first; a value JSON does not know appears as its repr."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return json.dumps(first | dict(event), default=repr)
