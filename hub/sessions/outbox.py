"""What a session has said and the log does not hold yet: merged while it waits, one append in flight."""

import asyncio
from collections.abc import Callable

import attrs
import structlog

from hub.errors import StorageUnavailable
from hub.ids import Key, id_of
from hub.limits import Limits
from hub.messages import Chunk, Event, Message
from hub.sessions.pace import Pace
from hub.storage.log import EventStore
from hub.storage.records import Append, KeptChat, RunRecord

log = structlog.get_logger()

# Called when the item is in the log, with its seq, or, where it is refusable, with why it is not.
Landed = Callable[[int | StorageUnavailable], None]


class Piece(Event, eq=False, kw_only=True):
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


class Item(Event, eq=False, kw_only=True):
    """Any other event on its way to the log, with what is written in the same commit.

    A refusable item is given up where the log cannot be written; every other one is tried again until it is.
    """

    messages: tuple[Message, ...] = ()
    saved: tuple[RunRecord, ...] = ()
    ended: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    chat: KeptChat | None = None
    landed: Landed | None = None
    refusable: bool = False


def landing(item: Item, landed: Landed = lambda seq: None) -> "asyncio.Future[int]":
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


@attrs.define(eq=False, repr=False)
class Outbox:
    """The one appender of a session: order is by construction.

    While a commit is in flight text gathers; when it lands all that gathered is the next event. Chunks alone are
    flushed at the *pace*, the first of a pause at once; any other event takes along what waits.
    *changes* counts what changed the history. *failing* says that the next try waits, *failed* that the last try left
    something waiting.
    """

    key: Key
    store: EventStore
    limits: Limits
    pace: Pace
    idle: Callable[[], None]
    failing: bool = False
    failed: bool = False
    changes: int = 0
    _pending: list[Item | Piece] = attrs.Factory(list)
    _flying: list[Item | Piece] = attrs.Factory(list)
    _tails: dict[str, Piece] = attrs.Factory(dict)
    _urgent: bool = False
    _timer: asyncio.TimerHandle | None = None
    _retry_timer: asyncio.TimerHandle | None = None
    _is_closed: bool = False
    _next: float = float("-inf")  # when chunks alone may go again
    _waiters: list[asyncio.Future[None]] = attrs.Factory(list)
    _loop: asyncio.AbstractEventLoop = attrs.Factory(asyncio.get_running_loop)

    @property
    def empty(self) -> bool:
        return not self._pending and not self._flying

    def changing(self) -> bool:
        """Tell whether something is on its way that will change the history."""
        there = (*self._flying, *self._pending)
        return any(isinstance(item, Item) and (item.messages or item.removed) for item in there)

    async def settled(self) -> None:
        """Wait until the log's history is as what was said makes it; raises StorageUnavailable where it cannot be."""
        while self.changing():
            if self.failed:
                raise self.unwritable()
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def unwritable(self, **about: str | None) -> StorageUnavailable:
        """Return what is said to one who comes while the log takes nothing."""
        text = "the hub's log cannot be written now: try again"
        return StorageUnavailable(text, **about, sessionId=id_of(self.key), retryAfterMs=1000)

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def put(self, *items: Item) -> None:
        """Queue events that are not chunks; they go in one append, together with whatever waits."""
        for item in items:
            if item.runId is not None:
                self._tails.pop(item.runId, None)
        self._pending.extend(items)
        self._urgent = True
        self._soon()

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
        piece, now = Piece(agent, run, Chunk(message_id, text, offset), kept=kept, size=size), self._loop.time()
        # The most usual: it goes alone, and at once. It is in no _tails, so nothing joins what is on its way.
        if now >= self._next and not (self._flying or self._pending or self._timer or self.failing):
            self._flying, self._next = [piece], now + self.pace.seconds
            self.store.append(Append(self.key, self._flying), self._landed)
            return
        self._tails[run] = piece
        self._pending.append(piece)
        if not self._flying and self._timer is None:
            self._soon()

    def forget(self, run: str) -> None:
        """Drop what waits of a run whose chat was refused: it never was."""
        self._pending = [item for item in self._pending if item.runId != run]
        self._tails.pop(run, None)

    def _soon(self) -> None:
        if self._flying or self.failing or self._is_closed:
            return  # _landed or the retry comes back here
        wait = 0.0 if self._urgent else self._next - self._loop.time()
        if self._timer is not None:
            if wait > 0:
                return
            self._timer.cancel()
        self._timer = None
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        items = self._flying = self._take()
        self._urgent = any(isinstance(item, Item) for item in self._pending)  # held back by more than one chunk
        pieces = [item for item in items if isinstance(item, Piece)]
        if pieces:  # a run's start does not make its first chunk wait
            # Where chunks are left that are full already, waiting longer joins nothing.
            joined = not self._pending and any(piece.more is not None for piece in pieces)
            self._next = self._loop.time() + (self.pace.stretched if joined else self.pace.seconds)
        for piece in pieces:
            piece.close()
        self.store.append(self._append(items), self._landed)

    def _append(self, items: list[Item | Piece]) -> Append:
        messages: list[tuple[int, Message]] = []
        saved: list[RunRecord] = []
        ended: list[str] = []
        chats: list[tuple[int, KeptChat]] = []
        removed: list[str] = []
        for index, item in enumerate(items):
            if isinstance(item, Piece):
                continue
            messages += [(index, message) for message in item.messages]
            saved += item.saved
            ended += item.ended
            removed += item.removed
            if item.chat is not None:
                chats.append((index, item.chat))
        return Append(self.key, items, messages, saved, ended, chats, removed)

    def _take(self) -> list[Item | Piece]:
        """Take what goes now: all, but of each run at most one chunk, and nothing of it past a second."""
        taken: list[Item | Piece] = []
        kept: list[Item | Piece] = []
        said: set[str | None] = set()
        held: set[str | None] = set()
        for item in self._pending:
            chunk = isinstance(item, Piece)
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
        items, self._flying = self._flying, []
        if isinstance(first, Exception):
            self._failed(items, first)
            return
        self.failed = False
        chunks = True
        for item in items:
            if isinstance(item, Piece):
                item.kept(item.size)
            else:
                chunks = False
                self.changes += bool(item.messages or item.removed)
                self._tell(item, item.seq)
        if self._waiters:
            self._tell_waiters()
        if self._pending:
            self._soon()
        elif not chunks:  # where chunks land alone their run goes on
            self.idle()

    def _tell(self, item: Item, seq: int | StorageUnavailable) -> None:
        """Say what became of an item; where that fails, the rest of the session must go on all the same."""
        try:
            if item.landed is not None:
                item.landed(seq)
        except Exception:
            log.exception("one who waited for the log failed", session=self.key, kind=item.body.type)

    def _failed(self, items: list[Item | Piece], reason: Exception) -> None:
        refusal = reason if isinstance(reason, StorageUnavailable) else StorageUnavailable(str(reason))
        refused = [item for item in items if isinstance(item, Item) and item.refusable]
        # Before anyone is told: what a refusal sets going waits for the next try, where it can still be forgotten.
        was = self.failed
        self.failing = self.failed = True
        self._pending = [item for item in items if item not in refused] + self._pending
        for item in refused:
            self._tell(item, refusal)
        self._tell_waiters()
        if not self._pending:
            self.failing = self.failed = False
            self.idle()
            return
        if not was:
            log.warning("the log cannot be written; what was said waits", session=self.key)
        if not self._is_closed:
            self._retry_timer = self._loop.call_later(self.limits.retry_seconds, self._retry)

    def close(self) -> None:
        """Try no more: the node is closed, and what still waits is lost with it."""
        self._is_closed = True
        for timer in (self._timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._retry_timer = None

    def _retry(self) -> None:
        self.failing = False
        self._urgent = True
        if self._pending:
            self._soon()
        else:
            self.idle()
