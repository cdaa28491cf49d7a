"""Configure the log lines of the hub."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict

from hub.observe.agents import install_log_handler
from hub.text import escape_unprintable

# `event` is text of the hub, or text of an agent that is already escaped. `exception` is always already escaped.
UNESCAPED_FIELDS = ("event", "exception")


def _escape(_: Any, __: str, fields: EventDict) -> EventDict:
    """Escape the values of a line: text of clients and agents must not end the line or control a terminal."""
    for name, value in fields.items():
        if isinstance(value, str) and name not in UNESCAPED_FIELDS:
            fields[name] = escape_unprintable(value)
    return fields


def log_to_stderr() -> None:
    """Write log lines to standard error; standard output is for the results of commands."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            _escape,
            # The default formatter prints the values of variables: it would show users' messages, and take minutes for
            # the whole node.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        # One write per line, and no lock that a forked child would inherit.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    install_log_handler()
    # aiohttp logs a traceback for each request that is not HTTP: anyone could fill the disk.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
