"""The log lines of refused requests. Anyone can cause them, so they are rare."""

import asyncio
from collections import defaultdict
from typing import Any

import attrs
from aiohttp import web

from hub.observe.rare_log import RareLog

REFUSAL_LOG_SECONDS = 10.0


@attrs.define(eq=False, repr=False)
class RefusalLog:
    """Writes at most one line in 10 seconds for each kind of refusal, so that one kind does not hide another."""

    _logs: defaultdict[str, RareLog] = attrs.field(
        factory=lambda: defaultdict(lambda: RareLog(REFUSAL_LOG_SECONDS)), init=False
    )

    def warn(self, event: str, **fields: Any) -> None:
        """Write a line, or leave it out. *event* is a constant text of the code, the kind of the refusal."""
        self._logs[event].warn(asyncio.get_running_loop().time(), event, **fields)


REFUSAL_LOG_KEY = web.AppKey("refusal_log", RefusalLog)
