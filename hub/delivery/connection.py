"""One client connection: its principal, its protocol, its transport and its subscriptions."""

import asyncio
from typing import Any, Literal

import attrs

from hub.delivery.catchup import CatchUp
from hub.delivery.channel import Channel, Subscription
from hub.delivery.transport import Transport, do_nothing
from hub.ids import Key
from hub.messages import Author, Notice, Reset
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False, kw_only=True)
class Connection:
    """One client connection. Writes never wait: a client that lags gets the missing events from the log later.

    With *whole_messages*, the client gets whole messages instead of chunks. *groups* are the names of the connection's
    groups (see Registry). *receive_time* is the time of the last frame from the client. *ping_time* is the time of the
    ping that the client has not answered yet, or None.
    After *is_closed* is set, nothing is written, and no channel has the connection in its indexes.
    """

    id: str
    principal: Author
    protocol: WireProtocol
    transport: Transport
    catchup: CatchUp
    whole_messages: bool = False
    is_closed: bool = False
    subscriptions: dict[Key, Subscription] = attrs.Factory(dict)
    groups: frozenset[str] = frozenset()
    receive_time: float = 0.0
    ping_time: float | None = None
    _unsubscribe_waiter: "asyncio.Future[None] | None" = None  # made on first use

    def __attrs_post_init__(self) -> None:
        self.transport.on_descriptor_change = self._update_descriptors
        self.catchup.connection = self

    def write(self, data: bytes) -> None:
        """Write encoded frames without waiting; drop them if the connection is closed or its transport is lost."""
        if data and not self.is_closed:
            self.transport.send(data)

    def answer(self, notice: Notice) -> None:
        """Write the answer to a command without waiting."""
        self.write(self.protocol.answer(notice))

    def _update_descriptors(self) -> None:
        for sub in self.subscriptions.values():
            sub.channel.update_descriptor(sub)
        self.wake_if_unsubscribed()

    def stop_delivery(self) -> None:
        """Write nothing from now on, and wake the tasks that wait for this connection. The caller closes the socket."""
        self.is_closed = True
        for sub in self.subscriptions.values():
            sub.channel.deactivate(sub)
        self.transport.wake_waiter()
        self.wake_if_unsubscribed()

    def abort(self) -> None:
        """Stop delivery, and abort the socket. The task that reads the socket then removes the connection."""
        if not self.is_closed:
            self.stop_delivery()
            self.transport.abort()

    def close_after(self, notice: Notice, seconds: float) -> None:
        """Write a last notice, then close the socket after all bytes are sent, at the latest after *seconds*."""
        if not self.is_closed:
            self.answer(notice)
            self.stop_delivery()
            self.transport.close(seconds)

    def break_references(self) -> None:
        """Break the reference cycles of this connection. Call this last, after the catch-up task has ended.

        The cycles would hold the client's memory and socket until the garbage collector checks its oldest generation:
        with the thresholds of hub.web.server, after 50 million new objects.
        """
        self.transport.on_descriptor_change = do_nothing
        del self.transport.ping, self.catchup.connection

    @property
    def is_unreachable(self) -> bool:
        """True if nothing can be written any more: the connection is closed, or its transport is lost."""
        return self.is_closed or self.transport.is_lost

    @property
    def is_subscribed(self) -> bool:
        """True if the connection has a subscription, and the client can be reached."""
        return bool(self.subscriptions) and not self.is_unreachable

    def wake_if_unsubscribed(self) -> None:
        """Wake wait_until_unsubscribed() if the connection is not subscribed. Call this after each possible change."""
        waiter = self._unsubscribe_waiter
        if waiter is not None and not self.is_subscribed and not waiter.done():
            waiter.set_result(None)

    async def wait_until_unsubscribed(self) -> None:
        """Wait until the connection is unreachable or has no subscription. Only one task at a time may wait."""
        while self.is_subscribed:
            self._unsubscribe_waiter = asyncio.get_running_loop().create_future()
            await self._unsubscribe_waiter

    async def wait_until_drained(self) -> None:
        """Wait until the transport is not above the high-water mark, or the connection is unreachable."""
        while self.transport.is_above_high_water() and not self.is_unreachable:
            await self.transport.wait_until_drained()

    def send_reset(
        self,
        channel: Channel,
        reason: Literal["epoch_changed", "too_old", "past_head"],
        messages: tuple[dict[str, Any], ...],
    ) -> None:
        """Tell the client that its cursor is not valid: the next events are those that a new client gets."""
        self.answer(Reset(sessionId=channel.id, reason=reason, epoch=channel.epoch, messages=messages))
