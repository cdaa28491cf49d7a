"""What a session has said and the log does not hold yet: merged while it waits, one append in flight."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

import attrs
import structlog

from hub.errors import StorageUnavailable
from hub.ids import Key, id_of
from hub.limits import Limits
from hub.messages import Chunk, Event, HistoryMessage
from hub.sessions.pace import Pace
from hub.storage.log import EventStore
from hub.storage.records import Append, KeptChat, RunRecord

log = structlog.get_logger()

# Called when the item is in the log, with its seq, or, where it is refusable, with why it is not.
Landed = Callable[[int | StorageUnavailable], None]


class PendingChunk(Event, eq=False, kw_only=True):
    """A chunk on its way to the log: *kept* hears of its bytes when it is there, *more* has what joins it till then."""

    kept: Callable[[int], None]
    size: int
    more: list[str] | None = None

    def join(self, text: str, size: int) -> None:
        if self.more is None:
            assert isinstance(self.body, Chunk)
            self.more = [self.body.content]
        self.more.append(text)
        self.size += size

    def close(self) -> None:
        """Put its text together, once: nothing joins it any more."""
        if self.more is not None:
            assert isinstance(self.body, Chunk)
            self.body.content = "".join(self.more)


class PendingEvent(Event, eq=False, kw_only=True):
    """Any other event on its way to the log, with what is written in the same commit.

    A refusable item is given up where the log cannot be written; every other one is tried again until it is.
    """

    messages: tuple[HistoryMessage, ...] = ()
    saved: tuple[RunRecord, ...] = ()
    ended: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    chat: KeptChat | None = None
    landed: Landed | None = None
    refusable: bool = False


def landing(item: PendingEvent, landed: Landed = lambda seq: None) -> "asyncio.Future[int]":
    """Return what waits for an item, of which *landed* is told first."""
    kept: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def tell(seq: int | StorageUnavailable) -> None:
        try:
            landed(seq)
        finally:
            if not kept.done():
                kept.set_result(seq) if isinstance(seq, int) else kept.set_exception(seq)

    item.landed = tell
    return kept


class OutboxState(Enum):
    """What an outbox does; see Outbox, where the edges are drawn."""

    IDLE = auto()
    WAITING = auto()
    IN_FLIGHT = auto()
    BACKING_OFF = auto()
    RETRYING = auto()
    CLOSED = auto()


# Names of their own, for say() is called for each token: in Python 3.11 an attribute of an enum costs a call.
IDLE, IN_FLIGHT = OutboxState.IDLE, OutboxState.IN_FLIGHT
HAS_FAILED = (OutboxState.BACKING_OFF, OutboxState.RETRYING)


@attrs.define(eq=False, repr=False, kw_only=True)
class Outbox:
    """The one appender of a session: order is by construction.

    While a commit is in flight text gathers; when it lands all that gathered is the next event. Chunks alone are
    flushed at the *pace*, the first of a pause at once; any other event takes along what waits.

        IDLE --------- an event, or a chunk after a pause ---------> IN_FLIGHT
        IDLE --------- a chunk in the frame of the last one -------> WAITING
        WAITING ------ the frame is over, or an event comes -------> IN_FLIGHT
        IN_FLIGHT ---- landed, nothing gathered -------------------> IDLE
        IN_FLIGHT ---- landed, chunks gathered --------------------> WAITING
        IN_FLIGHT ---- landed, an event or a due chunk gathered ---> IN_FLIGHT
        IN_FLIGHT ---- failed, all was refused --------------------> IDLE
        IN_FLIGHT ---- failed, something stays --------------------> BACKING_OFF
        BACKING_OFF -- after retry_seconds ------------------------> RETRYING
        BACKING_OFF -- after retry_seconds, all was forgotten -----> IDLE
        RETRYING ----- as IN_FLIGHT -------------------------------> IDLE, WAITING, IN_FLIGHT, BACKING_OFF
        any state ---- close() ------------------------------------> CLOSED

    A timer runs in WAITING and in BACKING_OFF. An append is under way in IN_FLIGHT and in RETRYING; one that is under
    way in close() still lands. *history_version* counts what changed the history. *at_rest* is called when an event
    other than a chunk has landed or was refused, and nothing is left.
    """

    key: Key
    store: EventStore
    limits: Limits
    pace: Pace
    at_rest: Callable[[], None]
    state: OutboxState = IDLE
    history_version: int = 0
    _pending: list[PendingEvent | PendingChunk] = attrs.Factory(list)
    _in_flight: list[PendingEvent | PendingChunk] = attrs.Factory(list)
    _tails: dict[str, PendingChunk] = attrs.Factory(dict)
    _timer: asyncio.TimerHandle | None = None
    _frame_end: float = float("-inf")  # when chunks alone may go again
    _waiters: list[asyncio.Future[None]] = attrs.Factory(list)
    _loop: asyncio.AbstractEventLoop = attrs.Factory(asyncio.get_running_loop)

    @property
    def empty(self) -> bool:
        return not self._pending and not self._in_flight

    @property
    def has_failed(self) -> bool:
        """Whether the last append failed, and what it had is tried again."""
        return self.state in HAS_FAILED

    def changing(self) -> bool:
        """Tell whether something is on its way that will change the history."""
        there = (*self._in_flight, *self._pending)
        return any(isinstance(item, PendingEvent) and (item.messages or item.removed) for item in there)

    async def settled(self) -> None:
        """Wait until the log's history is as what was said makes it; raises StorageUnavailable where it cannot be."""
        while self.changing():
            if self.has_failed or self.state is OutboxState.CLOSED:
                raise self.unwritable()
            await self.outcome()

    async def emptied(self) -> None:
        """Wait until nothing waits and nothing is under way, or it is closed."""
        while not self.empty and self.state is not OutboxState.CLOSED:
            await self.outcome()

    async def outcome(self) -> None:
        """Wait until an append has landed or failed, and those concerned know it, or the outbox is closed."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def unwritable(self, **about: str | None) -> StorageUnavailable:
        """Return what is said to one who comes while the log takes nothing."""
        text = "the hub's log cannot be written now: try again"
        return StorageUnavailable(text, **about, sessionId=id_of(self.key), retryAfterMs=1000)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- what comes -------------------------------------------------------------------------------------------------

    def put(self, *items: PendingEvent) -> None:
        """Queue events that are not chunks; they go in one append, together with whatever waits."""
        for item in items:
            if item.runId is not None:
                self._tails.pop(item.runId, None)
        self._pending.extend(items)
        if self.state in (IDLE, OutboxState.WAITING):
            self._flush()

    def say(
        self, run: str, agent: str, message_id: str, offset: int, text: str, size: int, kept: Callable[[int], None]
    ) -> None:
        """Queue a piece of a message, of *size* bytes, joined to the piece before it where that still waits.

        *kept* is called with the bytes of each event that comes of it, when that is in the log.
        """
        tail = self._tails.get(run)
        if tail is not None and tail.size + size <= self.limits.chunk_bytes:
            tail.join(text, size)
            return
        piece, now = PendingChunk(agent, run, Chunk(message_id, text, offset), kept=kept, size=size), self._loop.time()
        # The most usual: it goes alone, and at once. It is in no _tails, so nothing joins what is on its way. IDLE has
        # no timer, so _enter() is spared.
        if self.state is IDLE and now >= self._frame_end:
            self.state, self._in_flight, self._frame_end = IN_FLIGHT, [piece], now + self.pace.seconds
            self.store.append(Append(self.key, self._in_flight), self._landed)
            return
        self._tails[run] = piece
        self._pending.append(piece)
        if self.state is IDLE:
            self._enter(OutboxState.WAITING, self._frame_end - now, self._flush)

    def forget(self, run: str) -> None:
        """Drop what waits of a run whose chat was refused: it never was."""
        self._pending = [item for item in self._pending if item.runId != run]
        self._tails.pop(run, None)

    def close(self) -> None:
        """Try no more: the node is closed, and what still waits is lost with it."""
        self._enter(OutboxState.CLOSED)
        self._wake_waiters()

    # --- what goes --------------------------------------------------------------------------------------------------

    def _enter(self, state: OutboxState, seconds: float = 0.0, then: Callable[[], None] | None = None) -> None:
        """Change the state, and the timer with it: *then* is called after *seconds* in it. CLOSED is never left.

        All edges but those of a chunk that goes alone pass here: for these the call would cost a tenth more.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.state is not OutboxState.CLOSED:
            self.state = state
            if then is not None:
                self._timer = self._loop.call_later(seconds, then)

    def _go_on(self) -> None:
        """Enter the state that follows from what waits, where an append has landed."""
        if not self._pending or self.state is OutboxState.CLOSED:
            self._enter(IDLE)
            return
        wait = self._frame_end - self._loop.time()
        if wait > 0 and not any(isinstance(item, PendingEvent) for item in self._pending):
            self._enter(OutboxState.WAITING, wait, self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        """Append what may go now."""
        self._enter(OutboxState.RETRYING if self.state is OutboxState.BACKING_OFF else IN_FLIGHT)
        items = self._in_flight = self._take()
        pieces = [item for item in items if isinstance(item, PendingChunk)]
        if pieces:  # a run's start does not make its first chunk wait
            # Where chunks are left that are full already, waiting longer joins nothing.
            joined = not self._pending and any(piece.more is not None for piece in pieces)
            self._frame_end = self._loop.time() + (self.pace.stretched if joined else self.pace.seconds)
        for piece in pieces:
            piece.close()
        self.store.append(_append(self.key, items), self._landed)

    def _take(self) -> list[PendingEvent | PendingChunk]:
        """Take what goes now: all, but of each run at most one chunk, and nothing of it past a second."""
        taken: list[PendingEvent | PendingChunk] = []
        kept: list[PendingEvent | PendingChunk] = []
        said: set[str | None] = set()
        held: set[str | None] = set()
        for item in self._pending:
            chunk = isinstance(item, PendingChunk)
            if item.runId in held or (chunk and item.runId in said):
                held.add(item.runId)
                kept.append(item)
                continue
            if chunk:
                said.add(item.runId)
                if self._tails.get(item.runId or "") is item:
                    del self._tails[item.runId or ""]
            taken.append(item)
        self._pending = kept
        return taken

    def _landed(self, first: int | Exception) -> None:
        """Tell all concerned what became of the append. What they say to that gathers, and goes together."""
        items, self._in_flight = self._in_flight, []
        if isinstance(first, Exception):
            self._failed(items, first)
            return
        chunks = True
        for item in items:
            if isinstance(item, PendingChunk):
                item.kept(item.size)
            else:
                chunks = False
                self.history_version += bool(item.messages or item.removed)
                self._tell(item, item.seq)
        if self._waiters:
            self._wake_waiters()
        if self._pending or self.state is not IN_FLIGHT:
            self._go_on()
        else:
            self.state = IDLE  # IN_FLIGHT has no timer, either
        if not chunks and self.empty:  # where chunks land alone their run goes on
            self.at_rest()

    def _tell(self, item: PendingEvent, seq: int | StorageUnavailable) -> None:
        """Say what became of an item; where that fails, the rest of the session must go on all the same."""
        try:
            if item.landed is not None:
                item.landed(seq)
        except Exception:
            log.exception("one who waited for the log failed", session=self.key, kind=item.body.type)

    def _failed(self, items: list[PendingEvent | PendingChunk], reason: Exception) -> None:
        refusal = reason if isinstance(reason, StorageUnavailable) else StorageUnavailable(str(reason))
        refused = [item for item in items if isinstance(item, PendingEvent) and item.refusable]
        is_first = self.state is not OutboxState.RETRYING
        # Before anyone is told: what a refusal sets going waits for the next try, where it can still be forgotten.
        self._pending = [item for item in items if item not in refused] + self._pending
        self._enter(OutboxState.BACKING_OFF, self.limits.retry_seconds, self._retry)
        for item in refused:
            self._tell(item, refusal)
        if not self._pending:
            self._enter(IDLE)
        elif is_first:
            log.warning("the log cannot be written; what was said waits", session=self.key)
        self._wake_waiters()
        if self.empty:
            self.at_rest()

    def _retry(self) -> None:
        if self._pending:
            self._flush()
        else:  # all that waited was forgotten
            self._enter(IDLE)
            self.at_rest()


def _append(key: Key, items: list[PendingEvent | PendingChunk]) -> Append:
    """Return what is written in one commit with these events."""
    messages: list[tuple[int, HistoryMessage]] = []
    saved: list[RunRecord] = []
    ended: list[str] = []
    chats: list[tuple[int, KeptChat]] = []
    removed: list[str] = []
    for index, item in enumerate(items):
        if isinstance(item, PendingChunk):
            continue
        messages += [(index, message) for message in item.messages]
        saved += item.saved
        ended += item.ended
        removed += item.removed
        if item.chat is not None:
            chats.append((index, item.chat))
    return Append(key, items, messages, saved, ended, chats, removed)
