"""Catch-up: read the events that one client lacks from the log, page by page, as fast as its socket takes them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs
import structlog

from hub.delivery.channel import Subscription
from hub.delivery.pages import LogPage, PageCache, merge_chunks
from hub.errors import HubError
from hub.ids import Key
from hub.limits import Limits
from hub.messages import Chunk, Error, RunFinished
from hub.storage.log import EventStore

if TYPE_CHECKING:
    from hub.delivery.connection import Connection

RETRY_MS = 1000  # the default of retryAfterMs when the log cannot be read

log = structlog.get_logger()


@attrs.define(eq=False, repr=False, kw_only=True)
class CatchUp:
    """Brings the lagging subscriptions of one connection to the head of their sessions.

    At most one task runs for each connection, and no other code in delivery waits for the socket. The task sends one
    page of each lagging subscription in turn. A subscription that meets the head leaves *lagging*, and *activate*
    makes it live in the same step. *load_reset_messages* returns the messages that a reset carries.
    *task_count* is the number of tasks started so far.
    """

    store: EventStore
    pages: PageCache
    limits: Limits
    activate: Callable[[Subscription], None]
    load_reset_messages: Callable[[Key], Awaitable[tuple[dict[str, Any], ...]]]
    connection: "Connection" = attrs.field(init=False)
    lagging: dict[Subscription, None] = attrs.Factory(dict)
    task_count: int = 0
    _task: asyncio.Task[None] | None = None
    _removal: asyncio.Event | None = None  # created on first use; set when a subscription leaves *lagging*

    def read_from(self, sub: Subscription, cursor: int) -> None:
        """Let the subscription fall behind: send the events after *cursor* from the log."""
        sub.is_live = sub.has_page = False
        sub.cursor = cursor
        self.schedule(sub)

    def schedule(self, sub: Subscription) -> None:
        """Send the events after the subscription's cursor; start the task if none runs."""
        self.lagging[sub] = None
        if self._task is None and not self.connection.is_closed:
            self.task_count += 1
            self._task = asyncio.create_task(self._run())

    def remove(self, sub: Subscription) -> None:
        """Stop reading for a subscription: it has met the head, or is closed."""
        self.lagging.pop(sub, None)
        event, self._removal = self._removal, None
        if event is not None:
            event.set()

    async def wait_for_head(self, sub: Subscription) -> None:
        """Wait until the subscription has met the head, or is closed."""
        while sub in self.lagging:
            self._removal = self._removal or asyncio.Event()
            await self._removal.wait()

    async def wait_until_finished(self) -> None:
        """Wait until no subscription lags, or the connection is closed."""
        while self._task is not None and not self.connection.is_closed:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Abort the socket if the task still runs, and wait for the task to end."""
        if self._task is not None:
            self.connection.transport.abort()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        connection = self.connection
        try:
            while self.lagging and not connection.is_gone:
                if connection.transport.is_above_high_water():
                    await connection.wait_until_drained()
                else:
                    await self._advance_or_close(next(iter(self.lagging)))
        except Exception:
            log.exception("catch-up failed", connection=connection.id)
            connection.abort()
        finally:
            # There is no await since the last check of `lagging`: a subscription that lags from now on starts a task.
            self._task = None

    async def _advance_or_close(self, sub: Subscription) -> None:
        """Advance a subscription; if the log cannot be read, send the error and close the connection.

        Closing is needed because clients resume after a close, but not after an error.
        """
        try:
            await self._advance(sub)
        except HubError as error:
            if sub.is_closed:
                return  # the subscription ended during the read
            connection, channel = self.connection, sub.channel
            log.warning("catch-up failed", connection=connection.id, session=channel.key, reason=error.message)
            retry_ms = error.about.get("retryAfterMs", RETRY_MS)
            notice = Error(code=error.code, message=error.message, sessionId=channel.id, retryAfterMs=retry_ms)
            connection.close_after(notice, self.limits.close_seconds)

    async def _advance(self, sub: Subscription) -> None:
        """Send one page; or activate the subscription if it has met the head."""
        channel, start = sub.channel, sub.cursor
        if start < channel.floor:
            await self._reset(sub)
            return
        if start >= channel.head:
            self.remove(sub)
            self.activate(sub)
            return
        max_rows = None if sub.has_page else self.limits.first_page_rows
        page = await self.pages.read(channel.key, channel.epoch, start, channel.head, max_rows)
        protocol = self.connection.protocol
        data = await self._encode(sub, page)
        if sub.is_closed or sub.cursor != start or sub not in self.lagging or self.connection.protocol is not protocol:
            return  # the subscription ended, its cursor moved, or the protocol changed during the read
        events = page.events
        if not events or events[0].seq != start + 1:
            # Retention deleted events after the cursor during the read, and has not updated the floor yet.
            channel.floor = max(channel.floor, events[0].seq - 1 if events else page.head)
            return
        sub.cursor, sub.has_page = events[-1].seq, True
        self.connection.write(data)
        if sub.whole_run_ids:
            sub.whole_run_ids -= {event.runId for event in events if isinstance(event.body, RunFinished)}
        # Round robin between the subscriptions of the connection.
        self.lagging[sub] = self.lagging.pop(sub)

    async def _encode(self, sub: Subscription, page: LogPage) -> bytes:
        """Return the frames of a page for a subscription. If it gets all events, the cached encoding is used."""
        protocol = self.connection.protocol
        if sub.has_all_events():
            return self.pages.encode(page, protocol)
        events = [event for event in page.events if not sub.is_filtered(event)]
        if not sub.whole_messages and not sub.whole_run_ids:
            return protocol.events(merge_chunks(events, self.limits.page_bytes))
        frames = []
        for event in events:
            if not sub.is_whole_run(event.runId):
                frames.append(protocol.event(event))
            elif not isinstance(event.body, Chunk):
                message = event.runId and await self.store.find_message_before(sub.channel.key, event.runId, event.seq)
                frames.append(protocol.whole(event, *message) if message else protocol.event(event))
        return b"".join(frames)

    async def _reset(self, sub: Subscription) -> None:
        messages = await self.load_reset_messages(sub.channel.key)
        if not sub.is_closed and sub.cursor < sub.channel.floor:
            self.connection.send_reset(sub.channel, "too_old", messages)
            sub.cursor = sub.channel.find_join_cursor()
