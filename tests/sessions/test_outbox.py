"""When what a session says goes to the log: at once where it can, joined where it cannot; and what its outbox does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from support.waiting import PATIENCE

from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.limits import Limits
from hub.messages import Chunk, Event, HistoryMessage, RunFinished
from hub.observe.load import ThreadLoad
from hub.seams import Seams
from hub.sessions.outbox import Outbox, OutboxState, PendingEvent, attach_future
from hub.sessions.pace import MAX_STRETCH, Pace
from hub.storage.log import AppendCallback
from hub.storage.records import Append
from hub.storage.sqlite.log import SqliteLog

NEVER = 1e9  # seconds
MESSAGE = HistoryMessage(messageId="m", role="assistant", content="x", agentId="main", runId="r", author=None)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(f"sqlite:///{tmp_path}/hub.db", Limits(), Seams())
    await log.start(lambda session, events: None)
    await log.sessions.make(Key("s"))
    yield log
    await log.close()


class Speaker:
    """A run that speaks into an outbox.

    `kept` has the bytes of each event that has landed, `rests` counts how often the outbox came to rest.
    """

    def __init__(self, log: SqliteLog, pace: Pace, retry_seconds: float = NEVER) -> None:
        limits = Limits(retry_seconds=retry_seconds)
        self.log = log
        self.outbox = Outbox(key=Key("s"), store=log.events, limits=limits, pace=pace, on_idle=self.rest)
        self.kept: list[int] = []
        self.offset = self.rests = 0

    def rest(self) -> None:
        self.rests += 1

    def state(self) -> OutboxState:
        return self.outbox.state

    def say(self, text: str) -> None:
        self.outbox.put_text("r", "main", "m", self.offset, text, len(text), self.kept.append)
        self.offset += len(text)

    async def landed(self, events: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.kept) < events:
                await asyncio.sleep(0)

    async def end(self) -> list[str]:
        """End the run; return the texts of its events."""
        end = PendingEvent("main", "r", RunFinished("m", "end_turn"))
        kept = attach_future(end)
        self.outbox.put(end)
        last = await asyncio.wait_for(kept, PATIENCE)
        events: list[Event] = []
        while page := await self.log.events.read(Key("s"), len(events), last):
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
    ("busy", "times"),
    [(0.0, 1.0), (0.1, 1.0), (0.375, 1.6), (0.65, MAX_STRETCH), (1.0, MAX_STRETCH), (1.3, MAX_STRETCH)],
)
def test_a_frame_lasts_longer_the_busier_the_loop_is(busy: float, times: float) -> None:
    pace = Pace(0.01)
    pace.adjust(busy)
    assert pace.stretched == pytest.approx(0.01 * times)
    pace.adjust(0.0)
    assert pace.stretched == 0.01


async def test_a_busy_thread_is_seen() -> None:
    """What a hub does a few times a second: a thread that only works is busy, and one that waits is not."""
    pace, load = Pace(0.01), ThreadLoad()
    async with asyncio.timeout(PATIENCE):
        while pace.stretched == 0.01:
            sum(range(100_000))
            pace.adjust(load.measure())
        while pace.stretched > 0.01:
            await asyncio.sleep(0.05)
            pace.adjust(load.measure())


# --- the states -------------------------------------------------------------------------------------------------------


class HeldLog:
    """The log of an outbox, whose appends are held back until they are landed or refused."""

    def __init__(self, log: SqliteLog) -> None:
        self.whole = log.events.append
        self.appends: asyncio.Queue[tuple[Append, AppendCallback]] = asyncio.Queue()
        log.events.append = lambda append, done: self.appends.put_nowait((append, done))  # type: ignore[method-assign]

    async def next(self) -> tuple[Append, AppendCallback]:
        return await asyncio.wait_for(self.appends.get(), PATIENCE)

    async def land(self) -> list[str]:
        """Commit the append that is held, or the next one; return what is in it."""
        append, done = await self.next()
        landed = asyncio.Event()

        def tell(first: int | Exception) -> None:
            done(first)
            landed.set()

        self.whole(append, tell)
        await asyncio.wait_for(landed.wait(), PATIENCE)
        return [event.body.content if isinstance(event.body, Chunk) else event.body.type for event in append.events]

    async def fail(self) -> None:
        """Refuse the append that is held, or the next one."""
        _, done = await self.next()
        done(StorageUnavailable("disk full"))


@pytest.fixture
def held(log: SqliteLog) -> HeldLog:
    return HeldLog(log)


def event(is_refusable: bool = False, run: str = "r") -> PendingEvent:
    return PendingEvent("main", run, RunFinished("m", "end_turn"), is_refusable=is_refusable)


async def test_an_event_goes_at_once_and_leaves_nothing_behind(log: SqliteLog, held: HeldLog) -> None:
    """IDLE, IN_FLIGHT, IDLE; whoever may let the session go is told."""
    run = Speaker(log, Pace(NEVER))
    assert run.state() is OutboxState.IDLE
    run.outbox.put(event())
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held.land() == ["run_finished"]
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty and run.rests == 1


async def test_a_chunk_after_a_pause_goes_at_once(log: SqliteLog, held: HeldLog) -> None:
    """IDLE, IN_FLIGHT, IDLE; its run goes on, so nobody is told."""
    run = Speaker(log, Pace(NEVER))
    run.say("a")
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held.land() == ["a"]
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty and run.rests == 0


async def test_a_chunk_in_the_frame_of_the_one_before_waits_for_an_event(log: SqliteLog, held: HeldLog) -> None:
    """IDLE, WAITING, IN_FLIGHT."""
    run = Speaker(log, Pace(NEVER))
    run.say("a")
    await held.land()
    run.say("b")
    assert run.state() is OutboxState.WAITING and not run.outbox.is_empty
    run.outbox.put(event())
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held.land() == ["b", "run_finished"]


async def test_a_chunk_that_waits_goes_at_the_end_of_its_frame(
    log: SqliteLog, held: HeldLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAITING, IN_FLIGHT, by the clock."""
    run, loop = Speaker(log, Pace(NEVER)), asyncio.get_running_loop()
    run.say("a")
    await held.land()
    later = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda wait, *call: later(0 if wait > NEVER / 2 else wait, *call))
    run.say("b")
    assert run.state() is OutboxState.WAITING
    assert await held.land() == ["b"]
    assert run.state() is OutboxState.IDLE


