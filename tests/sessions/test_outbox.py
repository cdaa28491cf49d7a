"""When what a session says goes to the log: at once where it can, joined where it cannot."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.waiting import PATIENCE

from hub.limits import Limits
from hub.messages import Chunk, Event, RunFinished
from hub.observe.load import ThreadLoad
from hub.seams import Seams
from hub.sessions.outbox import Item, Outbox, landing
from hub.sessions.pace import MOST, Pace
from hub.storage.sqlite.log import SqliteLog

NEVER = 1e9  # seconds


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(f"sqlite:///{tmp_path}/hub.db", Limits(), Seams())
    await log.start(lambda session, events: None)
    await log.sessions.make("s")
    yield log
    await log.close()


class Speaker:
    """A run that speaks into an outbox; `kept` has the bytes of each event that has landed."""

    def __init__(self, log: SqliteLog, pace: Pace) -> None:
        self.log, self.outbox = log, Outbox("s", log.events, Limits(), pace, lambda: None)
        self.kept: list[int] = []
        self.offset = 0

    def say(self, text: str) -> None:
        self.outbox.say("r", "main", "m", self.offset, text, len(text), self.kept.append)
        self.offset += len(text)

    async def landed(self, events: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.kept) < events:
                await asyncio.sleep(0)

    async def end(self) -> list[str]:
        """End the run; return the texts of its events."""
        end = Item("main", "r", RunFinished("m", "end_turn"))
        kept = landing(end)
        self.outbox.put(end)
        last = await asyncio.wait_for(kept, PATIENCE)
        events: list[Event] = []
        while page := await self.log.events.read("s", len(events), last):
            events += page
        assert [event.seq for event in events] == list(range(1, last + 1))
        return [event.body.content for event in events if isinstance(event.body, Chunk)]


async def test_what_comes_one_by_one_goes_at_once_however_busy_the_loop_is(log: SqliteLog) -> None:
    """Waiting would join nothing."""
    pace = Pace(0.0)
    pace.stretched = NEVER
    run = Speaker(log, pace)
    for number in range(20):
        run.say(f"{number} ")
        await run.landed(number + 1)
    assert await run.end() == [f"{number} " for number in range(20)]


async def test_what_comes_faster_than_it_goes_waits_longer_where_the_loop_is_busy(log: SqliteLog) -> None:
    """`bc` came while `a` was on its way; so what comes next gathers, until the end takes it along."""
    pace = Pace(0.0)
    pace.stretched = NEVER
    run = Speaker(log, pace)
    for piece in "abc":
        run.say(piece)
    await run.landed(2)
    for piece in "de":
        run.say(piece)
        await asyncio.sleep(0)
    assert await run.end() == ["a", "bc", "de"]


async def test_the_first_of_a_pause_goes_at_once_and_the_rest_waits_for_its_frame(log: SqliteLog) -> None:
    run = Speaker(log, Pace(NEVER))
    run.say("a")
    await run.landed(1)
    run.say("b")
    await asyncio.sleep(0)
    run.say("c")
    assert await run.end() == ["a", "bc"]


async def test_an_end_takes_along_what_waits_before_it(log: SqliteLog) -> None:
    """Each event has at most one full chunk of a run: what is left of them waits for no frame either."""
    run, size = Speaker(log, Pace(NEVER)), Limits().chunk_bytes
    for piece in "abc":
        run.say(piece * size)
    assert await run.end() == ["a" * size, "b" * size, "c" * size]


async def test_chunks_that_are_full_do_not_wait_longer_where_the_loop_is_busy(log: SqliteLog) -> None:
    """Nothing could join them."""
    pace, size = Pace(0.0), Limits().chunk_bytes // 2
    pace.stretched = NEVER
    run = Speaker(log, pace)
    for piece in "abbccdd":
        run.say(piece * size)
    await run.landed(4)
    assert await run.end() == ["a" * size, "b" * 2 * size, "c" * 2 * size, "d" * 2 * size]


@pytest.mark.parametrize(
    ("busy", "times"), [(0.0, 1.0), (0.1, 1.0), (0.375, 1.6), (0.65, MOST), (1.0, MOST), (1.3, MOST)]
)
def test_a_frame_lasts_longer_the_busier_the_loop_is(busy: float, times: float) -> None:
    pace = Pace(0.01)
    pace.note(busy)
    assert pace.stretched == pytest.approx(0.01 * times)
    pace.note(0.0)
    assert pace.stretched == 0.01


async def test_a_busy_thread_is_seen() -> None:
    """What a hub does a few times a second: a thread that only works is busy, and one that waits is not."""
    pace, load = Pace(0.01), ThreadLoad()
    async with asyncio.timeout(PATIENCE):
        while pace.stretched == 0.01:
            sum(range(100_000))
            pace.note(load.look())
        while pace.stretched > 0.01:
            await asyncio.sleep(0.05)
            pace.note(load.look())
