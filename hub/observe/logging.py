"""Where log lines go."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict

from hub.observe.agents import install_log_handler
from hub.text import escape_unprintable

LINES = ("event", "exception")  # the hub's own text, or text that was escaped where it was logged


def _escape(_: Any, __: str, fields: EventDict) -> EventDict:
    """Escape the values of a line: text of clients and agents must not end the line, or control a terminal."""
    for name, value in fields.items():
        if isinstance(value, str) and name not in LINES:
            fields[name] = escape_unprintable(value)
    return fields


def log_to_stderr() -> None:
    """Keep standard output for what the operator asked to read."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            _escape,
            # The default shows the values of variables: what people wrote, and the whole node, for minutes.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # one write a line, and no lock to inherit
    )
    install_log_handler()
    # aiohttp logs each request that is no HTTP as an error with its traceback: anyone could fill the disk with it.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
