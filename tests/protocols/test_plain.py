"""The plain protocol, over a real socket."""

import asyncio
import json
import threading
from typing import Any

import aiohttp
import orjson
import pytest
from support.hub import Hub
from support.waiting import PATIENCE

from hub.ids import Key
from hub.limits import KiB
from hub.messages import Chunk
from hub.storage.log import AppendCallback
from hub.storage.records import Append
from hub.storage.sqlite.plan import WriteResult


async def test_an_answer_is_streamed_and_ends_with_one_done_frame(hub: Hub) -> None:
    """Chunks have done false; then comes exactly one empty frame with done true; all frames have their ids."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", sessionId="session-001", message="你好 there")
    end = await client.until_done()
    assert client.text() == "你好 there "
    assert {frame["type"] for frame in client.frames} == {"stream"}
    assert [frame["done"] for frame in client.frames].count(True) == 1
    assert end["content"] == "" and end["stopReason"] == "end_turn"
    for frame in client.frames:
        assert frame["sessionId"] == "session-001" and frame["agentId"] == "echo"
        assert frame["runId"] and frame["messageId"] and frame["epoch"] and frame["seq"]
    seqs = [frame["seq"] for frame in client.frames]
    assert seqs == sorted(set(seqs))


async def test_pong_is_exactly_a_pong(hub: Hub) -> None:
    """A ping may be a text or a binary frame."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="ping")
    assert await client.next() == {"type": "pong"}
    await client.ws.send_bytes(b'{"type":"ping"}')
    assert await client.next() == {"type": "pong"}


async def test_a_chat_without_a_session_gets_one_per_connection_and_agent(hub: Hub) -> None:
    """The id is in every frame, and stays the same for the connection."""
    await hub.start()
    client = await hub.connect("?agentId=echo")
    await client.send(type="chat", message="a")
    first = await client.until_done()
    await client.send(type="chat", message="b")
    assert (await client.until_done())["sessionId"] == first["sessionId"]
    other = await hub.connect("?agentId=echo")
    await other.send(type="chat", message="c")
    assert (await other.until_done())["sessionId"] != first["sessionId"]


async def test_a_whole_text_is_a_message_and_still_ends_once(hub: Hub) -> None:
    """An agent that returns its text gives one `message` frame with done false, then the end."""
    hub.agent("whole.py", "async def whole(message: str):\n    return 'all of ' + message")
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="whole", message="it")
    await client.until_done()
    assert [(f["type"], f["content"], f["done"]) for f in client.frames] == [
        ("message", "all of it", False),
        ("stream", "", True),
    ]


@pytest.mark.parametrize("query, extra", [("?stream=false", {}), ("", {"stream": False})])
async def test_stream_false_gives_the_answer_in_one_message(hub: Hub, query: str, extra: dict[str, bool]) -> None:
    """This client gets no chunks; another client of the session does."""
    await hub.start()
    streaming = await hub.connect("?sessionId=s1")
    whole = await hub.connect(query)
    await whole.send(type="chat", agentId="echo", sessionId="s1", message="one two three", **extra)
    await whole.until_done()
    assert [(f["type"], f["content"]) for f in whole.frames] == [("message", "one two three "), ("stream", "")]
    assert "seq" not in whole.frames[0] and whole.frames[1]["seq"]
    await streaming.until_done()
    assert streaming.text() == "one two three " and {f["type"] for f in streaming.frames} == {"stream"}


async def test_a_client_that_joins_during_an_answer_receives_all_of_it(hub: Hub) -> None:
    """Without a cursor, a client starts just before the oldest active run."""
    await hub.start()
    gate = hub.folder / "gate"
    first = await hub.connect()
    await first.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    await first.until_type("stream")
    late = await hub.connect("?sessionId=s1")
    assert (await late.until_type("stream"))["content"] == "one "
    gate.touch()
    for client in (first, late):
        await client.until_done()
        assert client.text() == "one two"


