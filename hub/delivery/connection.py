"""One client: its cursors, what it has not read yet, and how it catches up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

import attrs
import structlog

from hub.delivery.channel import Channel, Subscription
from hub.delivery.pages import Page, Pages, merged
from hub.errors import HubError
from hub.ids import Key
from hub.limits import Limits
from hub.messages import Author, Chunk, Notice, Reset, RunFinished
from hub.protocols import WireProtocol

log = structlog.get_logger()


class Reader(Protocol):
    """What the catch-up needs of the log beside its pages: see hub.storage.log.Log."""

    async def message_before(self, key: Key, run_id: str, seq: int) -> tuple[str, str] | None: ...


class Places(Protocol):
    """Where subscriptions stand that are delivered to, all at once: see hub.delivery.registry."""

    def settle(self, sub: Subscription) -> None:
        """Place one that has met the head; in one step, without an await."""

    def unplace(self, sub: Subscription) -> None: ...

    def reroute(self, sub: Subscription) -> None:
        """Reach one by the way that its connection has now."""


@attrs.define(eq=False, repr=False)
class Connection:
    """One client socket, as the hub sees it: bytes go in without waiting, and a cursor remembers what did not fit.

    *transport_write*, *unsent* and *abort* are the transport's; *ping* sends a ping frame, without waiting.
    *reset_messages* gives the history that goes with a reset. *descriptor* is the one under the transport, -1 where
    nothing may go past that; *way* is the same, but -1 also while the transport holds anything, which nothing may
    overtake. Once the transport is *lost* nothing is written any more, but what had come before is still read.
    """

    id: str
    principal: Author
    protocol: WireProtocol
    limits: Limits
    reader: Reader
    pages: Pages
    transport_write: Callable[[bytes], None]
    unsent: Callable[[], int]
    abort: Callable[[], None]
    ping: Callable[[], Awaitable[None]]
    reset_messages: Callable[[Key], Awaitable[tuple[dict[str, Any], ...]]]
    places: Places
    descriptor: int = -1
    way: int = -1
    lost: bool = False
    whole: bool = False
    closed: bool = False
    subscriptions: dict[Key, Subscription] = attrs.Factory(dict)
    groups: frozenset[str] = frozenset()
    behind: dict[Subscription, None] = attrs.Factory(dict)
    written: int = 0
    catch_ups: int = 0
    progress: int = 0
    moved: float = 0.0
    heard: float = 0.0
    pinged: float | None = None
    _room: asyncio.Future[None] | None = None  # made when waited for: an idle connection is to be small
    _task: asyncio.Task[None] | None = None

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport; never waits. A transport that is lost concerns this connection only."""
        if self.gone or not data:
            return
        try:
            self.transport_write(data)
        except Exception:  # uvloop raises where the socket is lost and says so next
            self.cut()
            return
        self.written += len(data)

    def answer(self, notice: Notice) -> None:
        self.write(self.protocol.answer(notice))

    def stall(self) -> None:
        """Go through the transport from now on: it holds something."""
        self._go(-1)

    def flow(self) -> None:
        """Go straight to the socket again: the transport holds nothing more."""
        if not self.lost:
            self._go(self.descriptor)
            self._tell_room()

    def cut(self) -> None:
        """Write nothing any more: the transport is lost, and closes its descriptor next."""
        self.lost = True
        self._go(-1)
        self._tell_room()

    def _go(self, way: int) -> None:
        self.way = way
        for sub in self.subscriptions.values():
            self.places.reroute(sub)

    def leave(self) -> None:
        """Hear nothing from now on; the socket itself is closed by whoever calls this."""
        self.closed = True
        for sub in self.subscriptions.values():
            self.places.unplace(sub)
        self._tell_room()

    def lose(self) -> None:
        """Free the socket at once; the handler that reads it then cleans up."""
        if not self.closed:
            self.leave()
            self.abort()

    @property
    def gone(self) -> bool:
        """Say whether nothing reaches it any more."""
        return self.closed or self.lost

    @property
    def hears(self) -> bool:
        """Say whether it is there, and hears a session: one that was deleted is heard no more."""
        return bool(self.subscriptions) and not self.gone

    def full(self) -> bool:
        return self.unsent() > self.limits.high_water_bytes

    def fall_behind(self, sub: Subscription, cursor: int) -> None:
        """Read *sub* from the log from *cursor* on, as the socket takes it."""
        sub.live = sub.read = False
        sub.cursor = cursor
        self.wake(sub)

    def wake(self, sub: Subscription) -> None:
        self.behind[sub] = None
        self._start()

    def _start(self) -> None:
        if self._task is None and not self.closed:
            self.catch_ups += 1
            self._task = asyncio.create_task(self._catch_up())

    async def readable(self) -> None:
        """Wait until this client has read enough to be listened to again, or has gone."""
        while self.full() and not self.gone:
            self._room = self._room or asyncio.get_running_loop().create_future()
            await asyncio.wait([self._room])

    def _tell_room(self) -> None:
        waited, self._room = self._room, None
        if waited is not None:
            waited.set_result(None)

    async def caught_up(self) -> None:
        """Wait until nothing is behind, or the client is closed."""
        while self._task is not None and not self.closed:
            await asyncio.wait([self._task])

    async def finished(self) -> None:
        """Wait for the catch-up task to end; its client gets no more, so the socket is aborted."""
        if self._task is not None:
            self.abort()
            await asyncio.wait([self._task])

    async def _catch_up(self) -> None:
        """Bring every subscription that is behind to its head, as the socket takes it."""
        try:
            await self._bring()
        except HubError as unreadable:  # the log, not the client: it may come back and resume
            log.warning("catch-up failed", connection=self.id, reason=unreadable.message)
            self.lose()
        except Exception:
            log.exception("catch-up failed", connection=self.id)
            self.lose()
        finally:
            # No await since the last look at `behind`: what falls behind from here on starts a new task.
            self._task = None

    async def _bring(self) -> None:
        while self.behind and not self.gone:
            if self.full():
                await self.readable()
            else:
                await self._advance(next(iter(self.behind)))

    async def _advance(self, sub: Subscription) -> None:
        """Send one page of *sub*, or make it live where it has met the head."""
        channel, start = sub.channel, sub.cursor
        if start < channel.floor:
            await self._reset(sub)
        elif start >= channel.head:
            del self.behind[sub]
            self.places.settle(sub)
        else:
            rows = None if sub.read else self.limits.first_page_rows
            page = await self.pages.read(channel.key, channel.epoch, start, channel.head, rows)
            data = await self._say(sub, page)
            if sub.closed or sub.cursor != start or sub not in self.behind:
                return  # while the page was read, the client left or moved its cursor
            events = page.events
            if not events or events[0].seq != start + 1:
                # Retention went past the cursor while the page was read, and has not said so yet.
                channel.floor = max(channel.floor, events[0].seq - 1 if events else page.upto)
                return
            sub.cursor, sub.read = events[-1].seq, True
            self.write(data)
            if sub.whole_runs:
                sub.whole_runs -= {event.runId for event in events if isinstance(event.body, RunFinished)}
            # Fairness between the sessions of one connection: the next page is another's turn.
            self.behind[sub] = self.behind.pop(sub)

    async def _say(self, sub: Subscription, page: Page) -> bytes:
        if sub.hears_all():
            return self.pages.encode(page, self.protocol)
        said = [event for event in page.events if not sub.skips(event)]
        if not sub.whole and not sub.whole_runs:
            return self.protocol.events(merged(said, self.limits.page_bytes))
        frames = []
        for event in said:
            if not sub.wants_whole(event.runId):
                frames.append(self.protocol.event(event))
            elif not isinstance(event.body, Chunk):
                ended = event.runId and await self.reader.message_before(sub.channel.key, event.runId, event.seq)
                frames.append(self.protocol.whole(event, *ended) if ended else self.protocol.event(event))
        return b"".join(frames)

    async def _reset(self, sub: Subscription) -> None:
        messages = await self.reset_messages(sub.channel.key)
        if not sub.closed and sub.cursor < sub.channel.floor:
            self.reset(sub.channel, "too_old", messages)
            sub.cursor = sub.channel.join_point()

    def reset(
        self,
        channel: Channel,
        reason: Literal["epoch_changed", "too_old", "past_head"],
        messages: tuple[dict[str, Any], ...],
    ) -> None:
        """Tell the client that its cursor means nothing here; what follows is as for a new one."""
        self.answer(Reset(sessionId=channel.id, reason=reason, epoch=channel.epoch, messages=messages))
