"""A TCP proxy that breaks connections at a given byte or time, in the ways in which real networks break them."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Sequence

import attrs

KINDS = ("reset", "half_close", "freeze")


@attrs.frozen
class Fate:
    """How a connection ends: after *at_byte* bytes to the client or after *seconds*, whichever comes first."""

    kind: str
    at_byte: int
    seconds: float
    frozen: float = 0.1  # seconds from the freeze to the reset
    to_hub: bool = False  # a half-close shuts the direction to the hub, not the direction to the client
    half_closed: float = 1.0  # seconds from the half-close to the reset

    @classmethod
    def draw(cls, chance: random.Random, kinds: tuple[str, ...] = KINDS, most_bytes: int = 30_000) -> "Fate":
        """Draw a random fate. Half of the fates strike early: in the handshake, or during the catch-up."""
        at_byte = chance.randrange(2_000) if chance.random() < 0.5 else chance.randrange(most_bytes)
        frozen = chance.uniform(0.01, 0.3)
        return cls(chance.choice(kinds), at_byte, chance.uniform(0.05, 3.0), frozen, chance.random() < 0.5)


class Link:
    """One client's connection through the proxy to the hub."""

    def __init__(self, proxy: "Proxy", client: asyncio.Transport, fate: Fate | None) -> None:
        self.proxy, self.client, self.fate = proxy, client, fate
        self.hub: asyncio.Transport | None = None
        self.early = b""
        self.sent = 0
        self.frozen = self.struck = self.shut = False
        loop = asyncio.get_running_loop()
        self.timers = [loop.call_later(fate.seconds, self.strike)] if fate else []
        self.dialling = asyncio.create_task(self.dial())

    async def dial(self) -> None:
        try:
            target = self.proxy.target()
            await asyncio.get_running_loop().create_connection(lambda: Side(self, False), *target)
        except OSError:
            self.reset()

    def from_client(self, data: bytes) -> None:
        if self.hub is None:
            self.early += data
        elif not (self.frozen or self.shut or self.hub.is_closing()):
            self.hub.write(data)

    def from_hub(self, data: bytes) -> None:
        if self.frozen or self.client.is_closing():
            return
        if self.fate and not self.struck and self.sent + len(data) > self.fate.at_byte:
            rest = self.fate.at_byte - self.sent
            self.client.write(data[:rest])
            self.sent = self.fate.at_byte
            self.strike()
            self.from_hub(data[rest:])  # a half-close towards the hub leaves this direction open, without a gap
        else:
            self.sent += len(data)
            self.client.write(data)

    def strike(self) -> None:
        """Carry out the fate, once."""
        if self.struck or self.fate is None or self.client.is_closing():
            return
        self.struck = True
        self.proxy.strikes += 1
        loop = asyncio.get_running_loop()
        if self.fate.kind == "reset":
            self.reset()
        elif self.fate.kind == "freeze":
            self.freeze()
            self.timers.append(loop.call_later(self.fate.frozen, self.reset))
        else:
            side = self.hub if self.fate.to_hub else self.client
            if side is not None and side.can_write_eof() and not side.is_closing():
                side.write_eof()
            self.shut, self.frozen = self.fate.to_hub, not self.fate.to_hub
            self.timers.append(loop.call_later(self.fate.half_closed, self.reset))

    def freeze(self) -> None:
        """Stop reading from both sides. The bytes collect in the kernel's buffers, then in the sender's."""
        self.frozen = True
        for side in (self.client, self.hub):
            if side is not None and not side.is_closing():
                side.pause_reading()

    def reset(self) -> None:
        """Close both sides with RST."""
        for timer in self.timers:
            timer.cancel()
        for side in (self.client, self.hub):
            if side is not None and not side.is_closing():
                sock = side.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.abort()

    def lost(self) -> None:
        for side in (self.client, self.hub):
            if side is not None and not self.frozen:
                side.close()  # after it has written its buffer
        if all(side is None or side.is_closing() for side in (self.client, self.hub)):
            for timer in self.timers:
                timer.cancel()


class Side(asyncio.Protocol):
    """One end of a link."""

    def __init__(self, link: "Link | Proxy", client: bool) -> None:
        self.link, self.client = link, client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if isinstance(self.link, Proxy):
            proxy = self.link
            self.link = Link(proxy, transport, proxy.fates[proxy.strikes] if proxy.remaining_fates else None)
            proxy.links.add(self.link)
            return
        link = self.link
        if link.client.is_closing():
            transport.abort()
            return
        link.hub = transport
        transport.write(link.early)
        if link.frozen:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.link, Link)
        self.link.from_client(data) if self.client else self.link.from_hub(data)

    def connection_lost(self, reason: Exception | None) -> None:
        assert isinstance(self.link, Link)
        self.link.lost()


@attrs.define(eq=False)
class Proxy:
    """Listens on its own port and forwards each connection to *target*.

    A new connection gets the first of *fates* that has not struck. This fits clients with one connection at a time.
    """

    target: Callable[[], tuple[str, int]]
    fates: Sequence[Fate] = ()
    links: set[Link] = attrs.Factory(set)
    strikes: int = 0
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def remaining_fates(self) -> int:
        return len(self.fates) - self.strikes

    async def start(self) -> "Proxy":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Side(self, True), "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for link in self.links:
            link.reset()
        await asyncio.gather(*(link.dialling for link in self.links), return_exceptions=True)
