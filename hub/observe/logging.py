"""Configure the log lines of the hub."""

import logging
import sys
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor

from hub.observe.agents import install_log_handler
from hub.text import escape_unprintable

# `event` is text of the hub, or text of an agent that is already escaped. `exception` is always already escaped.
UNESCAPED_FIELDS = ("event", "exception")

LevelName = Literal["debug", "info", "warning", "error"]
LEVELS: dict[LevelName, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def _escape(_: Any, __: str, fields: EventDict) -> EventDict:
    """Escape the values of a line: text of clients and agents must not end the line or control a terminal."""
    for name, value in fields.items():
        if isinstance(value, str) and name not in UNESCAPED_FIELDS:
            fields[name] = escape_unprintable(value)
    return fields


def _write_json(_: Any, __: str, fields: EventDict) -> str:
    """Return the line as a JSON object, which begins with its time, level and event."""
    line = {name: fields.pop(name) for name in ("time", "level", "event")} | dict(fields)
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits
        return orjson.dumps({name: escape_unprintable(str(value)) for name, value in line.items()}).decode()


def _make_text_processors() -> tuple[Processor, ...]:
    return (
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        _escape,
        # The default formatter prints the values of variables: it would show users' messages, and take minutes for
        # the whole node.
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback),
    )


JSON_PROCESSORS: tuple[Processor, ...] = (
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    structlog.processors.format_exc_info,
    _write_json,
)


def log_to_stderr(level: LevelName = "info", form: Literal["text", "json"] = "text") -> None:
    """Write log lines to standard error; standard output is for the results of commands.

    A second call changes the level and the form from then on. With `debug`, records of libraries are written too.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(JSON_PROCESSORS if form == "json" else _make_text_processors()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        # One write per line, and no lock that a forked child would inherit.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    install_log_handler(LEVELS[level])
    logging.captureWarnings(True)  # Python would write them to standard error, in another form
    # aiohttp logs a traceback for each request that is not HTTP: anyone could fill the disk.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
