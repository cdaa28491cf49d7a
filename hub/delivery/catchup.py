"""How one client catches up: it is read to from the log, page by page, as its socket takes it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs
import structlog

from hub.delivery.channel import Subscription
from hub.delivery.pages import LogPage, PageCache, merged
from hub.errors import HubError
from hub.ids import Key
from hub.limits import Limits
from hub.messages import Chunk, Error, RunFinished
from hub.storage.log import EventStore

if TYPE_CHECKING:
    from hub.delivery.connection import Connection

RETRY_MS = 1000  # what a client is told to wait before it resumes where the log could not be read

log = structlog.get_logger()


@attrs.define(eq=False, repr=False, kw_only=True)
class CatchUp:
    """One task at most, which brings each subscription in *behind* to its head; it alone waits for the socket.

    *settle* places one that has met the head, in one step. *reset_messages* gives the history that goes with a reset.
    *count* counts the tasks so far.
    """

    store: EventStore
    pages: PageCache
    limits: Limits
    settle: Callable[[Subscription], None]
    reset_messages: Callable[[Key], Awaitable[tuple[dict[str, Any], ...]]]
    connection: "Connection" = attrs.field(init=False)
    behind: dict[Subscription, None] = attrs.Factory(dict)
    count: int = 0
    _task: asyncio.Task[None] | None = None
    _moved: asyncio.Event | None = None  # made when waited for; set when one of them is behind no more

    def fall_behind(self, sub: Subscription, cursor: int) -> None:
        """Read *sub* from the log from *cursor* on, as the socket takes it."""
        sub.live = sub.read = False
        sub.cursor = cursor
        self.wake(sub)

    def wake(self, sub: Subscription) -> None:
        """Read on: there is more than *sub* has."""
        self.behind[sub] = None
        if self._task is None and not self.connection.closed:
            self.count += 1
            self._task = asyncio.create_task(self._run())

    def forget(self, sub: Subscription) -> None:
        """Read *sub* no more: it has met the head, or it has ended."""
        self.behind.pop(sub, None)
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set()

    async def met_head(self, sub: Subscription) -> None:
        """Wait until *sub* has met the head, or has ended."""
        while sub in self.behind:
            self._moved = self._moved or asyncio.Event()
            await self._moved.wait()

    async def finished(self) -> None:
        """Wait until nothing is behind, or the client is closed."""
        while self._task is not None and not self.connection.closed:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Wait for the task to end; its client gets no more, so the socket is aborted."""
        if self._task is not None:
            self.connection.transport.abort()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Bring every subscription that is behind to its head, as the socket takes it."""
        connection = self.connection
        try:
            while self.behind and not connection.gone:
                if connection.transport.is_full():
                    await connection.readable()
                else:
                    await self._try(next(iter(self.behind)))
        except Exception:
            log.exception("catch-up failed", connection=connection.id)
            connection.lose()
        finally:
            # No await since the last look at `behind`: what falls behind from here on starts a new task.
            self._task = None

    async def _try(self, sub: Subscription) -> None:
        """Advance *sub*; if the log cannot be read, tell its client why and close the connection.

        The whole connection, as clients resume after a close, and not after an error.
        """
        try:
            await self._advance(sub)
        except HubError as error:
            if sub.closed:
                return  # its client left while the page was read
            connection, channel = self.connection, sub.channel
            log.warning("catch-up failed", connection=connection.id, session=channel.key, reason=error.message)
            wait = error.about.get("retryAfterMs", RETRY_MS)
            refusal = Error(code=error.code, message=error.message, sessionId=channel.id, retryAfterMs=wait)
            connection.end(refusal, self.limits.close_seconds)

    async def _advance(self, sub: Subscription) -> None:
        """Send one page of *sub*, or make it live where it has met the head."""
        channel, start = sub.channel, sub.cursor
        if start < channel.floor:
            await self._reset(sub)
            return
        if start >= channel.head:
            self.forget(sub)
            self.settle(sub)
            return
        rows = None if sub.read else self.limits.first_page_rows
        page = await self.pages.read(channel.key, channel.epoch, start, channel.head, rows)
        protocol = self.connection.protocol
        data = await self._encode(sub, page)
        if sub.closed or sub.cursor != start or sub not in self.behind or self.connection.protocol is not protocol:
            return  # while the page was read, the client left, moved its cursor, or said hello
        events = page.events
        if not events or events[0].seq != start + 1:
            # Retention went past the cursor while the page was read, and has not said so yet.
            channel.floor = max(channel.floor, events[0].seq - 1 if events else page.upto)
            return
        sub.cursor, sub.read = events[-1].seq, True
        self.connection.write(data)
        if sub.whole_runs:
            sub.whole_runs -= {event.runId for event in events if isinstance(event.body, RunFinished)}
        # Fairness between the sessions of one connection: the next page is another's turn.
        self.behind[sub] = self.behind.pop(sub)

    async def _encode(self, sub: Subscription, page: LogPage) -> bytes:
        """Return a page as *sub* hears it; encoded once for all who hear all of it."""
        protocol = self.connection.protocol
        if sub.hears_all():
            return self.pages.encode(page, protocol)
        events = [event for event in page.events if not sub.skips(event)]
        if not sub.whole and not sub.whole_runs:
            return protocol.events(merged(events, self.limits.page_bytes))
        frames = []
        for event in events:
            if not sub.wants_whole(event.runId):
                frames.append(protocol.event(event))
            elif not isinstance(event.body, Chunk):
                message = event.runId and await self.store.find_message_before(sub.channel.key, event.runId, event.seq)
                frames.append(protocol.whole(event, *message) if message else protocol.event(event))
        return b"".join(frames)

    async def _reset(self, sub: Subscription) -> None:
        messages = await self.reset_messages(sub.channel.key)
        if not sub.closed and sub.cursor < sub.channel.floor:
            self.connection.reset(sub.channel, "too_old", messages)
            sub.cursor = sub.channel.join_point()
