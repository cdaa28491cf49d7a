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
    """One client connection. Writes never wait: a client that lags is caught up from the log later.

    *whole_messages* asks for whole messages instead of chunks. *groups* are the agents' groups that it belongs to.
    *receive_time* is the time of the last frame from the peer, *ping_time* of the ping that is not answered yet.
    After *is_closed* is set nothing is written, and the connection is out of all indexes.
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
    _unsubscribe_waiter: "asyncio.Future[None] | None" = None  # created on first use

    def __attrs_post_init__(self) -> None:
        self.transport.on_descriptor_change = self._update_descriptors
        self.catchup.connection = self

    def write(self, data: bytes) -> None:
        """Write encoded frames without waiting. A closed connection, or a lost transport, drops them."""
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
        """Write nothing from now on. The caller closes the socket."""
        self.is_closed = True
        for sub in self.subscriptions.values():
            sub.channel.deactivate(sub)
        self.transport.wake_waiter()
        self.wake_if_unsubscribed()

    def abort(self) -> None:
        """Stop delivery and abort the socket. The task that reads the socket then cleans up."""
        if not self.is_closed:
            self.stop_delivery()
            self.transport.abort()

    def close_after(self, notice: Notice, seconds: float) -> None:
        """Write a last notice and close the socket: once the client has read all, or after *seconds*."""
        if not self.is_closed:
            self.answer(notice)
            self.stop_delivery()
            self.transport.close(seconds)

    def break_references(self) -> None:
        """Drop all references back to this connection. Must be the last call: the catch-up task has ended.

        Without it the memory and the socket of a client stay until the garbage collector checks its oldest
        generation, after a million new objects.
        """
        self.transport.on_descriptor_change = do_nothing
        del self.transport.ping, self.catchup.connection

    @property
    def is_gone(self) -> bool:
        """True if nothing can be written any more: delivery has stopped, or the transport is lost."""
        return self.is_closed or self.transport.is_lost

    @property
    def is_subscribed(self) -> bool:
        """True if the connection is not gone and has a subscription."""
        return bool(self.subscriptions) and not self.is_gone

    def wake_if_unsubscribed(self) -> None:
        """Wake wait_until_unsubscribed() if its condition holds. Call this after each change of the condition."""
        waiter = self._unsubscribe_waiter
        if waiter is not None and not self.is_subscribed and not waiter.done():
            waiter.set_result(None)

    async def wait_until_unsubscribed(self) -> None:
        """Wait until the connection is gone or has no subscription. One task at a time may wait."""
        while self.is_subscribed:
            self._unsubscribe_waiter = asyncio.get_running_loop().create_future()
            await self._unsubscribe_waiter

    async def wait_until_drained(self) -> None:
        """Wait until the transport buffers less than the high-water mark, or the connection is gone."""
        while self.transport.is_above_high_water() and not self.is_gone:
            await self.transport.wait_until_drained()

    def send_reset(
        self,
        channel: Channel,
        reason: Literal["epoch_changed", "too_old", "past_head"],
        messages: tuple[dict[str, Any], ...],
    ) -> None:
        """Tell the client that its cursor is not valid. The events that follow are those for a new client."""
        self.answer(Reset(sessionId=channel.id, reason=reason, epoch=channel.epoch, messages=messages))
