"""Catch-up: read the events that a client lacks from the log, and send them page by page, with backpressure."""

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

DEFAULT_RETRY_MS = 1000  # retryAfterMs of an error that has none

log = structlog.get_logger()


@attrs.define(eq=False, repr=False, kw_only=True)
class CatchUp:
    """Brings the lagging subscriptions of one connection to the head of their sessions.

    At most one task runs for each connection, and no other code in delivery waits for the socket. The task sends one
    page of each of *lagging_subscriptions* in turn. When a subscription has met the head, the task removes it.
    Then *activate* makes the subscription live or paged, without an await in between.

    *load_reset_messages* returns the messages for a `reset`. *task_count* is the number of tasks started so far.
    """

    store: EventStore
    pages: PageCache
    limits: Limits
    activate: Callable[[Subscription], None]
    load_reset_messages: Callable[[Key], Awaitable[tuple[dict[str, Any], ...]]]
    connection: "Connection" = attrs.field(init=False)
    lagging_subscriptions: dict[Subscription, None] = attrs.Factory(dict)  # the keys, in the order of their turns
    task_count: int = 0
    _task: asyncio.Task[None] | None = None
    _removal_event: asyncio.Event | None = None  # made on first use; set when a subscription is removed

    def read_from(self, sub: Subscription, cursor: int) -> None:
        """Make a subscription lag: send the events after *cursor* from the log."""
        sub.is_live = sub.has_page = False
        sub.cursor = cursor
        self.schedule(sub)

    def schedule(self, sub: Subscription) -> None:
        """Send the events after the subscription's own cursor from the log. Start the task if none runs."""
        self.lagging_subscriptions[sub] = None
        if self._task is None and not self.connection.is_closed:
            self.task_count += 1
            self._task = asyncio.create_task(self._run())

    def remove(self, sub: Subscription) -> None:
        """Remove a subscription that has met the head, or is closed. Does nothing if the subscription does not lag."""
        self.lagging_subscriptions.pop(sub, None)
        event, self._removal_event = self._removal_event, None
        if event is not None:
            event.set()

    async def wait_for_head(self, sub: Subscription) -> None:
        """Wait until the subscription has met the head, or is closed."""
        while sub in self.lagging_subscriptions:
            self._removal_event = self._removal_event or asyncio.Event()
            await self._removal_event.wait()

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
            while self.lagging_subscriptions and not connection.is_unreachable:
                if connection.transport.is_above_high_water():
                    await connection.wait_until_drained()
                else:
                    await self._advance_or_close(next(iter(self.lagging_subscriptions)))
        except Exception:
            log.exception("catch-up failed", connection=connection.id)
            connection.abort()
        finally:
            # No await since the loop's last check: a subscription that lags from now on starts a new task.
            self._task = None

    async def _advance_or_close(self, sub: Subscription) -> None:
        """Advance a subscription. If the log cannot be read, send the error and close the connection.

        Clients resume after a close, but not after an error.
        """
        try:
            await self._advance(sub)
        except HubError as error:
            if sub.is_closed:
                return  # the subscription ended during the read
            connection, channel = self.connection, sub.channel
            log.warning("catch-up failed", connection=connection.id, session=channel.key, reason=error.message)
            retry_ms = error.fields.get("retryAfterMs", DEFAULT_RETRY_MS)
            notice = Error(code=error.code, message=error.message, sessionId=channel.id, retryAfterMs=retry_ms)
            connection.close_after(notice, self.limits.close_seconds)

    async def _advance(self, sub: Subscription) -> None:
        """Do one step for a subscription.

        Send a reset if its cursor is below the floor. Activate the subscription if it is at the head. Else send a page.
        """
        if sub.cursor < sub.channel.floor:
            await self._reset(sub)
        elif sub.cursor >= sub.channel.head:
            self.remove(sub)
            self.activate(sub)
        else:
            await self._send_page(sub)

    async def _send_page(self, sub: Subscription) -> None:
        """Read the page after the cursor, send it, and move the cursor to its end.

        If retention has deleted the event after the cursor, only update the channel's floor.
        """
        channel, start, epoch = sub.channel, sub.cursor, sub.channel.epoch
        max_rows = None if sub.has_page else self.limits.first_page_rows
        page = await self.pages.read(channel.key, epoch, start, channel.head, max_rows)
        protocol = self.connection.protocol
        data = await self._encode(sub, page)
        is_lagging = sub in self.lagging_subscriptions
        if sub.is_closed or sub.cursor != start or not is_lagging or self.connection.protocol is not protocol:
            return  # the subscription ended, its cursor moved, or the protocol changed during the read
        if channel.epoch != epoch:
            return  # the page may have messages that were erased during the read
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
        self.lagging_subscriptions[sub] = self.lagging_subscriptions.pop(sub)

    async def _encode(self, sub: Subscription, page: LogPage) -> bytes:
        """Return the frames of a page for a subscription. A subscription to all events gets the cached encoding."""
        protocol = self.connection.protocol
        if sub.has_all_events():
            return self.pages.encode(page, protocol)
        events = [event for event in page.events if not sub.is_filtered(event)]
        if not sub.whole_messages and not sub.whole_run_ids:
            return protocol.events(merge_chunks(events, self.limits.page_bytes))
        frames = []
        for event in events:
            if not sub.has_whole_messages_of(event.runId):
                frames.append(protocol.event(event))
            elif not isinstance(event.body, Chunk):
                message = event.runId and await self.store.find_message_before(sub.channel.key, event.runId, event.seq)
                frames.append(protocol.whole(event, *message) if message else protocol.event(event))
        return b"".join(frames)

    async def _reset(self, sub: Subscription) -> None:
        """Send a `reset`, and move the cursor to the join cursor.

        Do nothing if the subscription ended or its cursor moved during the read.
        """
        messages = await self.load_reset_messages(sub.channel.key)
        if not sub.is_closed and sub.cursor < sub.channel.floor:
            self.connection.send_reset(sub.channel, "too_old", messages)
            sub.cursor = sub.channel.find_join_cursor()
