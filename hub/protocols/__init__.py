"""The contract of a wire protocol: how frames become commands, and events frames.

One file each, one row in PROTOCOLS. Other packages add theirs by entry points of the group `hubbub.protocols`.
"""

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from struct import pack
from typing import ClassVar

import structlog

from hub.limits import Limits
from hub.messages import Command, Event, Notice
from hub.plugins import PluginError, find_plugins, load_class, plugin_error

log = structlog.get_logger(__name__)


class WireProtocol(ABC):
    """Turns what the hub says into bytes that are ready for the socket; holds no state, so one serves all clients.

    What is returned may hold several frames. b"" means that this protocol does not say it.
    """

    name: ClassVar[str]
    out_frame_bytes: int = Limits().out_frame_bytes  # no frame is longer
    notices: ClassVar[bool] = True  # whether it says what is not logged
    shared: ClassVar[bool] = (
        True  # whether several clients may speak one object of it: what it encodes is kept for them
    )

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
    "plain": ("hub.protocols.plain", "PlainProtocol"),
    "hubbub.v1": ("hub.protocols.extended", "ExtendedProtocol"),
    "hubbub.events": ("hub.protocols.envelope", "EnvelopeProtocol"),
}


def protocol_names() -> list[str]:
    """Return the names of the protocols that clients can choose, the hub's own first.

    The first call imports the protocols of other packages. One that cannot be used is left out, with one warning line.
    """
    return [*PROTOCOLS, *protocol_plugins()]


@functools.cache
def protocol_plugins() -> Mapping[str, WireProtocol]:
    """Import the protocols of other packages, once per process."""
    plugins = {}
    for name, point in find_plugins("hubbub.protocols", frozenset(PROTOCOLS)).items():
        try:
            plugins[name] = _open_plugin(point)
        except PluginError as error:
            log.warning("a protocol cannot be used", reason=str(error))
    return plugins


def _open_plugin(point: EntryPoint) -> WireProtocol:
    kind: type[WireProtocol] = load_class(point, WireProtocol)
    if getattr(kind, "name", None) != point.name:
        raise plugin_error(point, f"has another name than its class: write `name = {point.name!r}` there")
    return kind()


def open_protocol(name: str, limits: Limits = Limits()) -> WireProtocol:
    """Return the one protocol of that name in protocol_names(); clients that speak it share what it encodes."""
    return open_sized_protocol(name, limits.out_frame_bytes)


@functools.cache
def open_sized_protocol(name: str, out_frame_bytes: int) -> WireProtocol:
    """Do as open_protocol(), for frames of at most so many bytes."""
    if name not in PROTOCOLS:
        return protocol_plugins()[name]
    module, kind = PROTOCOLS[name]
    protocol: WireProtocol = getattr(importlib.import_module(module), kind)()
    protocol.out_frame_bytes = out_frame_bytes
    return protocol
