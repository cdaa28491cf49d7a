"""Where log lines go."""

import logging
import sys

import structlog

from hub.observe.agents import take_up_logging


def log_to_stderr() -> None:
    """Keep standard output for what the operator asked to read."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # The default shows the values of variables: what people wrote, and the whole node, for minutes.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # one write a line, and no lock to inherit
    )
    take_up_logging()
    # aiohttp logs each request that is no HTTP as an error with its traceback: anyone could fill the disk with it.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