async def test_a_resume_replays_exactly_the_missed_events(hub: Hub) -> None:
    """?sessionId=&afterSeq=&epoch= continues after the last frame; a missing epoch matches."""
    await hub.start()
    gate = hub.folder / "gate"
    client = await hub.connect()
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    last = await client.until_type("stream")
    await client.close()
    gate.touch()
    for query in (f"&epoch={last['epoch']}", ""):
        again = await hub.connect(f"?sessionId=s1&afterSeq={last['seq']}{query}")
        await again.until_done()
        assert again.text() == "two"


@pytest.mark.parametrize("query", ["afterSeq=1&epoch=other", "afterSeq=999999"])
async def test_an_invalid_cursor_gets_a_reset(hub: Hub, query: str) -> None:
    """A wrong epoch or a seq beyond the head gets `reset`, then the frames of a new client."""
    await hub.start()
    gate = hub.folder / "gate"
    client = await hub.connect()
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    await client.until_type("stream")
    lost = await hub.connect(f"?sessionId=s1&{query}")
    assert (await lost.next())["code"] == "reset"
    gate.touch()
    await lost.until_done()
    assert lost.text() == "one two"


BAD = [
    (b"hello", "bad_frame", "not JSON"),
    (b"[1]", "bad_frame", "one JSON object"),
    (b"{}", "bad_frame", '"type"'),
    (b'{"type":"dance"}', "unknown_type", "use one of "),
    (b'{"type":"chat"}', "bad_frame", "message"),
    (b'{"type":"chat","message":7}', "bad_frame", "`$.message`"),
    (b'{"type":"chat","message":"x","sessionId":"a b"}', "bad_id", "sessionId"),
    (b'{"type":"chat","message":"x","sessionId":"' + b"a" * 129 + b'"}', "bad_id", "sessionId"),
    (b'{"type":"chat","message":"x","sessionId":"a\\n"}', "bad_id", "sessionId"),
    (b'{"type":"chat","message":"x","agentId":"nobody"}', "unknown_agent", "echo"),
    (b'{"type":"chat","message":"x","agentId":"broken"}', "agent_broken", "broken.py"),
    (b'{"type":"chat","message":"x","ifBusy":"later"}', "bad_frame", "enqueue, parallel, reject, replace, rollback"),
    (b'{"type":"chat","message":"x","ifBusy":7}', "bad_frame", "enqueue, parallel, reject, replace, rollback"),
    (b'{"type":"resume","sessionId":"s","interruptId":"i","status":"x"}', "bad_frame", "cancelled, resolved"),
    (b'{"type":"chat","message":"x","parts":[{"type":"x"}]}', "bad_frame", "text, image, audio, video, document"),
    (b'{"type":"chat","message":"x","ifBusy":"' + b"y" * 999 + b'"}', "bad_frame", "yyy…, use one of "),
    (b'{"type":"chat","message":"\\ud800"}', "bad_frame", "not JSON"),
    (b'{"type":"ping","x":NaN}', "bad_frame", "not JSON"),
    (b'{"type":"ping","x":9007199254740993}', "bad_frame", "2^53"),
    (b'{"type":"ping","x":18446744073709551616}', "bad_frame", "2^53"),
    (b'{"type":"ping","x":[1e20,-9223372036854775809]}', "bad_frame", "2^53"),
    (b'{"type":"ping","x":1.0000000000000000001}', "bad_frame", "send it as a string"),
    (b'{"type":"ping","x":[9007199254740993.0]}', "bad_frame", "send it as a string"),
    (b'{"type":"ping","x":1e-400 }', "bad_frame", "send it as a string"),
    (b'{"type":"ping","x":-1E400}', "bad_frame", "infinity"),
    (b'{"type":"ping","x":0.0,"y":36893488147419103232}', "bad_frame", "2^53"),
    (b'{"type":"ping","x":1' + b"0" * 300 + b"}", "bad_frame", "2^53"),
    (b'{"type":"ping","x":{"y":[1' + b"0" * 5000 + b"]}}", "bad_frame", "not JSON"),
    (b'{"type":"ping","x":' + b"[" * 40 + b"]" * 40 + b"}", "bad_frame", "flatter"),
    (b'{"type":"ping","x":{' + b",".join(b'"%d":1' % n for n in range(257)) + b"}}", "bad_frame", "keys"),
    (b"\x00\xff\xfe rubbish", "bad_frame", "not JSON"),
]


