"""When the outbox of a session appends events to the log, how it merges chunks, and its states."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
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
from hub.sessions.outbox import Outbox, OutboxState
from hub.sessions.pace import MAX_STRETCH, Pace
from hub.sessions.pending import PendingEvent, attach_future
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
    """A run that writes to an outbox.

    `logged_sizes` has the bytes of each logged chunk; `idle_count` counts the calls of `on_idle`.
    """

    def __init__(self, log: SqliteLog, pace: Pace, retry_seconds: float = NEVER) -> None:
        limits = Limits(retry_seconds=retry_seconds)
        self.log = log
        self.outbox = Outbox(key=Key("s"), store=log.events, limits=limits, pace=pace, on_idle=self.on_idle)
        self.logged_sizes: list[int] = []
        self.offset = self.idle_count = 0

    def on_idle(self) -> None:
        self.idle_count += 1

    def state(self) -> OutboxState:
        return self.outbox.state

    def say(self, text: str) -> None:
        self.outbox.put_text("r", "main", "m", self.offset, text, len(text), self.logged_sizes.append)
        self.offset += len(text)

    async def wait_for_chunks(self, events: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.logged_sizes) < events:
                await asyncio.sleep(0)

    async def end(self) -> list[str]:
        """End the run; return the texts of its events."""
        end = PendingEvent("main", "r", RunFinished("m", "end_turn"))
        commit = attach_future(end)
        self.outbox.put(end)
        last = await asyncio.wait_for(commit, PATIENCE)
        events: list[Event] = []
        while page := await self.log.events.read(Key("s"), len(events), last):
            events += page
        assert [event.seq for event in events] == list(range(1, last + 1))
        return [event.body.content for event in events if isinstance(event.body, Chunk)]


async def test_single_pieces_are_flushed_at_once_under_any_load(log: SqliteLog) -> None:
    """A longer wait would merge nothing."""
    pace = Pace(0.0)
    pace.long_seconds = NEVER
    run = Speaker(log, pace)
    for number in range(20):
        run.say(f"{number} ")
        await run.wait_for_chunks(number + 1)
    assert await run.end() == [f"{number} " for number in range(20)]


async def test_merged_pieces_wait_longer_under_load(log: SqliteLog) -> None:
    """`b` and `c` are merged while `a` is in flight. So the next pieces wait until the end flushes them."""
    pace = Pace(0.0)
    pace.long_seconds = NEVER
    run = Speaker(log, pace)
    for piece in "abc":
        run.say(piece)
    await run.wait_for_chunks(2)
    for piece in "de":
        run.say(piece)
        await asyncio.sleep(0)
    assert await run.end() == ["a", "bc", "de"]


async def test_the_first_piece_after_a_pause_is_flushed_at_once_and_the_next_ones_wait(log: SqliteLog) -> None:
    run = Speaker(log, Pace(NEVER))
    run.say("a")
    await run.wait_for_chunks(1)
    run.say("b")
    await asyncio.sleep(0)
    run.say("c")
    assert await run.end() == ["a", "bc"]


async def test_an_event_flushes_the_chunks_before_it(log: SqliteLog) -> None:
    """An append has at most one full chunk of a run; the other ones follow without a wait."""
    run, size = Speaker(log, Pace(NEVER)), Limits().chunk_bytes
    for piece in "abc":
        run.say(piece * size)
    assert await run.end() == ["a" * size, "b" * size, "c" * size]


async def test_chunks_that_are_full_do_not_wait_longer_where_the_loop_is_busy(log: SqliteLog) -> None:
    """Nothing could join a full chunk."""
    pace, size = Pace(0.0), Limits().chunk_bytes // 2
    pace.long_seconds = NEVER
    run = Speaker(log, pace)
    for piece in "abbccdd":
        run.say(piece * size)
    await run.wait_for_chunks(4)
    assert await run.end() == ["a" * size, "b" * 2 * size, "c" * 2 * size, "d" * 2 * size]


@pytest.mark.parametrize(
    ("busy", "times"),
    [(0.0, 1.0), (0.1, 1.0), (0.375, 1.6), (0.65, MAX_STRETCH), (1.0, MAX_STRETCH), (1.3, MAX_STRETCH)],
)
def test_the_flush_interval_grows_with_the_load(busy: float, times: float) -> None:
    pace = Pace(0.01)
    pace.adjust(busy)
    assert pace.long_seconds == pytest.approx(0.01 * times)
    pace.adjust(0.0)
    assert pace.long_seconds == 0.01


async def test_the_load_of_the_thread_is_measured() -> None:
    """A thread that only works is busy, and a thread that waits is not."""
    pace, load = Pace(0.01), ThreadLoad()
    async with asyncio.timeout(PATIENCE):
        while pace.long_seconds == 0.01:
            sum(range(100_000))
            pace.adjust(load.measure())
        while pace.long_seconds > 0.01:
            await asyncio.sleep(0.05)
            pace.adjust(load.measure())


# --- the states -------------------------------------------------------------------------------------------------------


class HeldLog:
    """The log of an outbox. Its appends wait until the test commits or refuses them."""

    def __init__(self, log: SqliteLog) -> None:
        self.real_append = log.events.append
        self.appends: asyncio.Queue[tuple[Append, AppendCallback]] = asyncio.Queue()
        log.events.append = lambda append, done: self.appends.put_nowait((append, done))  # type: ignore[method-assign]

    async def next(self) -> tuple[Append, AppendCallback]:
        return await asyncio.wait_for(self.appends.get(), PATIENCE)

    async def commit(self) -> list[str]:
        """Commit the waiting append, or the next one; return its texts and event types."""
        append, done = await self.next()
        committed = asyncio.Event()

        def tell(first: int | Exception) -> None:
            done(first)
            committed.set()

        self.real_append(append, tell)
        await asyncio.wait_for(committed.wait(), PATIENCE)
        return [event.body.content if isinstance(event.body, Chunk) else event.body.type for event in append.events]

    async def fail(self) -> None:
        """Refuse the waiting append, or the next one."""
        _, done = await self.next()
        done(StorageUnavailable("disk full"))


@pytest.fixture
def held_log(log: SqliteLog) -> HeldLog:
    return HeldLog(log)


def event(is_refusable: bool = False, run: str = "r") -> PendingEvent:
    return PendingEvent("main", run, RunFinished("m", "end_turn"), is_refusable=is_refusable)


async def test_an_event_is_flushed_at_once(log: SqliteLog, held_log: HeldLog) -> None:
    """IDLE, IN_FLIGHT, IDLE; `on_idle` is called."""
    run = Speaker(log, Pace(NEVER))
    assert run.state() is OutboxState.IDLE
    run.outbox.put(event())
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held_log.commit() == ["run_finished"]
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty and run.idle_count == 1


async def test_a_chunk_after_a_pause_is_flushed_at_once(log: SqliteLog, held_log: HeldLog) -> None:
    """IDLE, IN_FLIGHT, IDLE; `on_idle` is not called, because the run goes on."""
    run = Speaker(log, Pace(NEVER))
    run.say("a")
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held_log.commit() == ["a"]
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty and run.idle_count == 0


async def test_a_chunk_soon_after_another_waits_and_an_event_flushes_it(log: SqliteLog, held_log: HeldLog) -> None:
    """IDLE, WAITING, IN_FLIGHT."""
    run = Speaker(log, Pace(NEVER))
    run.say("a")
    await held_log.commit()
    run.say("b")
    assert run.state() is OutboxState.WAITING and not run.outbox.is_empty
    run.outbox.put(event())
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held_log.commit() == ["b", "run_finished"]


async def test_a_waiting_chunk_is_flushed_by_the_timer(
    log: SqliteLog, held_log: HeldLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAITING, IN_FLIGHT."""
    run, loop = Speaker(log, Pace(NEVER)), asyncio.get_running_loop()
    run.say("a")
    await held_log.commit()
    later = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda wait, *call: later(0 if wait > NEVER / 2 else wait, *call))
    run.say("b")
    assert run.state() is OutboxState.WAITING
    assert await held_log.commit() == ["b"]
    assert run.state() is OutboxState.IDLE


