"""Readers of the events that the client receives. Each reader has a bounded queue."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import orjson

from hub.client.failures import Closed, Failure, Forgotten, TooSlow
from hub.messages import Chunk, Event, Reasoning, Reset, ToolCallArgs

if TYPE_CHECKING:
    from hub.client.feed import Feed

QUEUE_EVENTS = 1024  # a reader's queue with so many events is full
QUEUE_TEXT = 2**20  # a reader's queue with so many characters of text is full

# Called with a session id, a seq and an epoch. Returns a page of the unmerged events after this cursor, or a Reset if
# the cursor is invalid.
ReadPage = Callable[[str, int, str | None], Awaitable[tuple[Event, ...] | Reset]]


@attrs.define(eq=False, kw_only=True)
class Inbox:
    """The queue of one reader. When the reader has no item to yield, it raises *failure*, or ends if *has_ended*."""

    failure: Exception | None = None
    has_ended: bool = False
    queue: deque[Event | Reset] = attrs.Factory(deque)
    text_length: int = 0
    _lengths: deque[int] = attrs.Factory(deque)  # of the text of each item in the queue
    _wake: asyncio.Event = attrs.Factory(asyncio.Event)

    @property
    def is_full(self) -> bool:
        return len(self.queue) >= QUEUE_EVENTS or self.text_length >= QUEUE_TEXT

    @property
    def is_open(self) -> bool:
        return self.failure is None and not self.has_ended

    def put(self, item: Event | Reset) -> None:
        length = _text_length(item)
        self.queue.append(item)
        self._lengths.append(length)
        self.text_length += length
        self.wake()

    def pop(self) -> Event | Reset:
        self.text_length -= self._lengths.popleft()
        return self.queue.popleft()

    def clear(self) -> None:
        self.queue.clear()
        self._lengths.clear()
        self.text_length = 0

    def fail(self, failure: Exception) -> None:
        if not self.has_ended:
            self.failure = self.failure or failure
        self.wake()

    def end(self) -> None:
        self.has_ended = True
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    async def wait_for_change(self) -> None:
        """Wait until wake() is called. Raises the failure, or StopAsyncIteration at the end."""
        if self.failure is not None:
            raise self.failure
        if self.has_ended:
            raise StopAsyncIteration
        self._wake.clear()
        await self._wake.wait()


@attrs.define(eq=False, kw_only=True)
class Reader:
    """A reader of one feed: iterate over it.

    When its queue is full, the reader *is_behind*: it reads pages of the log from its own cursor, until it has caught
    up with the feed. *cursor* is the seq up to which the reader has got events. *start* is the seq after which it
    began. Both are None before the first event of a reader without a cursor. A reader of an answer *awaits_run* until
    the hub has accepted the chat. Then it yields only the events of *run*.
    """

    feed: "Feed"
    read_page: ReadPage
    cursor: int | None = None
    epoch: str | None = None
    awaits_run: bool = False
    is_behind: bool = False
    start: int | None = None
    run: str | None = None
    inbox: Inbox = attrs.Factory(Inbox)

    def __attrs_post_init__(self) -> None:
        self.start = self.cursor
        self.feed.readers.add(self)

    def put(self, event: Event) -> None:
        """Queue the next event of the feed. Never waits."""
        if self.is_behind:
            self.inbox.wake()  # perhaps the feed has its first cursor now, for which __anext__() waits
        elif self.cursor is None or event.seq > self.cursor:
            self.is_behind = self.inbox.is_full
            if not self.is_behind:
                self._queue(event)

    def _queue(self, event: Event) -> None:
        if self.start is None:
            self.start = event.seq - 1
        self.cursor, self.epoch = event.seq, event.epoch
        if self.run is None or event.runId == self.run:
            self.inbox.put(event)

    def follow(self, run: str, after: int) -> None:
        """Yield only the events of a run, which follow the seq *after*. If the queue starts later, read the log."""
        self.run, self.awaits_run = run, False
        items = list(self.inbox.queue)
        self.inbox.clear()
        if self.start is None or self.start > after:
            self.cursor, self.is_behind = after, True
        else:
            for item in items:
                if isinstance(item, Event) and item.runId == run:
                    self.inbox.put(item)
        self.inbox.wake()

    def reset(self, reset: Reset) -> None:
        """Queue the reset in place of the unread events, and continue at the feed's cursor.

        A reader of one run fails, because the events of the run are lost. A reader that awaits its run gets no reset.
        """
        if self.run is not None:
            text = f"the log no longer has the events of this answer ({reset.reason}): ask again"
            self.inbox.fail(Forgotten("reset", text, retryable=True))
            return
        self.inbox.clear()
        if not self.awaits_run:
            self.inbox.put(reset)
        self.is_behind, self.start, self.cursor, self.epoch = False, self.feed.seq, self.feed.seq, reset.epoch

    def fail(self, failure: Exception) -> None:
        self.inbox.fail(failure)

    def end(self) -> None:
        self.feed.readers.discard(self)
        self.inbox.end()

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> Event | Reset:
        while self.awaits_run or not self.inbox.queue:
            is_over = self.inbox.failure or self.inbox.has_ended
            if self.is_behind and not (self.awaits_run or is_over or self.feed.seq is None):
                await self._catch_up()
            else:
                await self.inbox.wait_for_change()
        return self.inbox.pop()

    async def _catch_up(self) -> None:
        """Queue one page of the log, up to the feed's cursor. At that cursor the reader is not behind any more."""
        start, head = self.cursor or 0, self.feed.seq
        if head is None or start >= head:
            self.is_behind = False
            return
        try:
            page = await self.read_page(self.feed.id, start, self.epoch)
        except Closed:
            if self.inbox.has_ended:  # the program has closed the client: end without an error
                return
            raise
        head = self.feed.seq  # the feed may have advanced; no await from here on
        if not self.is_behind or self.cursor != start or head is None:
            return  # the reader was reset during the read
        if isinstance(page, Reset):
            self.reset(page)
            return
        # Stop at the feed's cursor: the next event of the feed may be merged, and starts right after that cursor.
        for event in page:
            if event.seq <= head:
                self._queue(event)
        if self.cursor == start:
            self.fail(Forgotten("reset", "the log no longer has these events: start from the session's messages"))
        self.is_behind = self.cursor != head


@attrs.define(eq=False)
class GroupReader:
    """A reader of an agent's runs in all sessions: iterate over it.

    No log has the events of all sessions in one order. A reader with a full queue therefore fails with TooSlow.
    """

    agent: str
    inbox: Inbox = attrs.Factory(Inbox)

    def put(self, item: Event | Reset) -> None:
        if self.inbox.is_full:
            self.fail(TooSlow("too_slow", f"too many events of agent {self.agent} are unread: read faster"))
        if self.inbox.failure is None:
            self.inbox.put(item)

    def fail(self, failure: Failure) -> None:
        self.inbox.fail(failure)

    def end(self) -> None:
        self.inbox.end()

    def __aiter__(self) -> "GroupReader":
        return self

    async def __anext__(self) -> Event | Reset:
        while not self.inbox.queue:
            await self.inbox.wait_for_change()
        return self.inbox.pop()


def _text_length(item: Event | Reset) -> int:
    """Return the characters of an event's text, or of its JSON if it has no text, such as a `custom` event."""
    if isinstance(item, Reset):
        return 0  # it is the only one in the queue, and the hub limits its size
    body = item.body
    if isinstance(body, (Chunk, Reasoning, ToolCallArgs)):
        return len(body.delta if not isinstance(body, Chunk) else body.content)
    return len(orjson.dumps(attrs.asdict(body), default=str))