async def test_chunks_that_gathered_wait_for_their_frame(log: SqliteLog, held: HeldLog) -> None:
    """IN_FLIGHT, WAITING."""
    run = Speaker(log, Pace(NEVER))
    for piece in "abc":
        run.say(piece)
    assert run.state() is OutboxState.IN_FLIGHT
    await held.land()
    assert run.state() is OutboxState.WAITING


@pytest.mark.parametrize("frame", [0.0, NEVER])
async def test_what_gathered_goes_when_it_may(log: SqliteLog, held: HeldLog, frame: float) -> None:
    """IN_FLIGHT again: chunks where their frame is over, an event always."""
    run = Speaker(log, Pace(frame))
    for piece in "abc":
        run.say(piece)
    if frame:
        run.outbox.put(event())
    await held.land()
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held.land() == (["bc", "run_finished"] if frame else ["bc"])
    assert run.state() is OutboxState.IDLE


async def test_what_is_said_to_a_landing_goes_together(log: SqliteLog, held: HeldLog) -> None:
    """Two who hear of their events say something each: one append has both."""
    run = Speaker(log, Pace(NEVER))
    first, second = event(), event()
    first.on_result = second.on_result = lambda _: run.outbox.put(event())
    run.outbox.put(first, second)
    assert await held.land() == ["run_finished"] * 2
    assert await held.land() == ["run_finished"] * 2
    assert run.state() is OutboxState.IDLE and held.appends.empty()


async def test_an_append_that_is_refused_whole_leaves_nothing_behind(log: SqliteLog, held: HeldLog) -> None:
    """IN_FLIGHT, IDLE: there is nothing to try again."""
    run = Speaker(log, Pace(NEVER))
    item = event(is_refusable=True)
    kept = attach_future(item)
    run.outbox.put(item)
    await held.fail()
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty and run.rests == 1
    with pytest.raises(StorageUnavailable):
        await kept


async def test_what_may_not_be_lost_is_tried_again(log: SqliteLog, held: HeldLog) -> None:
    """IN_FLIGHT, BACKING_OFF, RETRYING, BACKING_OFF, RETRYING, IDLE; one line says so; chunks gather meanwhile."""
    run = Speaker(log, Pace(0.0), retry_seconds=0.05)
    run.say("a")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            await held.fail()
            assert run.state() is OutboxState.BACKING_OFF and run.outbox.has_failed
            run.say("b")
            append, done = await held.next()
            assert run.state() is OutboxState.RETRYING and run.outbox.has_failed
            held.appends.put_nowait((append, done))
    assert [line["event"] for line in logs] == ["the log cannot be written; events wait in memory for a retry"]
    assert await held.land() == ["a"]
    assert not run.outbox.has_failed
    assert await held.land() == ["bb"]
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty


