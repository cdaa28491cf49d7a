"""No frame is longer than `out_frame_bytes`: the hub splits longer events and notices, and clients join them."""

import asyncio
import json
from typing import Any

import aiohttp
import msgspec
import orjson
import pytest
from support.hub import Hub
from support.sockets import frames
from support.waiting import PATIENCE

from hub.client.frames import FrameReader
from hub.messages import (
    Author,
    Body,
    Chunk,
    Event,
    Fault,
    MessageRemoved,
    Notice,
    Reasoning,
    Reset,
    Subscribed,
    ToolCallArgs,
    UserMessage,
    Welcome,
    WholeMessage,
)
from hub.protocols import open_sized_protocol
from hub.protocols.agui import AguiStream
from hub.protocols.openai_chat import AnswerForm, OpenAIStream
from hub.protocols.sse import open_sse_protocol

MOST = 4096
ANN = Author("u1", "Ann")
# 5,000 times: characters of one byte, of four bytes, and one that JSON encodes in six.
TEXT = "".join(f"{n}\N{GRINNING FACE}\0" for n in range(5000))
PARTS: tuple[dict[str, Any], ...] = (
    {"type": "text", "text": TEXT[:9000], "id": "p1"},
    {"type": "image", "source": {"type": "data", "value": "QUJD" * 5000, "mimeType": "image/png"}},
    {"type": "tool_call", "toolCallId": "c1", "toolCallName": "n", "arguments": TEXT[:9000]},
    {"type": "tool_result", "toolCallId": "c1", "content": TEXT[:9000]},
    *({"type": "text", "text": f"short {n}"} for n in range(300)),
)
HISTORY: tuple[dict[str, Any], ...] = tuple(
    {"messageId": f"m{n}", "role": "user", "content": TEXT[: n * 40], "seq": n} for n in range(200)
)
BODIES: list[Body] = [
    Chunk("m", TEXT, 7),
    Reasoning(messageId="m", delta=TEXT),
    ToolCallArgs("c", TEXT),
    MessageRemoved(tuple(f"m-{n}" for n in range(10_000)), "edited"),
    UserMessage(messageId="m", author=ANN, content=TEXT, clientMsgId="c", parts=PARTS, metadata={"a": [1]}),
    UserMessage(messageId="m", author=ANN, content="", parts=PARTS),
]
NOTICES: list[Notice] = [
    Subscribed(sessionId="s", epoch="e", seq=9, history=HISTORY, active=(), ref=5),
    Subscribed(sessionId="s", epoch="e", seq=9, history=({"messageId": "m", "content": TEXT, "parts": list(PARTS)},)),
    Reset(sessionId="s", reason="too_old", epoch="e", messages=HISTORY),
    Welcome(
        protocol="hubbub.v1",
        hub={},
        connectionId="c",
        principal=ANN,
        agents=tuple({"agentId": f"a{n}", "description": TEXT[:300]} for n in range(100)),
        limits={},
        heartbeatMs=1,
    ),
]
NAMES = ("plain", "hubbub.v1", "hubbub.events")


def event(body: Body) -> Event:
    return Event("main", "r", body, "s", "e", 41, 1_700_000_000_000)


def name(value: Any) -> str:
    return f"{value.type}"


@pytest.mark.parametrize("body", [*BODIES, WholeMessage("m", TEXT)], ids=name)
@pytest.mark.parametrize("protocol", NAMES)
def test_only_the_last_frame_of_a_long_event_has_the_seq(protocol: str, body: Body) -> None:
    """After a connection is lost between the frames, the client gets the complete event again."""
    output = list(frames(open_sized_protocol(protocol, MOST).event(event(body))))
    if protocol == "plain" and isinstance(body, (Reasoning, ToolCallArgs, UserMessage)):
        assert output == []
        return
    assert max(len(orjson.dumps(frame)) for frame in output) <= MOST
    *earlier, last = ["id" in frame or "seq" in frame for frame in output]
    assert last and len(earlier) > 3 and not any(earlier)


