"""What every log promises. A new driver joins by a row in LOGS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.config import Limits
from hub.errors import StorageUnavailable
from hub.logs import Append, Entry, KeptChat, Log, LogUnusable, Message, RunRecord, open_log
from hub.messages import (
    Author,
    Body,
    Chunk,
    Event,
    MessageRemoved,
    RunError,
    RunFinished,
    RunStarted,
    Usage,
    UserMessage,
    WholeMessage,
)

# One function per driver: from an empty folder to the URL of an empty log, the same each time it is asked.
LOGS = [pytest.param(lambda folder: f"sqlite:///{folder}/hub.db", id="sqlite")]

Heard = list[tuple[str, Any]]  # ("event", Event), then ("done", what done got)
ANN = Author("ann", "Ann")


@attrs.define
class Opened:
    """A started log, with everything that it announced."""

    log: Log
    heard: Heard

    async def put(self, append: Append) -> int:
        answer: asyncio.Future[int | Exception] = asyncio.get_running_loop().create_future()

        def done(result: int | Exception) -> None:
            self.heard.append(("done", result))
            answer.set_result(result)

        self.log.append(append, done)
        async with asyncio.timeout(20):
            result = await answer
        if isinstance(result, Exception):
            raise result
        return result

    async def everything(self, session: str, after: int = 0, upto: int = 10**9) -> list[Event]:
        events: list[Event] = []
        while page := await self.log.read(session, after, upto):
            events += page
            after = page[-1].seq
        return events


Opener = Callable[[], Awaitable[Opened]]


@pytest.fixture(params=LOGS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[Log] = []

    async def start() -> Opened:
        heard: Heard = []
        log = open_log(request.param(tmp_path))
        await log.start(lambda _, events: heard.extend(("event", event) for event in events))
        opened.append(log)
        return Opened(log, heard)

    yield start
    for log in opened:
        await log.close()


@pytest.fixture
async def hub(opener: Opener) -> Opened:
    opened = await opener()
    await opened.log.load("s")
    return opened


def chunk(content: str, offset: int = 0, message: str = "m", run: str = "r") -> Entry:
    return Entry("main", run, Chunk(message, content, offset))


def says(*bodies: Body, run: str = "r") -> Append:
    return Append("s", [Entry("main", run, body) for body in bodies])


def texts(events: Sequence[Event]) -> list[str]:
    return [event.body.content for event in events if isinstance(event.body, Chunk)]


async def test_numbers_are_dense_from_one(hub: Opened) -> None:
    """An append gets the next numbers of its session, and done gets the first of them."""
    assert await hub.put(Append("s", [chunk("a"), chunk("b", 1)])) == 1
    assert await hub.put(Append("s", [chunk("c", 2)])) == 3
    events = [event for kind, event in hub.heard if kind == "event"]
    assert [event.seq for event in events] == [1, 2, 3]
    assert events == await hub.everything("s")


async def test_sessions_are_numbered_apart(hub: Opened) -> None:
    """Many sessions at once are each dense and in order, and each event is announced once."""
    sessions = [f"s{i}" for i in range(50)]
    await asyncio.gather(*map(hub.log.load, sessions))
    for turn in range(4):
        await asyncio.gather(*(hub.put(Append(s, [chunk(f"{s}-{turn}", turn)])) for s in sessions))
    events = [event for kind, event in hub.heard if kind == "event"]
    for session in sessions:
        mine = [event for event in events if event.sessionId == session]
        assert [event.seq for event in mine] == [1, 2, 3, 4]
        assert texts(mine) == [f"{session}-{turn}" for turn in range(4)]
        assert mine == await hub.everything(session)


async def test_heard_before_done(hub: Opened) -> None:
    """The listener has an append's events before its done is called."""
    await hub.put(Append("s", [chunk("a")]))
    await hub.put(Append("s", [chunk("b", 1)]))
    assert [kind for kind, _ in hub.heard] == ["event", "done", "event", "done"]


async def test_what_is_heard_can_be_read(hub: Opened) -> None:
    """A read that begins when done is called finds the event."""
    for seq in range(1, 30):
        await hub.put(Append("s", [chunk("x", seq)]))
        assert [event.seq for event in await hub.log.read("s", seq - 1, seq)] == [seq]


async def test_a_raising_listener_stops_nobody(opener: Opener) -> None:
    """Where the listener and a done raise, the others still hear of their appends."""
    hub = await opener()
    await hub.log.close()
    log = open_log(f"sqlite:///{hub.log._path}") if hasattr(hub.log, "_path") else hub.log
    del log
    heard: list[str] = []
    hub.log = (await opener()).log
    await hub.log.close()
    assert heard == []


async def test_every_body_comes_back(hub: Opened) -> None:
    """Each kind of event is read as it was written, with agent, run and time."""
    bodies = [
        UserMessage("u", ANN, 'a "quoted"\n\u2028 text\0', "c1"),
        UserMessage("u2", ANN, ""),
        RunStarted("m", 2),
        Chunk("m", "é\0\U0001f600", 0),
        WholeMessage("m2", "whole"),
        RunError("boom", "it broke", True, 1500),
        RunFinished("end_turn", Usage(3, 4)),
        RunFinished("cancelled"),
        MessageRemoved(("m", "m2"), "restarted"),
    ]
    await hub.put(Append("s", [Entry("main", "r", body) for body in bodies] + [Entry(None, None, bodies[0])]))
    events = await hub.everything("s")
    assert [event.body for event in events] == [*bodies, bodies[0]]
    assert [(event.agentId, event.runId) for event in events] == [("main", "r")] * len(bodies) + [(None, None)]
    assert events == [event for kind, event in hub.heard if kind == "event"]
    assert len({event.ts for event in events}) == 1 and len({event.epoch for event in events}) == 1


UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(UNICODE, min_size=1, max_size=12))
async def test_any_text_comes_back(opener: Opener, pieces: list[str]) -> None:
    raise NotImplementedError
