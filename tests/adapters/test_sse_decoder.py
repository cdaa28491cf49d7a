"""The decoder of server-sent events."""

import pytest

from hub.adapters.sse import ServerSentEvent, SSEDecoder

SAMPLE = (
    "\ufeff: a comment\r\n"
    'data: {"text":\r\n'
    'data: "你好"}\r\n'
    "\r\n"
    "event: named\rid: 7\rretry: 10\rdata:no space\rdata:  two spaces\r\r"
    "data\n"
    "data: 🎉 é\n"
    "data:\n\n"
    ": only a comment\n\n"
    "data: [DONE]\n\n"
    "data: never ended\n"
).encode()
EVENTS = [
    ServerSentEvent('{"text":\n"你好"}'),
    ServerSentEvent("no space\n two spaces", "named"),
    ServerSentEvent("\n🎉 é\n"),
    ServerSentEvent("[DONE]"),
]


def test_whole() -> None:
    """All three line ends, comments, other fields and data of several lines are read as the standard says."""
    assert SSEDecoder().feed(SAMPLE) == EVENTS


def test_every_pair_of_cuts() -> None:
    """Wherever the bytes are cut, in the middle of a character or a line end too, the events are the same."""
    for first in range(len(SAMPLE) + 1):
        for second in range(first, len(SAMPLE) + 1):
            decoder = SSEDecoder()
            parts = SAMPLE[:first], SAMPLE[first:second], SAMPLE[second:]
            assert [event for part in parts for event in decoder.feed(part)] == EVENTS, (first, second)


def test_byte_by_byte() -> None:
    """One byte at a time, with empty reads between, gives the same events."""
    decoder = SSEDecoder()
    events = []
    for at in range(len(SAMPLE)):
        events += decoder.feed(SAMPLE[at : at + 1]) + decoder.feed(b"")
    assert events == EVENTS


def test_event_comes_with_its_empty_line() -> None:
    """An event is there as soon as its empty line is, also where a bare carriage return ends it."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\r") == [ServerSentEvent("a")]
    assert decoder.feed(b"\ndata: b\n") == []
    assert decoder.feed(b"\n") == [ServerSentEvent("b")]


@pytest.mark.parametrize("last", [b"data: c", b"data: c\n", b"data: c\r", b"data: c\n\n"])
def test_the_last_event_may_lack_its_empty_line(last: bytes) -> None:
    """The end of the stream ends it; an event that has ended does not come twice."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: b\n\n" + last) + decoder.end() == [ServerSentEvent("b"), ServerSentEvent("c")]
    assert decoder.end() == []


def test_the_name_is_of_one_event() -> None:
    """The next event has none, also where the named one has no data."""
    events = SSEDecoder().feed(b"event: error\ndata: a\n\ndata: b\n\nevent: ping\n\ndata: c\n\n")
    assert events == [ServerSentEvent("a", "error"), ServerSentEvent("b"), ServerSentEvent("c")]


def test_wrong_utf8_is_replaced() -> None:
    """Bytes that are no UTF-8 become replacement characters, and the stream goes on."""
    assert SSEDecoder().feed(b"data: \xff\xe4\xbd\n\ndata: ok\n\n") == [
        ServerSentEvent("\ufffd\ufffd"),
        ServerSentEvent("ok"),
    ]


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_limit(cut: int) -> None:
    """An event of exactly the limit passes; one byte more is refused, in one line or in many."""

    def feed(stream: bytes) -> list[str]:
        decoder = SSEDecoder(limit=20)
        parts = (stream[at : at + cut] for at in range(0, len(stream), cut))
        return [event.data for part in parts for event in decoder.feed(part)]

    assert feed(b"data: " + b"x" * 14 + b"\n\n") == ["x" * 14]
    assert feed((b"data: " + b"x" * 14 + b"\n\n") * 3) == ["x" * 14] * 3
    with pytest.raises(ValueError, match="longer than 20 bytes"):
        feed(b"data: " + b"x" * 15 + b"\n\n")
    with pytest.raises(ValueError):
        feed(b"data: xxxx\ndata: xxxxx\n\n")
    with pytest.raises(ValueError):
        feed(b"x" * 21)


def test_comments_do_not_add_up() -> None:
    """A stream that is kept open by comments alone for days stays within the limit."""
    decoder = SSEDecoder(limit=20)
    assert [event for _ in range(100) for event in decoder.feed(b": ping\n")] == []
    assert decoder.feed(b"data: x\n\n") == [ServerSentEvent("x")]
