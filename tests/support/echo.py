"""A wire protocol that sends each frame back, for tests of the framing."""

from struct import pack

from hub.limits import Limits
from hub.messages import Command, Event, Notice, Ping, Pong
from hub.protocols import WireProtocol, text_frame


class EchoProtocol(WireProtocol):
    """Answers a frame with the same content. A content that is no UTF-8 comes back in a binary frame.

    The hub does not tell a protocol the opcode of a frame.
    """

    name = "plain"

    def command(self, data: bytes, limits: Limits) -> Command:
        return Ping(ref=data.decode("latin-1"))

    def answer(self, notice: Notice) -> bytes:
        assert isinstance(notice, Pong) and isinstance(notice.ref, str)
        data = notice.ref.encode("latin-1")
        try:
            data.decode()
        except UnicodeDecodeError:
            return pack("!B", 0x82) + text_frame(data)[1:]
        return text_frame(data)

    notice = answer

    def event(self, event: Event) -> bytes:
        return b""

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        return b""
