"""Append the events of one session to the log, one append at a time. Text that waits is merged into chunks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto

import attrs
import structlog

from hub.errors import StorageUnavailable
from hub.ids import Key, id_of
from hub.limits import Limits
from hub.messages import Chunk
from hub.observe.histogram import STEP_BOUNDS, Histogram
from hub.sessions.pace import Pace
from hub.sessions.pending import PendingChunk, PendingEvent, make_append
from hub.storage.log import EventStore
from hub.storage.records import Append

log = structlog.get_logger()


class OutboxState(Enum):
    """The state of an outbox. The docstring of Outbox draws the edges."""

    IDLE = auto()
    WAITING = auto()
    IN_FLIGHT = auto()
    BACKING_OFF = auto()
    RETRYING = auto()
    HELD = auto()
    CLOSED = auto()


# Module-level names: put_text() runs for each token, and in Python 3.11 an attribute of an enum costs a call.
IDLE, IN_FLIGHT = OutboxState.IDLE, OutboxState.IN_FLIGHT
FAILED_STATES = (OutboxState.BACKING_OFF, OutboxState.RETRYING)


@attrs.frozen(eq=False)
class Hold:
    """A task that waits for HELD: until nothing is pending that *precedes* selects. *start* is set then."""

    precedes: Callable[[PendingEvent], bool]
    start: asyncio.Future[None] = attrs.Factory(lambda: asyncio.get_running_loop().create_future())


@attrs.define(eq=False, repr=False, kw_only=True)
class Outbox:
    """The only appender of a session: one append at a time, so events cannot change their order.

    Text gathers while a commit is in flight, and becomes the next chunk when the commit ends. If only chunks wait, they
    are flushed at the *pace*; the first chunk after a pause is flushed at once. Any other event is flushed with the
    waiting chunks, at once or after the append in flight.

        IDLE --------- an event, or a chunk after a pause ------------> IN_FLIGHT
        IDLE --------- a chunk soon after the last one ---------------> WAITING
        WAITING ------ the pace allows a flush, or an event comes ----> IN_FLIGHT
        IN_FLIGHT ---- success, nothing gathered ---------------------> IDLE
        IN_FLIGHT ---- success, chunks gathered ----------------------> WAITING
        IN_FLIGHT ---- success, an event or a due chunk gathered -----> IN_FLIGHT
        IN_FLIGHT ---- failure, only refusable events, none gathered -> IDLE
        IN_FLIGHT ---- failure, other or gathered events are left ----> BACKING_OFF
        BACKING_OFF -- after retry_seconds ---------------------------> RETRYING
        BACKING_OFF -- after retry_seconds, nothing is left ----------> IDLE
        RETRYING ----- as IN_FLIGHT ----------------------------------> IDLE, WAITING, IN_FLIGHT, BACKING_OFF
        IDLE, WAITING, IN_FLIGHT -- hold() ---------------------------> HELD
        HELD --------- the end of hold() -----------------------------> IDLE, WAITING, IN_FLIGHT
        any state ---- close() ---------------------------------------> CLOSED

    A timer runs in WAITING and in BACKING_OFF. An append is under way in IN_FLIGHT and in RETRYING; if close() is
    called then, this append may still succeed.

    In HELD, no append is under way, and events gather. *history_version* counts the commits that changed the history.
    *on_idle* is called when the outbox becomes empty after an event other than a chunk was logged or refused.
    *chunk_ages* gets the age of each chunk when the log has delivered it.
    """

    key: Key
    store: EventStore
    limits: Limits
    pace: Pace
    on_idle: Callable[[], None]
    owner: str = ""  # the principal that becomes the owner of the session if an append makes the session
    chunk_ages: Histogram = attrs.Factory(lambda: Histogram(STEP_BOUNDS))
    state: OutboxState = IDLE
    history_version: int = 0
    _pending: list[PendingEvent | PendingChunk] = attrs.Factory(list)
    _in_flight: list[PendingEvent | PendingChunk] = attrs.Factory(list)
    _open_chunks: dict[str, PendingChunk] = attrs.Factory(dict)  # by run id: the pending chunk that text may join
    _timer: asyncio.TimerHandle | None = None
    _next_chunk_time: float = float("-inf")  # in the loop's time; until then chunks wait, if no other event comes
    _waiters: list[asyncio.Future[None]] = attrs.Factory(list)
    _hold: Hold | None = None
    _loop: asyncio.AbstractEventLoop = attrs.Factory(asyncio.get_running_loop)

    @property
    def is_empty(self) -> bool:
        return not self._pending and not self._in_flight

    @property
    def has_failed(self) -> bool:
        """Whether the last append failed, and its events are retried."""
        return self.state in FAILED_STATES

    def will_change_history(self) -> bool:
        """Return whether an event that changes the history is on its way to the log."""
        events = (*self._in_flight, *self._pending)
        return any(isinstance(event, PendingEvent) and (event.messages or event.removed_messages) for event in events)

    async def wait_for_history(self) -> None:
        """Wait until the log holds all changes of the history.

        Raises StorageUnavailable if the log cannot be written, or the outbox is closed.
        """
        while self.will_change_history():
            if self.has_failed or self.state is OutboxState.CLOSED:
                raise self.make_error()
            await self.wait_for_append()

    async def wait_until_empty(self) -> None:
        """Wait until nothing is pending or in flight, or the outbox is closed."""
        while not self.is_empty and self.state is not OutboxState.CLOSED:
            await self.wait_for_append()

    async def wait_for_append(self) -> None:
        """Wait until an append has succeeded or failed and its callbacks have run, or the outbox is closed."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    @asynccontextmanager
    async def hold(self, precedes: Callable[[PendingEvent], bool]) -> AsyncIterator[None]:
        """Append nothing within the context: events wait in memory. One task at a time may do this.

        On entry, the log holds the pending events that *precedes* selects. Raises StorageUnavailable if the log cannot
        be written, or the outbox is closed.
        """
        if self.has_failed or self.state is OutboxState.CLOSED:
            raise self.make_error()
        assert self._hold is None
        hold = self._hold = Hold(precedes)
        try:
            if self.state in (IDLE, OutboxState.WAITING):
                self._continue()
            await hold.start
            yield
        finally:
            self._hold = None
            if self.state is OutboxState.HELD:
                self._continue()

    def _fail_hold(self) -> None:
        if self._hold is not None and not self._hold.start.done():
            self._hold.start.set_exception(self.make_error())

    def make_error(self, **fields: str | None) -> StorageUnavailable:
        """Return the error for a command that needs the log while the log cannot be written."""
        text = "the hub's log cannot be written now: try again"
        return StorageUnavailable(text, **fields, sessionId=id_of(self.key), retryAfterMs=1000)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- input ------------------------------------------------------------------------------------------------------

    def put(self, *events: PendingEvent) -> None:
        """Queue events that are not chunks. One append has all of them, after the pending events of their run."""
        for event in events:
            if event.runId is not None:
                self._open_chunks.pop(event.runId, None)
        self._pending.extend(events)
        if self.state in (IDLE, OutboxState.WAITING):
            self._flush()

    def put_text(
        self,
        run_id: str,
        agent_id: str,
        message_id: str,
        offset: int,
        text: str,
        size: int,
        on_logged: Callable[[int], None],
    ) -> None:
        """Queue a piece of a message, of *size* bytes. If the run's last event is a pending chunk with room, extend it.

        When the log holds a chunk, the *on_logged* of its first piece is called with the bytes of the chunk.
        """
        chunk = self._open_chunks.get(run_id)
        if chunk is not None and chunk.size + size <= self.limits.chunk_bytes:
            chunk.join(text, size)
            return
        now = self._loop.time()
        body = Chunk(message_id, text, offset)
        chunk = PendingChunk(agent_id, run_id, body, time=now, on_logged=on_logged, size=size)
        # The most frequent case: the chunk is alone, and flushed at once. It is not added to _open_chunks, because
        # no text may join a chunk in flight. IDLE has no timer, so _enter() is not needed.
        if self.state is IDLE and now >= self._next_chunk_time:
            self.state, self._in_flight, self._next_chunk_time = IN_FLIGHT, [chunk], now + self.pace.seconds
            self.store.append(Append(self.key, self._in_flight), self._handle_result)
            return
        self._open_chunks[run_id] = chunk
        self._pending.append(chunk)
        if self.state is IDLE:
            self._enter(OutboxState.WAITING, self._next_chunk_time - now, self._flush)

    def drop_run(self, run_id: str) -> None:
        """Drop the pending events of a run whose chat was refused."""
        self._pending = [event for event in self._pending if event.runId != run_id]
        self._open_chunks.pop(run_id, None)

    def close(self) -> None:
        """Stop appending, because the node closes. Pending events are lost."""
        self._enter(OutboxState.CLOSED)
        self._fail_hold()
        self._wake_waiters()

    # --- output -----------------------------------------------------------------------------------------------------

    def _enter(self, state: OutboxState, seconds: float = 0.0, action: Callable[[], None] | None = None) -> None:
        """Change the state and the timer: *action* is called after *seconds*, unless the state changes before.

        A CLOSED outbox stays CLOSED. Only put_text() and _handle_result() change the state without this call, for a
        chunk that is flushed alone: the call would make that chunk a tenth slower.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.state is not OutboxState.CLOSED:
            self.state = state
            if action is not None:
                self._timer = self._loop.call_later(seconds, action)

    def _continue(self) -> None:
        """Enter the state that follows a successful append, or HELD."""
        if self._hold is not None and self.state is not OutboxState.CLOSED and not self._must_precede(self._hold):
            self._enter(OutboxState.HELD)
            if not self._hold.start.done():
                self._hold.start.set_result(None)
            return
        if not self._pending or self.state is OutboxState.CLOSED:
            self._enter(IDLE)
            return
        wait = self._next_chunk_time - self._loop.time()
        if wait > 0 and not any(isinstance(event, PendingEvent) for event in self._pending):
            self._enter(OutboxState.WAITING, wait, self._flush)
        else:
            self._flush()

    def _must_precede(self, hold: Hold) -> bool:
        return any(isinstance(event, PendingEvent) and hold.precedes(event) for event in self._pending)

    def _flush(self) -> None:
        """Start an append of the next batch."""
        self._enter(OutboxState.RETRYING if self.state is OutboxState.BACKING_OFF else IN_FLIGHT)
        batch = self._in_flight = self._take_batch()
        chunks = [event for event in batch if isinstance(event, PendingChunk)]
        if chunks:  # a batch without chunks, such as a run's start, must not delay the next chunk
            # If events are still pending, one is the second chunk of its run: it must not wait even longer.
            has_joined = not self._pending and any(chunk.pieces is not None for chunk in chunks)
            self._next_chunk_time = self._loop.time() + (self.pace.long_seconds if has_joined else self.pace.seconds)
        for chunk in chunks:
            chunk.close()
        self.store.append(make_append(self.key, batch, self.owner), self._handle_result)

    def _take_batch(self) -> list[PendingEvent | PendingChunk]:
        """Remove the next batch from the pending events and return it: all events, but at most one chunk of each run.

        The second chunk of a run stays pending, with all later events of that run.
        """
        batch: list[PendingEvent | PendingChunk] = []
        rest: list[PendingEvent | PendingChunk] = []
        runs_with_chunk: set[str | None] = set()
        runs_with_rest: set[str | None] = set()
        for event in self._pending:
            is_chunk = isinstance(event, PendingChunk)
            if event.runId in runs_with_rest or (is_chunk and event.runId in runs_with_chunk):
                runs_with_rest.add(event.runId)
                rest.append(event)
                continue
            if is_chunk:
                runs_with_chunk.add(event.runId)
                if self._open_chunks.get(event.runId or "") is event:
                    del self._open_chunks[event.runId or ""]
            batch.append(event)
        self._pending = rest
        return batch

    def _handle_result(self, result: int | Exception) -> None:
        """Report the result of the append. Events that the callbacks queue wait until all callbacks have returned."""
        batch, self._in_flight = self._in_flight, []
        if isinstance(result, Exception):
            self._handle_failure(batch, result)
            return
        has_chunks_only, now = True, self._loop.time()
        for event in batch:
            if isinstance(event, PendingChunk):
                self.chunk_ages.add(now - event.time)
                event.on_logged(event.size)
            else:
                has_chunks_only = False
                self.history_version += bool(event.messages or event.removed_messages)
                self._report(event, event.seq)
        if self._waiters:
            self._wake_waiters()
        if self._pending or self.state is not IN_FLIGHT or self._hold is not None:
            self._continue()
        else:
            self.state = IDLE  # without _enter(), as in put_text(): IN_FLIGHT has no timer
        if not has_chunks_only and self.is_empty:  # after a chunk the run goes on, so the session is not idle
            self.on_idle()

    def _report(self, event: PendingEvent, result: int | StorageUnavailable) -> None:
        """Call the event's callback. If it raises an error, log that error: the other events must still be reported."""
        try:
            if event.on_result is not None:
                event.on_result(result)
        except Exception:
            log.exception("a callback for a logged event failed", session=self.key, kind=event.body.type)

    def _handle_failure(self, batch: list[PendingEvent | PendingChunk], reason: Exception) -> None:
        """Drop the refusable events of the batch, and retry the others after `retry_seconds`."""
        refusal = reason if isinstance(reason, StorageUnavailable) else StorageUnavailable(str(reason))
        refused_events = [event for event in batch if isinstance(event, PendingEvent) and event.is_refusable]
        is_first = self.state is not OutboxState.RETRYING
        # Do this before the callbacks: events that they queue must wait for the retry, and drop_run() must find all.
        self._pending = [event for event in batch if event not in refused_events] + self._pending
        self._enter(OutboxState.BACKING_OFF, self.limits.retry_seconds, self._retry)
        self._fail_hold()
        for event in refused_events:
            self._report(event, refusal)
        if not self._pending:
            self._enter(IDLE)
        elif is_first:
            log.warning("the log cannot be written; events wait in memory for a retry", session=self.key)
        self._wake_waiters()
        if self.is_empty:
            self.on_idle()

    def _retry(self) -> None:
        if self._pending:
            self._flush()
        else:  # drop_run() has dropped everything
            self._enter(IDLE)
            self.on_idle()
