"""Open logs of each driver, for the tests of the contract of a log. A new driver needs a row in LOGS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from hub.ids import Key
from hub.limits import Limits
from hub.messages import Chunk, Event
from hub.seams import Seams
from hub.storage.log import Log
from hub.storage.open_log import open_log
from hub.storage.records import Append, FileRecord

# One function per driver: it returns the URL of the log in a folder, equal at each call.
LOGS = [pytest.param(lambda folder: f"sqlite:///{folder}/hub.db", id="sqlite")]

Notices = list[tuple[str, Any]]  # ("event", Event), then ("done", the argument of done)


@attrs.define
class OpenedLog:
    """A started log, with all events that it announced and all results of its callbacks."""

    log: Log
    notices: Notices

    async def put(self, append: Append) -> int:
        answer: asyncio.Future[int | Exception] = asyncio.get_running_loop().create_future()

        def done(result: int | Exception) -> None:
            self.notices.append(("done", result))
            answer.set_result(result)

        self.log.events.append(append, done)
        async with asyncio.timeout(20):
            result = await answer
        if isinstance(result, Exception):
            raise result
        return result

    async def everything(self, session: str, after: int = 0, upto: int = 10**9) -> list[Event]:
        events: list[Event] = []
        while page := await self.log.events.read(Key(session), after, upto):
            events += page
            after = page[-1].seq
        return events


Opener = Callable[..., Awaitable[OpenedLog]]


@asynccontextmanager
async def open_logs(url: str) -> AsyncIterator[Opener]:
    """Yield a function that starts the log of *url*; at the end, close all logs that it started."""
    opened: list[Log] = []

    async def start(spoil: Callable[[str], None] = lambda session: None) -> OpenedLog:
        notices: Notices = []

        def listener(session: str, events: Sequence[Event]) -> None:
            notices.extend(("event", event) for event in events)
            spoil(session)

        log = open_log(url, Limits(), Seams())
        await log.start(listener)
        opened.append(log)
        return OpenedLog(log, notices)

    yield start
    for log in opened:
        await log.close()


def chunk(content: str, offset: int = 0, message: str = "m", run: str = "r") -> Event:
    return Event("main", run, Chunk(message, content, offset))


def file(file_id: str, session: str = "s", digest: str = "d1", size: int = 7) -> FileRecord:
    return FileRecord(
        fileId=file_id, key=Key(session), name="a \0\U0001f600", type='text/plain; a="b"', size=size, digest=digest
    )
