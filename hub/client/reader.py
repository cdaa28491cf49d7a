"""Those who read what the client hears, each at a speed of its own."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs

from hub.client.failures import Failure, Forgotten, TooSlow
from hub.messages import Event, Reset

if TYPE_CHECKING:
    from hub.client.feed import Feed

QUEUE_EVENTS = 1024  # that wait for one reader
QUEUE_TEXT = 2**20  # characters of theirs

# Reads the log of a session after a cursor, unmerged; a Reset where that cursor means nothing there.
Pages = Callable[[str, int, str | None], Awaitable[tuple[Event, ...] | Reset]]


@attrs.define(eq=False, kw_only=True)
class Inbox:
    """What waits for one reader, in order; then its end, or why there is no more."""

    failure: Failure | None = None
    ended: bool = False
    queue: deque[Event | Reset] = attrs.Factory(deque)
    text: int = 0
    _wake: asyncio.Event = attrs.Factory(asyncio.Event)

    @property
    def full(self) -> bool:
        return len(self.queue) >= QUEUE_EVENTS or self.text >= QUEUE_TEXT

    def put(self, said: Event | Reset) -> None:
        self.queue.append(said)
        self.text += _text(said)
        self.wake()

    def pop(self) -> Event | Reset:
        said = self.queue.popleft()
        self.text -= _text(said)
        return said

    def clear(self) -> None:
        self.queue.clear()
        self.text = 0

    def fail(self, failure: Failure) -> None:
        self.failure = self.failure or failure
        self.wake()

    def end(self) -> None:
        self.ended = True
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    async def more(self) -> None:
        """Wait until something has changed; raises the failure, or StopAsyncIteration at the end."""
        if self.failure is not None:
            raise self.failure
        if self.ended:
            raise StopAsyncIteration
        self._wake.clear()
        await self._wake.wait()


@attrs.define(eq=False, kw_only=True)
class Reader:
    """Someone's place in a feed; iterate it.

    What waits is bounded: past that it is *behind*, and reads on from the log by its own *cursor*, page by page, until
    it has met the feed again. *cursor* is the last event that was queued, *begun* the one before the first; both None
    before the first. A reader of one run is *held* until that run is known.
    """

    feed: "Feed"
    pages: Pages
    cursor: int | None = None
    epoch: str | None = None
    held: bool = False
    behind: bool = False
    begun: int | None = None
    run: str | None = None
    inbox: Inbox = attrs.Factory(Inbox)

    def __attrs_post_init__(self) -> None:
        self.begun = self.cursor
        self.feed.readers.add(self)

    def put(self, event: Event) -> None:
        """Take the feed's next event; never waits."""
        if self.behind:
            self.inbox.wake()  # the feed may have a place only now
        elif self.cursor is None or event.seq > self.cursor:
            self.behind = self.inbox.full
            if not self.behind:
                self._queue(event)

    def _queue(self, event: Event) -> None:
        if self.begun is None:
            self.begun = event.seq - 1
        self.cursor, self.epoch = event.seq, event.epoch
        if self.run is None or event.runId == self.run:
            self.inbox.put(event)

    def follow(self, run: str, after: int) -> None:
        """Read one run, which begins after the seq *after*; where that lies too far back, from the log."""
        self.run, self.held = run, False
        waiting = list(self.inbox.queue)
        self.inbox.clear()
        if self.begun is None or self.begun > after:
            self.cursor, self.behind = after, True
        else:
            for said in waiting:
                if isinstance(said, Event) and said.runId == run:
                    self.inbox.put(said)
        self.inbox.wake()

    def reset(self, reset: Reset) -> None:
        """Start anew with the feed. A reader of one run cannot; one that is held has nothing to lose."""
        if self.run is not None:
            why = f"the session is not what it was ({reset.reason}): ask again"
            self.inbox.fail(Forgotten("reset", why, retryable=True))
            return
        if self.held:
            self.inbox.clear()
        else:
            self.inbox.put(reset)
        self.behind, self.begun, self.cursor, self.epoch = False, self.feed.seq, self.feed.seq, reset.epoch

    def fail(self, failure: Failure) -> None:
        self.inbox.fail(failure)

    def end(self) -> None:
        self.feed.readers.discard(self)
        self.inbox.end()

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> Event | Reset:
        while self.held or not self.inbox.queue:
            failed = self.inbox.failure or self.inbox.ended
            if self.behind and not (self.held or failed or self.feed.seq is None):
                await self._read_on()
            else:
                await self.inbox.more()
        return self.inbox.pop()

    async def _read_on(self) -> None:
        """Queue what the log has after the cursor, up to where the feed is; live again in one step at its head."""
        start, head = self.cursor or 0, self.feed.seq
        if head is None or start >= head:
            self.behind = False
            return
        found = await self.pages(self.feed.id, start, self.epoch)
        head = self.feed.seq  # it has gone on; no await from here on
        if not self.behind or self.cursor != start or head is None:
            return  # reset meanwhile
        if isinstance(found, Reset):
            self.reset(found)
            return
        # Not past the feed, though the log is: the feed's next frame, which may be merged, begins just after it.
        for event in found:
            if event.seq <= head:
                self._queue(event)
        if self.cursor == start:
            self.fail(Forgotten("reset", "the log has no events here any more"))
        self.behind = self.cursor != head


@attrs.define(eq=False)
class GroupReader:
    """Someone who hears an agent's runs in all sessions; iterate it. It has no place in a log to read on from."""

    agent: str
    inbox: Inbox = attrs.Factory(Inbox)

    def put(self, said: Event | Reset) -> None:
        if self.inbox.full:
            self.fail(TooSlow("too_slow", f"more than {QUEUE_EVENTS} events of agent {self.agent} wait unread"))
        if self.inbox.failure is None:
            self.inbox.put(said)

    def fail(self, failure: Failure) -> None:
        self.inbox.fail(failure)

    def end(self) -> None:
        self.inbox.end()

    def __aiter__(self) -> "GroupReader":
        return self

    async def __anext__(self) -> Event | Reset:
        while not self.inbox.queue:
            await self.inbox.more()
        return self.inbox.pop()


def _text(said: Event | Reset) -> int:
    content = getattr(said.body, "content", None) if isinstance(said, Event) else None
    return len(content) if isinstance(content, str) else 0