async def test_chunks_that_gathered_in_flight_wait_for_the_timer(log: SqliteLog, held_log: HeldLog) -> None:
    """IN_FLIGHT, WAITING."""
    run = Speaker(log, Pace(NEVER))
    for piece in "abc":
        run.say(piece)
    assert run.state() is OutboxState.IN_FLIGHT
    await held_log.commit()
    assert run.state() is OutboxState.WAITING


@pytest.mark.parametrize("frame", [0.0, NEVER])
async def test_gathered_events_and_due_chunks_are_flushed_after_the_append(
    log: SqliteLog, held_log: HeldLog, frame: float
) -> None:
    """IN_FLIGHT again: an event always, and chunks if the pace allows it."""
    run = Speaker(log, Pace(frame))
    for piece in "abc":
        run.say(piece)
    if frame:
        run.outbox.put(event())
    await held_log.commit()
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held_log.commit() == (["bc", "run_finished"] if frame else ["bc"])
    assert run.state() is OutboxState.IDLE


async def test_events_queued_by_callbacks_share_one_append(log: SqliteLog, held_log: HeldLog) -> None:
    """Each of two callbacks queues an event, and one append takes both."""
    run = Speaker(log, Pace(NEVER))
    first, second = event(), event()
    first.on_result = second.on_result = lambda _: run.outbox.put(event())
    run.outbox.put(first, second)
    assert await held_log.commit() == ["run_finished"] * 2
    assert await held_log.commit() == ["run_finished"] * 2
    assert run.state() is OutboxState.IDLE and held_log.appends.empty()