async def test_a_bad_frame_gets_an_error_with_advice_and_the_connection_stays(hub: Hub) -> None:
    """After each documented error, a chat on the same socket works."""
    hub.agent("broken.py", "def broken(message: str:\n    pass")
    await hub.start(bad_frames_per_minute=len(BAD))
    client = await hub.connect()
    for frame, code, words in BAD:
        await client.ws.send_bytes(frame)
        error = await client.next()
        assert (error["type"], error["code"]) == ("error", code), frame
        assert words in error["message"] and "Traceback" not in error["message"], error
    await client.send(type="chat", agentId="echo", message="still here")
    await client.until_done()
    assert client.text() == "still here "


async def test_an_error_has_the_ref_of_its_command(hub: Hub) -> None:
    """The ref may be text or a number, and the frame may be an invalid command."""
    await hub.start()
    client = await hub.connect()
    for number, frame in enumerate(({"type": "dance"}, {"type": "chat"}, {"type": "cancel", "sessionId": "s1"})):
        for ref in (number, f"text {number}"):
            await client.send(**frame, ref=ref)
            assert (await client.next())["ref"] == ref


async def test_unknown_fields_are_ignored(hub: Hub) -> None:
    """A newer client works with this hub."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", message="x", shiny=True)
    assert (await client.until_done())["stopReason"] == "end_turn"


@pytest.mark.parametrize("size, closes", [(-1, False), (0, False), (1, True)])
async def test_a_frame_above_the_limit_closes_with_1009(hub: Hub, size: int, closes: bool) -> None:
    """A frame of exactly the limit is accepted."""
    await hub.start(frame_bytes=2000)
    client = await hub.connect()
    frame = json.dumps({"type": "ping", "pad": ""})
    await client.ws.send_str(frame[:-2] + "x" * (2000 + size - len(frame)) + frame[-2:])
    if closes:
        assert await client.wait_closed() == 1009
    else:
        assert await client.next() == {"type": "pong"}


async def test_a_text_frame_that_is_not_utf8_closes_with_1007(hub: Hub) -> None:
    """RFC 6455 requires it."""
    await hub.start()
    client = await hub.connect()
    await client.ws.send_frame(b'{"type":"ping\xff"}', aiohttp.WSMsgType.TEXT)
    assert await client.wait_closed() == 1007


async def test_a_group_receives_an_agents_runs_in_all_sessions_from_start_to_end(hub: Hub) -> None:
    """It receives no run of other agents; a client that is also subscribed to the session receives each event once."""
    await hub.start()
    observer = await hub.connect()
    await observer.send(type="subscribe", agentId="echo")
    assert (await observer.next())["type"] == "subscribed"
    both = await hub.connect("?sessionId=s1")
    await both.send(type="subscribe", agentId="echo")
    await both.next()
    client = await hub.connect()
    (hub.folder / "gate").touch()
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(hub.folder / "gate"))
    await client.until_done()
    for session in ("s1", "s2"):
        await client.send(type="chat", agentId="echo", sessionId=session, message="to " + session)
        await client.until_done()
        await observer.until_done()
    await both.until_done()
    await both.until_done()
    assert observer.text() == "to s1 to s2 "
    assert both.text() == "one twoto s1 "
    while hub.node.sessions[Key("s1")].channel.run_descriptors:
        await asyncio.sleep(0)
    assert [sub.run_ids for sub in hub.node.sessions[Key("s1")].channel.subscriptions] == [None, None]


async def test_origins_and_hosts_that_are_not_allowed_get_403_before_the_upgrade(hub: Hub) -> None:
    """Pages of other sites, pages from disk and rebound names are refused; loopback pages of any port are not."""
    hub.options = {"origins": ("https://app.example",), "hosts": ("hub.example",)}
    await hub.start()
    for origin in ("http://localhost:5173", "http://127.0.0.1:1", "https://app.example"):
        client = await hub.connect(headers={"Origin": origin})
        await client.send(type="ping")
        assert await client.next() == {"type": "pong"}
    refused = [{"Origin": o} for o in ("https://evil.example", "null", "https://app.example.evil.example", "file://")]
    for headers in [*refused, {"Host": "evil.example"}, {"Host": "localhost.evil.example"}]:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await hub.connect(headers=headers)
        assert refusal.value.status == 403
    client = await hub.connect(headers={"Host": "hub.example", "Origin": "https://hub.example"})
    await client.send(type="ping")
    assert await client.next() == {"type": "pong"}


async def test_a_group_listener_that_chats_receives_the_active_answer_once(hub: Hub) -> None:
    """Frames that it received as a listener are not repeated when it joins; an explicit cursor replays all."""
    await hub.start()
    gate = hub.folder / "gate"
    listener = await hub.connect()
    await listener.send(type="subscribe", agentId="gated")
    await listener.next()
    client = await hub.connect()
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    await listener.until_type("stream")
    await listener.send(type="chat", agentId="echo", sessionId="s1", message="me too")
    await listener.until_done()
    gate.touch()
    await listener.until_done()
    assert sorted(listener.text().split()) == ["me", "one", "too", "two"]
    await listener.send(type="subscribe", sessionId="s1", afterSeq=0)
    before = len(listener.frames)
    for _ in range(2):
        await listener.until_done()
    again = "".join(f["content"] for f in listener.frames[before:] if f["type"] == "stream")
    assert sorted(again.split()) == ["me", "one", "too", "two"]


async def test_a_listener_of_two_agents_receives_both_in_the_order_of_the_log(hub: Hub) -> None:
    """The seqs of two parallel runs in one session only rise, so that a client can resume."""
    for name in ("left", "right"):
        hub.agent(
            f"{name}.py",
            f"""
            import asyncio

            async def {name}(message: str):
                for n in range(40):
                    yield "{name} "
                    await asyncio.sleep(0)
            """,
        )
    hub.options = {"frames_per_second": 0}
    await hub.start()
    listener = await hub.connect()
    for name in ("left", "right"):
        await listener.send(type="subscribe", agentId=name)
        await listener.next()
    client = await hub.connect()
    for name in ("left", "right"):
        await client.send(type="chat", agentId=name, sessionId="s1", message="go")
    for _ in range(2):
        await listener.until_done()
    seqs = [frame["seq"] for frame in listener.frames if "seq" in frame]
    assert seqs == sorted(seqs)
    assert listener.text().split().count("left") == listener.text().split().count("right") == 40


async def test_stream_false_applies_to_a_queued_chat(hub: Hub) -> None:
    """The answers before it are streamed; its own answer is one message."""
    await hub.start()
    gate = hub.folder / "gate"
    client = await hub.connect()
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    await client.until_type("stream")
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate), stream=False)
    gate.touch()
    first, second = [await client.until_done() for _ in range(2)]
    kinds = [(f["type"], f["content"]) for f in client.frames if f["runId"] == second["runId"]]
    assert kinds == [("message", "one two"), ("stream", "")]
    assert client.text(first["runId"]) == "one two"


async def test_stream_false_applies_if_a_chunk_is_logged_before_the_chat_is_answered(hub: Hub) -> None:
    """With a clientMsgId, the chat's own task runs some steps of the loop after the commit of the chat."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await hub.wait_until_live("s1", 1)
    writer, is_announced = hub.node.log._threads.writer, threading.Event()  # type: ignore[attr-defined]
    deliver, append = writer.deliver, hub.node.log.events.append

    def note_delivery(results: list[WriteResult]) -> None:
        deliver(results)
        if any(request is not None and has_chunk(request) for _, _, request in results):
            is_announced.set()

    def block(request: Append, callback: AppendCallback) -> None:
        """Append, and block the loop until the delivery of the first chunk is its next step."""
        append(request, callback)
        if has_chunk(request):
            assert is_announced.wait(PATIENCE)

    def has_chunk(request: Append) -> bool:
        return any(isinstance(event.body, Chunk) for event in request.events)

    writer.deliver, hub.node.log.events.append = note_delivery, block  # type: ignore[method-assign]
    await client.send(type="chat", agentId="echo", sessionId="s1", message="a b", stream=False, clientMsgId="c1")
    await client.until_done()
    assert is_announced.is_set()
    kinds = [(frame["type"], frame.get("content")) for frame in client.frames]
    assert kinds == [("accepted", None), ("message", "a b "), ("stream", "")]


