"""One client: who it is, what it speaks, and what it listens to."""

import asyncio
from typing import Any, Literal

import attrs

from hub.delivery.catchup import CatchUp
from hub.delivery.channel import Channel, Subscription
from hub.delivery.transport import Transport, unheard
from hub.ids import Key
from hub.messages import Author, Notice, Reset
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False, kw_only=True)
class Connection:
    """One client as the hub sees it: bytes go in without waiting, and a cursor remembers what did not fit.

    *whole* asks for whole messages instead of pieces. *heard* is when the peer last sent anything, *pinged* when it was
    asked to since. Once *closed* it is out of the registry, and nothing is delivered to it.
    """

    id: str
    principal: Author
    protocol: WireProtocol
    transport: Transport
    catchup: CatchUp
    whole: bool = False
    closed: bool = False
    subscriptions: dict[Key, Subscription] = attrs.Factory(dict)
    groups: frozenset[str] = frozenset()
    heard: float = 0.0
    pinged: float | None = None
    _silent: "asyncio.Future[None] | None" = None  # made when waited for

    def __attrs_post_init__(self) -> None:
        self.transport.rerouted = self._reroute
        self.catchup.connection = self

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport; never waits. A transport that is lost concerns this connection only."""
        if data and not self.closed:
            self.transport.send(data)

    def answer(self, notice: Notice) -> None:
        self.write(self.protocol.answer(notice))

    def _reroute(self) -> None:
        for sub in self.subscriptions.values():
            sub.channel.reroute(sub)
        self.note_silence()

    def leave(self) -> None:
        """Hear nothing from now on; the socket itself is closed by whoever calls this."""
        self.closed = True
        for sub in self.subscriptions.values():
            sub.channel.unplace(sub)
        self.transport.wake()
        self.note_silence()

    def lose(self) -> None:
        """Free the socket at once; the handler that reads it then cleans up."""
        if not self.closed:
            self.leave()
            self.transport.abort()

    def end(self, notice: Notice, seconds: float) -> None:
        """Say *notice* as the last thing, and close the socket when the client has read it, or after *seconds*."""
        if not self.closed:
            self.answer(notice)
            self.leave()
            self.transport.close(seconds)

    def part(self) -> None:
        """Drop all references back to this connection. This is the last call: nothing reads for it any more.

        Otherwise the memory of a client, and its socket, would stay until the garbage collector checks its oldest
        generation, after a million new objects.
        """
        self.transport.rerouted = unheard
        del self.transport.ping, self.catchup.connection

    @property
    def gone(self) -> bool:
        """Whether nothing reaches it any more."""
        return self.closed or self.transport.is_lost

    @property
    def hears(self) -> bool:
        """Whether it is there, and hears a session; one that was deleted is heard no more."""
        return bool(self.subscriptions) and not self.gone

    def note_silence(self) -> None:
        """Let silenced() return, if this client hears nothing any more; called wherever that may begin."""
        if self._silent is not None and not self.hears and not self._silent.done():
            self._silent.set_result(None)

    async def silenced(self) -> None:
        """Wait until this client has gone, or hears no session any more."""
        while self.hears:
            self._silent = asyncio.get_running_loop().create_future()
            await self._silent

    async def readable(self) -> None:
        """Wait until this client has read enough to be listened to again, or has gone."""
        while self.transport.is_full() and not self.gone:
            await self.transport.drained()

    def reset(
        self,
        channel: Channel,
        reason: Literal["epoch_changed", "too_old", "past_head"],
        messages: tuple[dict[str, Any], ...],
    ) -> None:
        """Tell the client that its cursor means nothing here; what follows is as for a new one."""
        self.answer(Reset(sessionId=channel.id, reason=reason, epoch=channel.epoch, messages=messages))