@pytest.mark.parametrize("body", BODIES, ids=name)
def test_a_client_joins_the_frames_of_a_long_event(body: Body) -> None:
    """The client gets the event with its last frame."""
    reader = FrameReader()
    events = [
        reader.read(orjson.dumps(frame)) for frame in frames(open_sized_protocol("hubbub.v1", MOST).event(event(body)))
    ]
    assert events[-1] == event(body) and not any(events[:-1])


def test_a_long_whole_message_becomes_chunks_with_offsets() -> None:
    reader = FrameReader()
    events = [
        reader.read(orjson.dumps(frame))
        for frame in frames(open_sized_protocol("hubbub.v1", MOST).event(event(WholeMessage("m", TEXT))))
    ]
    assert events[-1] == event(Chunk("m", TEXT, 0)) and not any(events[:-1])
    output = list(frames(open_sized_protocol("hubbub.v1", MOST).event(event(WholeMessage("m", TEXT)))))
    assert {frame["type"] for frame in output} == {"stream"}
    assert all(TEXT[frame["offset"] :].startswith(frame["content"]) for frame in output)


END: dict[str, Any] = {"stopReason": "error", "error": Fault("c", "m")}


@pytest.mark.parametrize("body", [WholeMessage("m", TEXT, PARTS), WholeMessage("m", TEXT, **END)], ids=["parts", "end"])
def test_a_long_whole_message_keeps_its_other_fields(body: Body) -> None:
    """Chunks can hold only text."""
    reader = FrameReader()
    output = list(frames(open_sized_protocol("hubbub.v1", MOST).event(event(body))))
    events = [reader.read(orjson.dumps(frame)) for frame in output]
    assert events[-1] == event(body) and not any(events[:-1]) and len(output) > 3
    assert max(len(orjson.dumps(frame)) for frame in output) <= MOST
    assert [("seq" in frame) for frame in output] == [False] * (len(output) - 1) + [True]


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_message_does_not_continue_the_message_before_it(size: int) -> None:
    """A client with `stream: false` receives a complete message without a seq, then the next event."""
    reader, body = FrameReader(), WholeMessage("m2", "b" * size)
    output = frames(open_sized_protocol("hubbub.v1", MOST).whole(event(body), "m1", "a" * size))
    last = [reader.read(orjson.dumps(frame)) for frame in output][-1]
    assert last is not None and getattr(last, "body").content == body.content


@pytest.mark.parametrize("notice", NOTICES, ids=name)
@pytest.mark.parametrize("protocol", NAMES)
def test_a_long_notice_comes_in_several_frames(protocol: str, notice: Notice) -> None:
    """All frames except the last have `more`."""
    output = list(frames(open_sized_protocol(protocol, MOST).answer(notice)))
    if protocol == "plain" and isinstance(notice, Reset):
        assert [frame["code"] for frame in output] == ["reset"]
        return
    assert max(len(orjson.dumps(frame)) for frame in output) <= MOST
    assert [("more" in frame.get("payload", frame)) for frame in output] == [True] * (len(output) - 1) + [False]
    assert len(output) > 3


@pytest.mark.parametrize("notice", NOTICES, ids=name)
def test_a_client_joins_the_frames_of_a_long_notice(notice: Notice) -> None:
    reader = FrameReader()
    events = [
        reader.read(orjson.dumps(frame)) for frame in frames(open_sized_protocol("hubbub.v1", MOST).answer(notice))
    ]
    assert not any(events[:-1])
    assert msgspec.to_builtins(events[-1]) == msgspec.to_builtins(notice)


def test_the_frames_of_a_lost_connection_are_dropped() -> None:
    """A frame of another type drops the pieces before it."""
    reader = FrameReader()
    first, *_ = frames(open_sized_protocol("hubbub.v1", MOST).event(event(Chunk("m", TEXT, 0))))
    assert reader.read(orjson.dumps(first)) is None
    assert reader.read(b'{"type":"pong"}') is not None
    last = {**first, "content": "whole", "seq": 41}
    assert reader.read(orjson.dumps(last)) == event(Chunk("m", "whole", 0))