async def test_a_refused_append_of_refusable_events_is_not_retried(log: SqliteLog, held_log: HeldLog) -> None:
    """IN_FLIGHT, IDLE."""
    run = Speaker(log, Pace(NEVER))
    item = event(is_refusable=True)
    commit = attach_future(item)
    run.outbox.put(item)
    await held_log.fail()
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty and run.idle_count == 1
    with pytest.raises(StorageUnavailable):
        await commit


async def test_a_failed_append_is_retried(log: SqliteLog, held_log: HeldLog) -> None:
    """IN_FLIGHT, BACKING_OFF, RETRYING, BACKING_OFF, RETRYING, IDLE. One line reports the failures."""
    run = Speaker(log, Pace(0.0), retry_seconds=0.05)
    run.say("a")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            await held_log.fail()
            assert run.state() is OutboxState.BACKING_OFF and run.outbox.has_failed
            run.say("b")
            append, done = await held_log.next()
            assert run.state() is OutboxState.RETRYING and run.outbox.has_failed
            held_log.appends.put_nowait((append, done))
    assert [line["event"] for line in logs] == ["the log cannot be written; events wait in memory for a retry"]
    assert await held_log.commit() == ["a"]
    assert not run.outbox.has_failed
    assert await held_log.commit() == ["bb"]
    assert run.state() is OutboxState.IDLE and run.outbox.is_empty


@pytest.mark.parametrize("follows", [OutboxState.WAITING, OutboxState.IN_FLIGHT])
async def test_a_successful_retry_continues_with_the_gathered_events(
    log: SqliteLog, held_log: HeldLog, follows: OutboxState
) -> None:
    """RETRYING, WAITING for chunks; RETRYING, IN_FLIGHT for an event."""
    run = Speaker(log, Pace(NEVER), retry_seconds=0.05)
    run.say("a")
    await held_log.fail()
    append, done = await held_log.next()
    assert run.state() is OutboxState.RETRYING
    held_log.appends.put_nowait((append, done))
    run.say("b")
    if follows is OutboxState.IN_FLIGHT:
        run.outbox.put(event())
    assert await held_log.commit() == ["a"]
    assert run.state() is follows and not run.outbox.has_failed


async def test_a_retry_without_pending_events_makes_no_append(log: SqliteLog, held_log: HeldLog) -> None:
    """BACKING_OFF, IDLE, without an append."""
    run = Speaker(log, Pace(NEVER), retry_seconds=0.05)
    run.outbox.put(event())
    await held_log.fail()
    assert run.state() is OutboxState.BACKING_OFF
    run.outbox.drop_run("r")
    async with asyncio.timeout(PATIENCE):
        while run.idle_count == 0:
            await asyncio.sleep(0)
    assert run.state() is OutboxState.IDLE and held_log.appends.empty()


TIMED = (OutboxState.WAITING, OutboxState.BACKING_OFF)