@pytest.mark.parametrize("follows", [OutboxState.WAITING, OutboxState.IN_FLIGHT])
async def test_a_try_that_succeeds_goes_on_with_what_gathered(
    log: SqliteLog, held: HeldLog, follows: OutboxState
) -> None:
    """RETRYING, WAITING for chunks in their frame; RETRYING, IN_FLIGHT for an event."""
    run = Speaker(log, Pace(NEVER), retry_seconds=0.05)
    run.say("a")
    await held.fail()
    append, done = await held.next()
    assert run.state() is OutboxState.RETRYING
    held.appends.put_nowait((append, done))
    run.say("b")
    if follows is OutboxState.IN_FLIGHT:
        run.outbox.put(event())
    assert await held.land() == ["a"]
    assert run.state() is follows and not run.outbox.has_failed


async def test_a_failure_of_which_all_is_forgotten_leaves_nothing_behind(log: SqliteLog, held: HeldLog) -> None:
    """BACKING_OFF, IDLE, without an append."""
    run = Speaker(log, Pace(NEVER), retry_seconds=0.05)
    run.outbox.put(event())
    await held.fail()
    assert run.state() is OutboxState.BACKING_OFF
    run.outbox.drop_run("r")
    async with asyncio.timeout(PATIENCE):
        while run.rests == 0:
            await asyncio.sleep(0)
    assert run.state() is OutboxState.IDLE and held.appends.empty()


TIMED = (OutboxState.WAITING, OutboxState.BACKING_OFF)


def pending_timers() -> int:
    """Return how many timers the loop has that were not cancelled."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not timer.cancelled() for timer in scheduled)


@pytest.mark.parametrize("state", [state for state in OutboxState if state is not OutboxState.CLOSED])
async def test_an_outbox_that_is_closed_tries_nothing_any_more(
    log: SqliteLog, held: HeldLog, state: OutboxState
) -> None:
    """From each state, with no way back; an append that was under way still lands."""
    run = Speaker(log, Pace(NEVER), retry_seconds=0.05)
    if state is OutboxState.WAITING:
        run.say("a")
        await held.land()
        run.say("b")
    elif state is not OutboxState.IDLE:
        run.outbox.put(event())
        if state is not OutboxState.IN_FLIGHT:
            await held.fail()
        if state is OutboxState.RETRYING:
            held.appends.put_nowait(await held.next())
            run.outbox.put(event())
    assert run.state() is state
    timers = pending_timers()
    run.outbox.close()
    assert run.state() is OutboxState.CLOSED and pending_timers() == timers - (state in TIMED)
    if state in (OutboxState.IN_FLIGHT, OutboxState.RETRYING):
        assert await held.land() == ["run_finished"]
    run.say("c")
    run.outbox.put(event())
    assert run.state() is OutboxState.CLOSED and held.appends.empty() and pending_timers() == timers - (state in TIMED)


async def test_one_who_waits_for_a_log_is_told_that_it_is_closed(log: SqliteLog, held: HeldLog) -> None:
    """wait_for_history() raises, and wait_until_empty() returns; whether they waited already or come only now."""
    run = Speaker(log, Pace(NEVER))
    run.outbox.put(PendingEvent("main", "r", RunFinished("m", "end_turn"), messages=(MESSAGE,)))
    waiting = [asyncio.create_task(wait()) for wait in (run.outbox.wait_for_history, run.outbox.wait_until_empty)]
    await asyncio.sleep(0)
    run.outbox.close()
    waiting += [asyncio.create_task(wait()) for wait in (run.outbox.wait_for_history, run.outbox.wait_until_empty)]
    async with asyncio.timeout(PATIENCE):
        settled, emptied, settled_late, emptied_late = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(settled, StorageUnavailable) and isinstance(settled_late, StorageUnavailable)
    assert emptied is emptied_late is None


async def test_one_who_waits_until_all_is_in_the_log_hears_of_the_last_chunk(log: SqliteLog, held: HeldLog) -> None:
    """wait_until_empty() returns where chunks land alone, too."""
    run = Speaker(log, Pace(0.0))
    for piece in "ab":
        run.say(piece)
    emptied = asyncio.create_task(run.outbox.wait_until_empty())
    assert await held.land() == ["a"] and not emptied.done()
    assert await held.land() == ["b"]
    await asyncio.wait_for(emptied, PATIENCE)
    assert run.outbox.is_empty