@pytest.mark.parametrize("body", BODIES, ids=name)
def test_no_frame_of_server_sent_events_is_longer(body: Body) -> None:
    """Only the last frame of an event has its id: a browser that reconnects gets the complete event again."""
    reader, events = FrameReader(), []
    blocks = [block for block in open_sse_protocol(MOST).event(event(body)).split(b"\r\n") if b"data: " in block]
    for block in blocks:
        events.append(reader.read(block.split(b"data: ")[1].strip()))
    assert max(map(len, blocks)) <= MOST + 100  # without the names of the fields
    assert [b"id: e:41" in block for block in blocks] == [False] * (len(blocks) - 1) + [True] and len(blocks) > 3
    assert events[-1] == event(body)


OPENAI = {"model": "long", "messages": [{"role": "user", "content": "10000"}], "stream": True}
AGUI = {"threadId": "s1", "runId": "r1", "messages": OPENAI["messages"]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", OPENAI),
        ("/v1/chat/completions", OPENAI | {"sessionId": "s1"}),
        ("/api/v1/agents/long/agui", AGUI),
        ("/api/v1/sessions/s1/events", None),
    ],
    ids=["openai", "openai in a session", "agui", "events"],
)
async def test_the_frame_limit_applies_over_http(hub: Hub, path: str, body: dict[str, Any] | None) -> None:
    """The setting applies to each route that streams events."""
    hub.agent("long.py", LONG)
    await hub.start(out_frame_bytes=MOST)
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        if body is None:
            chat = {"agentId": "long", "message": "10000"}
            await http.post(f"{hub.url}/api/v1/sessions/s1/chat?wait=true", json=chat)
        query = {"afterSeq": "0"} if body is None else {}
        headers = {"Accept": "text/event-stream"}
        method = "GET" if body is None else "POST"
        async with http.request(method, hub.url + path, json=body, params=query, headers=headers) as answer:
            assert answer.status == 200
            lines = []
            async for line in answer.content:
                lines.append(line)
                if any(end in line for end in (b"[DONE]", b"RUN_FINISHED", b"run_finished")):
                    break
    assert sum(line.count(b"x") for line in lines) >= 10_000
    assert max(map(len, lines)) <= MOST


@pytest.mark.parametrize(
    "stream", [AguiStream("r", "r", "s"), OpenAIStream(AnswerForm(model="main"), "r")], ids=["agui", "openai"]
)
def test_no_event_of_a_run_over_http_is_longer(stream: AguiStream | OpenAIStream) -> None:
    stream.out_frame_bytes = MOST
    sizes, texts = [], []
    for line in stream.event(event(Chunk("m", TEXT, 0))).split(b"\n"):
        if line.startswith(b"data: "):
            sizes.append(len(line))
            fields = json.loads(line[6:])
            texts.append(fields["choices"][0]["delta"]["content"] if "choices" in fields else fields.get("delta", ""))
    assert "".join(texts) == TEXT and max(sizes) <= MOST
    assert stream.event(event(Chunk("m", TEXT, 0))).count(b"id: ") == 1


LONG = """
def long(message: str):
    yield "x" * int(message)
"""


@pytest.mark.parametrize("protocols", [(), ("hubbub.v1",), ("hubbub.events",)], ids=["plain", "extended", "envelope"])
async def test_a_client_with_a_frame_limit_of_512_kib_receives_everything(hub: Hub, protocols: tuple[str, ...]) -> None:
    """It receives all text live and in a replay; aiohttp's client would close a longer frame with 1009."""
    hub.agent("long.py", LONG)
    await hub.start()
    size = 3 * 2**20
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        for query in ("?sessionId=s1", "?sessionId=s1&afterSeq=0"):
            async with http.ws_connect(
                f"{hub.url}/api/v1/ws{query}", protocols=protocols, max_msg_size=512 * 1024 + 1
            ) as ws:
                if "after" not in query:
                    chat = {"type": "chat", "agentId": "long", "sessionId": "s1", "message": " " * 600_000 + str(size)}
                    await ws.send_str(json.dumps(chat))
                received = {"content": 0, "is_over": False}
                while not received["is_over"]:
                    frame = json.loads(await ws.receive_str())
                    body = {"type": frame["type"]} | frame.get("payload", frame)
                    kind = body.get("event", body["type"])
                    if kind in ("stream", "message", "text"):
                        received["content"] += len(body["content"])
                    received["is_over"] = bool(body.get("done")) or kind in ("run_finished", "done")
                assert received["content"] == size
