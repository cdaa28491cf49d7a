"""The contract of a wire protocol: how frames become commands, and events frames.

One file each, one row in PROTOCOLS.
"""

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from struct import pack
from typing import ClassVar

from hub.limits import Limits
from hub.messages import Command, Event, Notice


class WireProtocol(ABC):
    """Turns what the hub says into bytes that are ready for the socket; holds no state, so one serves all clients.

    What is returned may hold several frames. b"" means that this protocol does not say it.
    """

    name: ClassVar[str]
    notices: ClassVar[bool] = True  # whether it says what is not logged

    @abstractmethod
    def command(self, data: bytes, limits: Limits) -> Command:
        """Read one frame, within the hub's limits; raises BadFrame (or its kinds) with what to send instead."""

    @abstractmethod
    def event(self, event: Event) -> bytes:
        """Say an event of the log; the last frame of it carries its seq."""

    @abstractmethod
    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        """Say a streamed message in one piece, and after it *event*, which ended it."""

    @abstractmethod
    def answer(self, notice: Notice) -> bytes:
        """Answer this connection's own command."""

    @abstractmethod
    def notice(self, notice: Notice) -> bytes:
        """Say what concerns everyone in a session and is not logged."""

    def events(self, events: Sequence[Event]) -> bytes:
        """Say several events in order."""
        return b"".join([self.event(event) for event in events])


def text_frame(payload: bytes) -> bytes:
    """Return *payload* as one unmasked text frame (RFC 6455, 5.2): the same bytes for every client."""
    size = len(payload)
    if size < 126:
        return pack("!BB", 0x81, size) + payload
    if size < 65536:
        return pack("!BBH", 0x81, 126, size) + payload
    return pack("!BBQ", 0x81, 127, size) + payload


PROTOCOLS = {
    "plain": ("hub.protocols.plain", "Plain"),
    "hubbub.v1": ("hub.protocols.extended", "Extended"),
    "hubbub.events": ("hub.protocols.envelope", "Envelope"),
}


@functools.cache
def open_protocol(name: str) -> WireProtocol:
    """Return the one protocol of that name in PROTOCOLS; what is encoded once is shared by all who speak it."""
    module, kind = PROTOCOLS[name]
    protocol: WireProtocol = getattr(importlib.import_module(module), kind)()
    return protocol