def pending_timers() -> int:
    """Return how many timers the loop has that were not cancelled."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not timer.cancelled() for timer in scheduled)


@pytest.mark.parametrize("state", [state for state in OutboxState if state is not OutboxState.CLOSED])
async def test_a_closed_outbox_appends_nothing(log: SqliteLog, held_log: HeldLog, state: OutboxState) -> None:
    """From each state, and for ever. An append in flight still succeeds."""
    run, stack = Speaker(log, Pace(NEVER), retry_seconds=0.05), AsyncExitStack()
    if state is OutboxState.WAITING:
        run.say("a")
        await held_log.commit()
        run.say("b")
    elif state is OutboxState.HELD:
        await stack.enter_async_context(run.outbox.hold(lambda event: False))
    elif state is not OutboxState.IDLE:
        run.outbox.put(event())
        if state is not OutboxState.IN_FLIGHT:
            await held_log.fail()
        if state is OutboxState.RETRYING:
            held_log.appends.put_nowait(await held_log.next())
            run.outbox.put(event())
    assert run.state() is state
    timers = pending_timers()
    run.outbox.close()
    assert run.state() is OutboxState.CLOSED and pending_timers() == timers - (state in TIMED)
    if state in (OutboxState.IN_FLIGHT, OutboxState.RETRYING):
        assert await held_log.commit() == ["run_finished"]
    await stack.aclose()
    run.say("c")
    run.outbox.put(event())
    assert (
        run.state() is OutboxState.CLOSED and held_log.appends.empty() and pending_timers() == timers - (state in TIMED)
    )


async def test_a_held_outbox_appends_nothing_until_the_end_of_the_hold(log: SqliteLog, held_log: HeldLog) -> None:
    """IDLE, HELD, IN_FLIGHT. Chunks and events gather, and go out in their order."""
    run = Speaker(log, Pace(0.0))
    async with run.outbox.hold(lambda event: False):
        for piece in "ab":
            run.say(piece)
        run.outbox.put(event())
        assert run.state() is OutboxState.HELD and held_log.appends.empty() and not run.outbox.is_empty
    assert run.state() is OutboxState.IN_FLIGHT
    assert await held_log.commit() == ["ab", "run_finished"]
    assert run.state() is OutboxState.IDLE
    async with run.outbox.hold(lambda event: True):
        assert run.state() is OutboxState.HELD
    assert run.state() is OutboxState.IDLE


async def test_a_hold_waits_for_the_append_in_flight_and_for_the_events_that_precede_it(
    log: SqliteLog, held_log: HeldLog
) -> None:
    """IN_FLIGHT, IN_FLIGHT, HELD. Other events that gather do not delay it."""
    run, is_held, end = Speaker(log, Pace(NEVER)), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with run.outbox.hold(lambda event: event.runId == "first"):
            is_held.set()
            await end.wait()

    run.say("a")
    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    run.outbox.put(event(run="first"))
    assert await held_log.commit() == ["a"] and run.state() is OutboxState.IN_FLIGHT
    run.outbox.put(event(run="second"))
    assert not is_held.is_set()
    assert await held_log.commit() == ["run_finished"]
    await asyncio.wait_for(is_held.wait(), PATIENCE)
    assert run.state() is OutboxState.HELD and held_log.appends.empty()
    end.set()
    await asyncio.wait_for(task, PATIENCE)
    assert await held_log.commit() == ["run_finished"]


@pytest.mark.parametrize("end", ["failure", "close", "cancel"])
async def test_a_hold_that_does_not_begin_leaves_the_outbox_as_it_is(
    log: SqliteLog, held_log: HeldLog, end: str
) -> None:
    """The log fails, the outbox is closed, or the task is cancelled, while an append is in flight."""
    run = Speaker(log, Pace(NEVER), retry_seconds=0.05)
    run.outbox.put(event())
    stack = AsyncExitStack()
    task = asyncio.create_task(stack.enter_async_context(run.outbox.hold(lambda event: False)))
    await asyncio.sleep(0)
    if end == "failure":
        await held_log.fail()
    elif end == "close":
        run.outbox.close()
    else:
        task.cancel()
    await asyncio.wait([task])
    if end == "cancel":
        assert task.cancelled()
    else:
        assert isinstance(task.exception(), StorageUnavailable)
        with pytest.raises(StorageUnavailable):
            await stack.enter_async_context(run.outbox.hold(lambda event: False))
    assert await held_log.commit() == ["run_finished"]
    assert run.state() is (OutboxState.CLOSED if end == "close" else OutboxState.IDLE)


async def test_close_wakes_waiting_tasks(log: SqliteLog, held_log: HeldLog) -> None:
    """wait_for_history() raises, and wait_until_empty() returns, called before or after close()."""
    run = Speaker(log, Pace(NEVER))
    run.outbox.put(PendingEvent("main", "r", RunFinished("m", "end_turn"), messages=(MESSAGE,)))
    waiting = [asyncio.create_task(wait()) for wait in (run.outbox.wait_for_history, run.outbox.wait_until_empty)]
    await asyncio.sleep(0)
    run.outbox.close()
    waiting += [asyncio.create_task(wait()) for wait in (run.outbox.wait_for_history, run.outbox.wait_until_empty)]
    async with asyncio.timeout(PATIENCE):
        history, empty, late_history, late_empty = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(history, StorageUnavailable) and isinstance(late_history, StorageUnavailable)
    assert empty is late_empty is None


async def test_the_last_chunk_wakes_a_task_that_waits_until_empty(log: SqliteLog, held_log: HeldLog) -> None:
    """wait_until_empty() returns after an append of chunks alone, too."""
    run = Speaker(log, Pace(0.0))
    for piece in "ab":
        run.say(piece)
    waiting = asyncio.create_task(run.outbox.wait_until_empty())
    assert await held_log.commit() == ["a"] and not waiting.done()
    assert await held_log.commit() == ["b"]
    await asyncio.wait_for(waiting, PATIENCE)
    assert run.outbox.is_empty
