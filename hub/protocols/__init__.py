"""The contract of wire protocols: decode frames to commands, and encode events and notices as frames.

Each protocol of the hub is one module and one row in PROTOCOLS. Packages add protocols by entry points of the group
`hubbub.protocols`.
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
    """Decode commands, and encode events and notices as bytes for the socket.

    The encoders return zero or more complete frames; b"" skips the event or notice. An object with *is_shared* has no
    state, and serves all clients. Without *is_shared*, each client has its own object.
    """

    name: ClassVar[str]
    out_frame_bytes: int = Limits().out_frame_bytes  # the longest frame that the encoders return
    notices: ClassVar[bool] = True  # whether clients get notices that are not answers
    is_shared: ClassVar[bool] = True  # whether clients share one object, and with it its encoded pages

    @abstractmethod
    def command(self, data: bytes, limits: Limits) -> Command:
        """Decode a frame within the limits. Raises BadFrame, whose text says what to send instead."""

    @abstractmethod
    def event(self, event: Event) -> bytes:
        """Encode an event. If it needs several frames, only the last frame has the seq."""

    @abstractmethod
    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        """Encode a streamed message in one piece, and after it *event*, which ends the message."""

    @abstractmethod
    def answer(self, notice: Notice) -> bytes:
        """Encode the answer to a command of this connection."""

    @abstractmethod
    def notice(self, notice: Notice) -> bytes:
        """Encode a notice for all members of a session."""

    def carries(self, run_id: str) -> bool:
        """Return whether clients get the events of a run."""
        return True

    def events(self, events: Sequence[Event]) -> bytes:
        """Encode several events in order."""
        return b"".join([self.event(event) for event in events])


def text_frame(payload: bytes) -> bytes:
    """Return *payload* as one unmasked text frame (RFC 6455, 5.2), the same bytes for every client."""
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


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame of RFC 6455, 5.5.1. *reason* has at most 123 bytes."""
    payload = pack("!H", code) + reason.encode()
    return pack("!BB", 0x88, len(payload)) + payload


def protocol_names() -> list[str]:
    """Return the names of all protocols, the hub's own first.

    The first call imports the plugins. A plugin that cannot be used is left out, with one warning.
    """
    return [*PROTOCOLS, *protocol_plugins()]


@functools.cache
def protocol_plugins() -> Mapping[str, WireProtocol]:
    """Return the protocol plugins by name. Only the first call imports them."""
    plugins = {}
    for name, point in find_plugins("hubbub.protocols", frozenset(PROTOCOLS)).items():
        try:
            plugins[name] = _open_plugin(point)
        except PluginError as error:
            log.warning("protocol plugin ignored", reason=str(error))
    return plugins


def _open_plugin(point: EntryPoint) -> WireProtocol:
    kind: type[WireProtocol] = load_class(point, WireProtocol)
    if getattr(kind, "name", None) != point.name:
        raise plugin_error(point, f"has another name than its class: set `name = {point.name!r}` in it")
    return kind()


def open_protocol(name: str, limits: Limits = Limits()) -> WireProtocol:
    """Return the protocol *name*, one of protocol_names(). Callers with the same size limit share one object."""
    return open_sized_protocol(name, limits.out_frame_bytes)


@functools.cache
def open_sized_protocol(name: str, out_frame_bytes: int) -> WireProtocol:
    """Return the protocol *name* for frames of at most *out_frame_bytes*. A plugin keeps the size of its class."""
    if name not in PROTOCOLS:
        return protocol_plugins()[name]
    module, class_name = PROTOCOLS[name]
    protocol: WireProtocol = getattr(importlib.import_module(module), class_name)()
    protocol.out_frame_bytes = out_frame_bytes
    return protocol