async def test_a_duplicate_with_stream_false_repeats_no_text(hub: Hub) -> None:
    """The client has received the beginning of the answer in chunks: it gets the rest in chunks, too."""
    await hub.start()
    gate = hub.folder / "gate"
    chat = dict(type="chat", agentId="gated", sessionId="s1", message=str(gate), clientMsgId="c1", stream=False)
    first, again = await hub.connect(), await hub.connect("?sessionId=s1")
    await first.send(**chat)
    assert (await again.until_type("stream"))["content"] == "one "
    await again.send(**chat)
    assert (await again.until_type("accepted"))["status"] == "duplicate"
    gate.touch()
    await asyncio.gather(first.until_done(), again.until_done())
    assert first.text() == again.text() == "one two"


async def test_a_cursor_behind_the_retention_floor_gets_a_reset_never_a_gap(hub: Hub) -> None:
    """This also holds between the deletion in the file and the update in memory."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", sessionId="s1", message="one two")
    await client.until_done()
    await hub.node.log.events.expire(2**60, 0)
    assert hub.node.sessions[Key("s1")].channel.floor == 0
    late = await hub.connect("?sessionId=s1&afterSeq=1")
    assert (await late.next())["code"] == "reset"


async def test_each_command_has_one_answer_with_its_ref(hub: Hub) -> None:
    """A refused command has only its error. The client of these tests checks every frame."""
    await hub.start(subscriptions=1)
    client = await hub.connect(extended=True)
    commands: list[dict[str, Any]] = [
        {"type": "ping"},
        {"type": "subscribe", "sessionId": "s1"},
        {"type": "subscribe", "sessionId": "s2"},  # past the limit
        {"type": "subscribe", "agentId": "echo"},
        {"type": "chat", "agentId": "echo", "sessionId": "s1", "message": "x"},
        {"type": "chat", "agentId": "nobody", "sessionId": "s1", "message": "x"},
        {"type": "cancel", "sessionId": "s3"},
        {"type": "unsubscribe", "sessionId": "s1"},
        {"type": "fork", "sessionId": "s1", "messageId": "m"},
    ]
    for number, command in enumerate(commands):
        await client.send(**command, ref=number)
    for number in range(len(commands)):
        await client.find(lambda frame: frame.get("ref") == number)
    answers = {frame["ref"]: frame["type"] for frame in client.frames if "ref" in frame}
    kinds = ["pong", "subscribed", "error", "subscribed", "accepted", "error", "error", "ok", "error"]
    assert [answers[number] for number in range(len(commands))] == kinds
    await client.send(type="ping")
    assert await client.until_type("pong") == {"type": "pong"}


LARGE = '''
from hub import Message

async def large(message: str):
    """Say so many of these characters at once, streamed or whole."""
    how, character, count = message.split()
    text = chr(int(character)) * int(count)
    yield Message(text) if how == "whole" else text
'''


@pytest.mark.parametrize("how", ["stream", "whole"])
@pytest.mark.parametrize("character", ["x", "é", "😀", "\0"])
async def test_no_frame_is_longer_than_512_kib(hub: Hub, how: str, character: str) -> None:
    """A longer text is split between code points into `stream` frames; the last has the seq."""
    hub.agent("large.py", LARGE)
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await client.send(type="chat", agentId="large", sessionId="s1", message=f"{how} {ord(character)} 600000")
    await client.until_done()
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    await late.until_done()
    whole = await hub.connect("?sessionId=s1&afterSeq=0&stream=false")
    await whole.until_done()
    for one in (client, late, whole):
        assert one.text() == character * 600_000
        assert max(map(encoded, one.frames)) <= 512 * KiB
    for one in (late, whole) if how == "whole" else (whole,):
        assert {frame["type"] for frame in one.frames} == {"stream"} and len(one.frames) > 2
    if how == "whole":
        assert ["seq" in frame for frame in late.frames] == [*[False] * (len(late.frames) - 2), True, True]


def encoded(frame: dict[str, Any]) -> int:
    return len(orjson.dumps(frame))
