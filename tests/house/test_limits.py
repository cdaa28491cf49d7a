"""Each limit is tested with an odd value that no constant in the code has.

A test names the limits that it checks; the last test in this file fails if no test names a limit.
"""

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import attrs
import msgspec
import orjson
import pytest
from support.agui import events as agui_events
from support.agui import run_request
from support.hub import Client, Hub
from support.people import bearer
from support.process import HubProcess
from support.sockets import HttpConnection, client_frame, open_websocket, send_endless_frame
from support.sse import call, get, post
from support.waiting import PATIENCE, eventually

from hub.access.principal import LOCAL
from hub.cli.records import write_session
from hub.commands import table
from hub.commands.complete import Conversation
from hub.errors import BadFrame, StorageUnavailable
from hub.ids import Key
from hub.limits import KiB, Limits, MiB, format_size
from hub.messages import ChatWithRequest, Chunk, Event, Request
from hub.node.history import read_history
from hub.node.node import Node
from hub.setting_sources import load_settings
from hub.settings import ConfigError, Settings
from hub.storage.log import AppendCallback
from hub.storage.records import Append
from hub.web.websocket import SOCKETS_KEY

NEVER = 1e6  # seconds: longer than any test
LEAST = 4 * KiB  # the smallest size that the quota counts for a file
TEXT = {"Content-Type": "text/plain"}
Test = TypeVar("Test", bound=Callable[..., Any])
TESTED: set[str] = set()


@pytest.fixture(params=[False, True], ids=["start", "reload"])
def hub(request: pytest.FixtureRequest, hub: Hub) -> Hub:
    """A hub that gets its limits at its start, or while it runs."""
    hub.reloads_limits = request.param
    return hub


def obeys(*limits: str) -> Callable[[Test], Test]:
    """Record that a test checks these limits."""
    TESTED.update(limits)
    return lambda test: test


@asynccontextmanager
async def open_http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=timeout) as http:
        yield http


def padded(frame: dict[str, Any], size: int) -> str:
    """Encode a frame or a body as JSON of exactly *size* bytes."""
    text = json.dumps(frame | {"pad": ""})
    return text[:-2] + "x" * (size - len(text)) + text[-2:]


def sized(size: int) -> dict[str, str]:
    """Return an object that the hub encodes as *size* bytes of JSON."""
    return {"a": "x" * (size - len('{"a":""}'))}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def begin(hub: Hub, session: str = "s1", **limits: Any) -> Client:
    """Start a hub and return a client that is subscribed to a session."""
    await hub.start(**limits)
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId=session)
    await client.until_type("subscribed")
    return client


async def outcome(client: Client, ref: str) -> dict[str, Any]:
    """Wait for the response to the command with this ref: an answer or an error."""
    return await client.until(lambda frame: frame.get("ref") == ref)


async def chat(client: Client, agent: str, message: str, session: str = "s1", **more: Any) -> dict[str, Any]:
    """Send a chat and return its response: `accepted`, or an error."""
    ref = f"{agent} {message}"[:30]
    await client.send(type="chat", agentId=agent, sessionId=session, message=message, ref=ref, **more)
    return await outcome(client, ref)


async def answer(client: Client, agent: str, message: str, session: str = "s1", **more: Any) -> dict[str, Any]:
    """Send a chat and receive the complete answer; return its `run_error`, or else its `run_finished`."""
    accepted = await chat(client, agent, message, session, **more)
    assert accepted["type"] == "accepted", accepted
    run_id = accepted["runId"]
    end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run_id)
    return next((f for f in client.frames if f["type"] == "run_error" and f["runId"] == run_id), end)


async def wait_for_pong(client: Client) -> None:
    """Wait until the hub has processed all earlier commands."""
    await client.send(type="ping")
    await client.until_type("pong")


async def append_chunks(hub: Hub, texts: list[str], session: str = "s1") -> None:
    """Append chunks of one message to a session's log."""
    await hub.node.log.sessions.make(Key(session))
    entries = [Event("main", "r1", Chunk("m1", text, 0)) for text in texts]
    commit: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    hub.node.log.events.append(Append(Key(session), entries), commit.set_result)
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await commit, int)


async def upload(http: aiohttp.ClientSession, size: int, query: str = "sessionId=s1") -> tuple[int, dict[str, Any]]:
    async with http.post(f"files?{query}", data=b"x" * size, headers=TEXT) as response:
        return response.status, await response.json()


# Yields a piece of text, a whole message or an event several times; agent_input() makes its message.
SAYS = """
import json
from hub import Custom, Message, ToolCallResult

KINDS = {"text": str, "message": Message, "custom": lambda text: Custom("n", text),
    "result": lambda text: ToolCallResult("c1", text)}

async def says(message: str):
    kind, text, count = json.loads(message)
    for _ in range(count):
        yield KINDS[kind](text)
"""


def agent_input(kind: str, text: str, count: int = 1) -> str:
    return json.dumps([kind, text, count])


# For agents that yield "one " and then wait for the file that the message names.
GATE = """
import asyncio, pathlib
from hub import Message

async def wait_for_file(message):
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
"""
# Writes into the file how many pieces the hub has read.
EAGER = """
async def eager(message: str):
    yield "one "
    await wait_for_file(message)
    for number in range(20):
        pathlib.Path(message).write_text(str(number))
        yield KIND("x" * 100)
    pathlib.Path(message).write_text("20")
"""
# Ignores its cancellation.
DEAF = """
async def deaf(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        try:
            await wait_for_file(message)
        except asyncio.CancelledError:
            pass
"""


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1 KiB"), (1237, "1237 bytes")),
        *((1536, "1536 bytes"), (64 * KiB, "64 KiB"), (MiB - 1, "1048575 bytes"), (MiB, "1 MiB")),
        *((MiB + KiB, "1025 KiB"), (4096 * MiB, "4096 MiB")),
    ],
)
def test_a_size_is_formatted_exactly(size: int, text: str) -> None:
    """The unit is the largest one that gives a whole number."""
    assert format_size(size) == text


ROUTES_OF_BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("body_bytes", "sessions", {"sessionId": "s1"}),
    ("chat_bytes", "sessions/s1/chat", {"agentId": "echo", "message": "hello"}),
    ("conversation_bytes", "chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "x"}]}),
    ("conversation_bytes", "agents/echo/agui", run_request("hello")),
]


@obeys("body_bytes", "chat_bytes", "conversation_bytes")
@pytest.mark.parametrize(("limit", "path", "body"), ROUTES_OF_BODIES, ids=[path for _, path, _ in ROUTES_OF_BODIES])
async def test_each_route_limits_its_request_bodies(hub: Hub, limit: str, path: str, body: dict[str, Any]) -> None:
    """The limits of other routes do not apply; the error for a larger body contains the exact number."""
    others = {name: 7 for name, _, _ in ROUTES_OF_BODIES}
    await hub.start(**others | {limit: 1237})
    async with open_http(hub) as http:
        for size in (1236, 1237, 1238):
            async with http.post(path, data=padded(body, size)) as response:
                assert (response.status == 413) == (size > 1237)
                reply = await response.text()
        assert "too_large" in reply and "1237 bytes" in reply


@obeys("metadata_bytes")
async def test_metadata_past_its_limit_is_refused(hub: Hub) -> None:
    """The limit applies to messages and sessions; the error contains the exact number."""
    client = await begin(hub, metadata_bytes=777)
    assert (await chat(client, "echo", "x", metadata=sized(777)))["type"] == "accepted"
    refused = await chat(client, "echo", "y", metadata=sized(778))
    assert refused["code"] == "bad_frame" and "larger than 777 bytes" in refused["message"]
    async with open_http(hub) as http:
        assert (await call(http, "PATCH", "sessions/s1", {"metadata": sized(777)}))[0] == 200
        status, reply = await call(http, "PATCH", "sessions/s1", {"metadata": sized(778)})
    assert (status, reply["code"]) == (413, "too_large") and "at most 777 bytes" in reply["error"]


@obeys("request_bytes")
async def test_a_request_past_its_limit_is_refused(hub: Hub) -> None:
    """In a session and without one. Its size is that of all its fields as JSON."""
    await hub.start(request_bytes=777)
    size = len(msgspec.json.encode(Request(state="")))
    for length, is_allowed in ((777 - size, True), (778 - size, False)):
        request = Request(state="x" * length)
        chat = ChatWithRequest(message="hi", agentId="echo", request=request)
        conversation = Conversation(run_id="r", message="hi", request=request)
        with nullcontext() if is_allowed else pytest.raises(BadFrame, match="larger than 777 bytes"):
            assert (await table.ask(hub.door, LOCAL, chat)).content == "hi "
        with nullcontext() if is_allowed else pytest.raises(BadFrame, match="larger than 777 bytes"):
            async with await table.complete(hub.door, LOCAL, "echo", conversation) as outputs:
                assert [output async for output in outputs][0] == "hi "


@obeys("reply_bytes")
async def test_a_reply_past_its_limit_is_refused(hub: Hub) -> None:
    """The question stays open after a reply that was too large."""
    hub.agent("asks.py", "async def asks(run):\n    reply = await run.ask('?')\n    yield str(len(reply.payload['a']))")
    client = await begin(hub, reply_bytes=777)
    await chat(client, "asks", "x")
    question = await client.until_type("interrupt")
    resume = {"type": "resume", "sessionId": "s1", "interruptId": question["id"], "status": "resolved"}
    await client.send(**resume, payload=sized(778))
    refused = await client.until_type("error")
    assert refused["code"] == "bad_frame" and "more than 777 bytes" in refused["message"]
    await client.send(**resume, payload=sized(777))
    await client.until_done()
    assert client.text() == str(777 - len('{"a":""}'))


@obeys("content_bytes")
async def test_an_event_other_than_text_has_a_size_limit(hub: Hub) -> None:
    hub.agent("says.py", SAYS)
    client = await begin(hub, content_bytes=777)
    fitting = 777 - len('{"name":"n","value":""}')
    assert (await answer(client, "says", agent_input("custom", "x" * fitting)))["type"] == "run_finished"
    failed = await answer(client, "says", agent_input("custom", "x" * (fitting + 1)))
    assert failed["code"] == "answer_too_long" and "more than 777 bytes" in failed["message"]


@obeys("run_bytes")
@pytest.mark.parametrize("kind", ["text", "message"])
async def test_an_answer_has_a_size_limit(hub: Hub, kind: str) -> None:
    """The limit counts all pieces of the answer in bytes of UTF-8."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, run_bytes=778)
    assert (await answer(client, "says", agent_input(kind, "é", 389)))["type"] == "run_finished"
    failed = await answer(client, "says", agent_input(kind, "é", 390))
    assert failed["code"] == "answer_too_long" and "more than 778 bytes" in failed["message"]


@obeys("file_bytes")
async def test_a_file_has_a_size_limit(hub: Hub) -> None:
    """The limit also applies to a file that the hub makes from a tool result."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, file_bytes=1237, result_bytes=99)
    async with open_http(hub) as http:
        assert (await upload(http, 1237))[0] == 201
        status, reply = await upload(http, 1238)
    assert (status, reply["code"]) == (413, "file_too_large") and "at most 1237 bytes" in reply["error"]
    assert (await answer(client, "says", agent_input("result", "x" * 1237)))["type"] == "run_finished"
    failed = await answer(client, "says", agent_input("result", "x" * 1238))
    assert failed["code"] == "answer_too_long" and "more than 1237 bytes" in failed["message"]


@obeys("session_files_bytes", "files_bytes")
@pytest.mark.parametrize(("limit", "other"), [("session_files_bytes", "s1"), ("files_bytes", "s2")])
async def test_all_files_together_have_a_size_limit(hub: Hub, limit: str, other: str) -> None:
    """One limit is for a session, one for the hub; each file counts as at least one block."""
    await hub.start(**{limit: 3 * LEAST + 1})
    async with open_http(hub) as http:
        assert (await upload(http, 2 * LEAST))[0] == 201
        status, reply = await upload(http, LEAST + 2, f"sessionId={other}")
        assert (status, reply["code"]) == (413, "quota_exceeded") and "at most 12289 bytes" in reply["error"]
        assert (await upload(http, LEAST + 1, f"sessionId={other}"))[0] == 201
        assert (await upload(http, 1, f"sessionId={other}"))[0] == 413


@obeys("fork_messages", "fork_bytes")
@pytest.mark.parametrize(
    ("limit", "copied"),
    [
        ({"fork_messages": 3}, ["abc ", "def", "def "]),
        ({"fork_messages": 1}, ["def "]),
        ({"fork_bytes": 11}, ["abc ", "def", "def "]),
        ({"fork_bytes": 10}, ["def", "def "]),
    ],
)
async def test_a_fork_copies_the_newest_messages(hub: Hub, limit: dict[str, Any], copied: list[str]) -> None:
    client = await begin(hub, **limit)
    for text in ("abc", "def"):
        end = await answer(client, "echo", text)
    await client.send(type="fork", sessionId="s1", messageId=end["messageId"], newSessionId="f1")
    await client.until_type("subscribed")
    assert [message["content"] for message in await read_history(hub.node, Key("f1"), 9)] == copied


@obeys("fork_bytes")
async def test_a_fork_of_one_message_that_is_too_large_is_refused(hub: Hub) -> None:
    client = await begin(hub, fork_bytes=3)
    end = await answer(client, "echo", "abc")
    await client.send(type="fork", sessionId="s1", messageId=end["messageId"])
    refused = await client.until_type("error")
    assert refused["code"] == "wrong_message" and "the 3 bytes that a fork can copy" in refused["message"]


@obeys("frame_bytes", "json_depth")
def test_a_limit_above_the_hubs_abilities_is_refused(tmp_path: Path) -> None:
    """aiohttp counts the bytes of a frame in 32 bits; the log cannot encode JSON that is nested deeper."""
    for name, most in (("FRAME_BYTES", 2**31), ("JSON_DEPTH", 128)):
        variable = f"HUBBUB_LIMITS_{name}"
        assert getattr(load_settings({}, {variable: str(most)}, tmp_path).limits, name.lower()) == most
        with pytest.raises(ConfigError, match=f"{variable} in the environment must be a whole number from 1 to {most}"):
            load_settings({}, {variable: str(most + 1)}, tmp_path)


def largest(field: "attrs.Attribute[Any]") -> float:
    """Return the largest value that a setting accepts for a limit."""
    (meta,) = field.type.__metadata__  # type: ignore[union-attr]
    return float(meta.le) if field.name.endswith("_seconds") else int(meta.le)


async def test_a_hub_works_with_every_limit_at_its_largest(hub: Hub) -> None:
    """All commands and routes work, and the log stores JSON of the largest depth."""
    hub.agent("asks.py", "async def asks(run):\n    yield str((await run.ask(str(len(run.history)))).payload)")
    client = await begin(hub, **dict[str, Any]((field.name, largest(field)) for field in attrs.fields(Limits)))
    deep = {"a": nested(hub.limits.json_depth - 2)}
    end = await answer(client, "echo", "hello", metadata=deep)
    await client.send(type="regenerate", sessionId="s1", messageId=end["messageId"])
    end = await client.until_done()
    await client.send(type="fork", sessionId="s1", messageId=end["messageId"], newSessionId="f1")
    assert (await client.until_type("subscribed"))["seq"] == 2
    await chat(client, "asks", "x", "f1", ifBusy="rollback")
    question = await client.until_type("interrupt")
    resume = {"type": "resume", "sessionId": "f1", "interruptId": question["id"], "status": "resolved"}
    await client.send(**resume, payload=deep)
    await client.until_done()
    assert question["message"] == "2" and client.text().endswith(str(deep))
    async with open_http(hub) as http:
        assert (await upload(http, 9))[0] == 201
        assert len((await get(http, f"sessions/s1/messages?limit={10**6}"))[1]["data"]) == 2
        completion = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        assert (await post(http, "chat/completions", completion))[0] == 200
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    for _ in range(2):
        await late.until_done()
    assert late.text() == "hello hello "


@obeys("page_rows", "first_page_rows")
@pytest.mark.parametrize(
    ("limits", "lengths"),
    [
        ({"page_rows": 7, "first_page_rows": 3}, [3, 7, 7]),
        ({"page_rows": 7, "first_page_rows": 7}, [7, 7, 3]),
        ({"page_rows": 7, "first_page_rows": 1024}, [7, 7, 3]),
        ({"page_rows": 13, "first_page_rows": 4}, [4, 13]),
    ],
)
async def test_a_page_has_a_limit_of_events(hub: Hub, limits: dict[str, int], lengths: list[int]) -> None:
    """The limit applies to a catch-up and to HTTP; the first page of a catch-up may be shorter, never longer."""
    await hub.start(**limits)
    await append_chunks(hub, ["x"] * 17)
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    while len(late.text()) < 17:
        await late.next()
    assert [len(frame["content"]) for frame in late.frames] == lengths
    async with open_http(hub) as http:
        _, page = await get(http, "sessions/s1/events")
    assert len(page["data"]) == limits["page_rows"]


@obeys("page_bytes")
@pytest.mark.parametrize("text", ["x" * 100, "é" * 50], ids=["ascii", "two-bytes"])
async def test_a_page_and_a_merged_chunk_have_a_limit_of_bytes(hub: Hub, text: str) -> None:
    """A page ends with the event that passes the limit; a merged chunk does not pass the limit."""
    await hub.start(page_bytes=777)
    await append_chunks(hub, [text] * 20)
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    while len(late.text()) < 20 * len(text):
        await late.next()
    lengths = [len(frame["content"].encode()) for frame in late.frames]
    assert lengths == [700, 100, 700, 100, 400]
    async with open_http(hub) as http:
        _, page = await get(http, "sessions/s1/events")
    assert len(page["data"]) == 8


@obeys("pending_bytes")
@pytest.mark.parametrize("kind", ["str", "Message"])
async def test_an_agent_waits_for_a_slow_log(hub: Hub, kind: str) -> None:
    """It waits after the piece that passes the limit, text or whole message; nothing is lost."""
    gate = hub.folder / "gate"
    hub.agent("eager.py", GATE + EAGER.replace("KIND", kind))
    client = await begin(hub, pending_bytes=777)
    await chat(client, "eager", str(gate))
    await client.until_type("stream")
    delayed: list[tuple[Append, AppendCallback]] = []
    original_append = hub.node.log.events.append
    hub.node.log.events.append = lambda *args: delayed.append(args)  # type: ignore[method-assign]
    gate.touch()
    await eventually(lambda: gate.read_text() == "7")
    await wait_for_pong(client)
    assert gate.read_text() == "7"  # the eighth piece of 100 bytes passes the limit of 777
    hub.node.log.events.append = original_append  # type: ignore[method-assign]
    for args in delayed:
        original_append(*args)
    await client.until_done()
    assert client.text() == "one " + "x" * 2000 and gate.read_text() == "20"


@obeys("result_bytes", "result_start_bytes", "file_name_length")
@pytest.mark.parametrize("start", [0, 77, 5000])
async def test_a_large_tool_result_is_stored_as_a_file(hub: Hub, start: int) -> None:
    """Its event has only the start, never more than the limit of a result; the file name obeys its limit."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, result_bytes=777, result_start_bytes=start, file_name_length=7)
    await answer(client, "says", agent_input("result", "é" * 388 + "x"))
    whole = await client.find(lambda frame: frame["type"] == "tool_call_result")
    assert whole["content"] == "é" * 388 + "x" and "fileId" not in whole
    client.frames.clear()
    assert (await answer(client, "says", agent_input("result", "é" * 389)))["type"] == "run_finished"
    cut = await client.find(lambda frame: frame["type"] == "tool_call_result")
    assert cut["content"] == "é" * (min(start, 777) // 2) and cut["size"] == 778
    async with open_http(hub) as http, http.get(f"files/{cut['fileId']}") as response:
        assert await response.text() == "é" * 389
        assert 'filename="tool-re"' in response.headers["Content-Disposition"]


@obeys("content_bytes", "result_bytes")
async def test_a_tool_result_has_its_own_limit(hub: Hub) -> None:
    """A tool result may be larger than other events."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, content_bytes=77, result_bytes=777)
    assert (await answer(client, "says", agent_input("result", "x" * 777)))["type"] == "run_finished"
    assert (await answer(client, "says", agent_input("custom", "x" * 77)))["code"] == "answer_too_long"


async def complete(http: aiohttp.ClientSession, agent: str, message: str, stream: bool) -> str:
    """Send a completion request without a session; return the status and the body."""
    body = {"model": agent, "messages": [{"role": "user", "content": message}], "stream": stream}
    async with http.post("chat/completions", json=body) as response:
        return f"{response.status} {await response.text()}"


@obeys("run_bytes")
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_a_session_has_the_same_size_limit(hub: Hub, stream: bool) -> None:
    """The limit counts bytes, streamed or not."""
    hub.agent("says.py", SAYS)
    await hub.start(run_bytes=778)
    async with open_http(hub) as http:
        reply = await complete(http, "says", agent_input("text", "é", 389), stream)
        assert reply.startswith("200 ") and "answer_too_long" not in reply
        reply = await complete(http, "says", agent_input("text", "é", 390), stream)
        assert "answer_too_long" in reply and "more than 778 bytes" in reply


@obeys("run_seconds", "silence_seconds")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", ["run_seconds", "silence_seconds"])
async def test_an_answer_without_a_session_has_a_time_limit(hub: Hub, limit: str, stream: bool) -> None:
    await hub.start(**{"run_seconds": NEVER, "silence_seconds": NEVER, limit: 0.2})
    async with open_http(hub) as http:
        reply = await complete(http, "gated", str(hub.folder / "never"), stream)
    assert '"code":"timeout"' in reply.replace(" ", "")


# Never ends by itself, and creates a file when the hub stops it.
FLOODS = """
import asyncio, pathlib

async def floods(message: str):
    try:
        while True:
            yield "x" * 10_000
            await asyncio.sleep(0)
    finally:
        pathlib.Path(message).touch()
"""


def small_window(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket whose kernel buffer is small."""
    sock = socket.socket(address[0], address[1])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    return sock


@obeys("stuck_seconds")
async def test_a_client_that_does_not_read_its_completion_is_disconnected(hub: Hub) -> None:
    """The hub stops the agent."""
    stopped = hub.folder / "stopped"
    hub.agent("floods.py", FLOODS)
    await hub.start(stuck_seconds=0.3, run_bytes=2**40)
    body = {"model": "floods", "messages": [{"role": "user", "content": str(stopped)}], "stream": True}
    connector = aiohttp.TCPConnector(socket_factory=small_window)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=1) as http:
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            await eventually(stopped.exists)


@obeys("subscriptions")
async def test_a_connection_has_a_limit_of_subscriptions(hub: Hub) -> None:
    """Sessions of an agent's group count only if the client also subscribes to them directly."""
    client = await begin(hub, subscriptions=3)
    speaker = await hub.connect(extended=True)
    await client.send(type="subscribe", agentId="gated")
    await client.until_type("subscribed")
    gate = hub.folder / "gate"
    for name in ("g1", "g2"):
        await chat(speaker, "gated", str(gate), name)
        await client.until_type("stream")
    for name, code in (("s2", ""), ("g1", ""), ("s4", "too_many_subscriptions"), ("g2", "too_many_subscriptions")):
        await client.send(type="subscribe", sessionId=name, ref=name)
        assert (await outcome(client, name)).get("code", "") == code, name
    gate.touch()
    await client.until(lambda f: f["type"] == "run_finished" and f["sessionId"] == "g2")


@obeys("queued_runs")
async def test_without_a_queue_a_chat_starts_at_once_or_is_refused(hub: Hub) -> None:
    """`ifBusy` makes no difference."""
    client = await begin(hub, queued_runs=0)
    for if_busy in ("rollback", "replace", "enqueue"):
        assert (await answer(client, "echo", if_busy, ifBusy=if_busy))["stopReason"] == "end_turn"
    gate = hub.folder / "gate"
    accepted = await chat(client, "gated", str(gate))
    for if_busy in ("rollback", "replace", "enqueue"):
        assert (await chat(client, "echo", if_busy, ifBusy=if_busy))["code"] == "busy"
    gate.touch()
    end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == accepted["runId"])
    assert end["stopReason"] == "end_turn"


@obeys("list_size")
@pytest.mark.parametrize("path", ["sessions", "sessions/s1/messages"])
async def test_a_page_of_a_list_has_a_limit_of_rows(hub: Hub, path: str) -> None:
    """A request without `limit` gets the largest page."""
    client = await begin(hub, list_size=7)
    for number in range(8):
        await answer(client, "echo", "x", f"s{number % 2 + 1}" if "messages" in path else f"t{number}")
    async with open_http(hub) as http:
        status, page = await get(http, f"{path}?limit=7")
        assert (status, page["more"], len(page["data"])) == (200, True, 7)
        assert (await get(http, path)) == (200, page)
        status, reply = await get(http, f"{path}?limit=8")
    assert (status, reply["code"]) == (400, "bad_query") and "<= 7" in reply["error"]


@obeys("file_name_length")
async def test_a_file_name_has_a_length_limit(hub: Hub) -> None:
    """A longer name in a request is refused; a name that the hub chooses is cut."""
    await hub.start(file_name_length=3)
    async with open_http(hub) as http:
        assert (await upload(http, 1, "sessionId=s1&name=xyz"))[0] == 201
        status, reply = await upload(http, 1, "sessionId=s1&name=four")
        assert (status, reply["code"]) == (400, "bad_query") and "1 to 3 characters" in reply["error"]
        assert (await upload(http, 1))[1]["name"] == "fil"


@obeys("taken_messages")
async def test_an_edit_can_remove_a_limited_number_of_messages(hub: Hub) -> None:
    """The message that `regenerate` answers again does not count."""
    client = await begin(hub, taken_messages=3)
    for text in ("one", "two"):
        await answer(client, "echo", text)
    message_id = next(f["messageId"] for f in client.frames if f["type"] == "user_message")
    target = {"sessionId": "s1", "messageId": message_id, "message": "x"}
    await client.send(type="edit", **target)
    refused = await client.until_type("error")
    assert refused["code"] == "wrong_message" and "more than 3 messages" in refused["message"]
    for kind, removed in (("regenerate", 3), ("edit", 2)):
        await client.send(type=kind, **target)
        assert len((await client.until_type("message_removed"))["messageIds"]) == removed
        await client.until_done()


async def test_an_export_reads_pages_of_any_size(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The command does not request more rows than the hub's limit."""
    client = await begin(hub, list_size=3)
    for number in range(4):
        await answer(client, "echo", str(number))
    assert await write_session(hub.url, "s1", "json") == 0
    reply = [message["content"] for message in json.loads(capsys.readouterr().out)]
    assert reply == [text for number in range(4) for text in (str(number), f"{number} ")]


REMEMBERS = """
async def remembers(run):
    yield "/".join(past.content for past in run.history) or "nothing"
"""
# Waits for a file, and yields no text.
WAITS = """
import asyncio, pathlib

async def waits(message: str):
    while not (pathlib.Path(__file__).parents[1] / "gate").exists():
        await asyncio.sleep(0.01)
    yield ""
"""


@obeys("history_messages", "history_bytes")
@pytest.mark.parametrize(
    ("limit", "messages", "agent_history"),
    [
        ({"history_messages": 3}, ["a ", "bc", "bc "], "bc/bc /w"),
        ({"history_messages": 0}, [], "nothing"),
        ({"history_bytes": 8}, ["a", "a ", "bc", "bc "], "a /bc/bc /w"),
        ({"history_bytes": 7}, ["a ", "bc", "bc "], "bc/bc /w"),
        ({"history_bytes": 1}, [], "w"),
    ],
)
async def test_a_history_has_limits(hub: Hub, limit: dict[str, Any], messages: list[str], agent_history: str) -> None:
    """The limits apply to clients and agents; for an agent, its own message and queued messages do not count."""
    hub.agent("remembers.py", REMEMBERS)
    hub.agent("waits.py", WAITS)
    client = await begin(hub, **limit)
    for text in ("a", "bc"):
        await answer(client, "echo", text)
    await client.send(type="subscribe", sessionId="s1", history=9)
    assert [message["content"] for message in (await client.until_type("subscribed"))["history"]] == messages
    late = await hub.connect("?sessionId=s1&afterSeq=99", extended=True)
    assert [message["content"] for message in (await late.until_type("reset"))["messages"]] == messages
    await chat(client, "waits", "w")
    queued = [await chat(client, "remembers", letter * 50, ifBusy="enqueue") for letter in "xy"]
    (hub.folder / "gate").touch()
    await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == queued[0]["runId"])
    assert client.text(queued[0]["runId"]) == agent_history


@obeys("frame_bytes")
async def test_a_frame_from_a_client_has_a_size_limit(hub: Hub) -> None:
    """`welcome` contains the limit; a frame with one byte more closes the connection with 1009."""
    await hub.start(frame_bytes=1237)
    client = await hub.connect(extended=True)
    assert client.frames[0]["limits"]["frameBytes"] == 1237
    for size in (1236, 1237):
        await client.ws.send_str(padded({"type": "ping"}, size))
        await client.until_type("pong")
    await client.ws.send_str(padded({"type": "ping"}, 1238))
    assert await client.wait_closed() == 1009


WHOLE = """
def whole(message: str):
    return "x" * int(message)
"""


@obeys("out_frame_bytes")
async def test_a_frame_to_a_client_has_a_size_limit(hub: Hub) -> None:
    """The hub splits a longer text into several frames."""
    hub.agent("whole.py", WHOLE)
    await hub.start(out_frame_bytes=2000)
    client = await hub.connect()
    overhead = 0
    for session, size, kind in (("s1", None, "message"), ("s2", 2000, "message"), ("s3", 2001, "stream")):
        count = 10 if size is None else size - overhead
        await client.send(type="chat", agentId="whole", sessionId=session, message=str(count))
        first = await client.next()
        overhead = overhead or len(orjson.dumps(first)) - 10
        assert first["type"] == kind
        await client.until_done()
    frames = [frame for frame in client.frames if frame["sessionId"] == "s3"]
    assert "".join(frame["content"] for frame in frames) == "x" * (2001 - overhead)
    assert max(len(orjson.dumps(frame)) for frame in frames) <= 2000


@obeys("json_depth", "object_keys", "max_integer")
@pytest.mark.parametrize(
    ("limit", "value", "fits", "past"),
    [
        ("json_depth", 5, {"pad": nested(4)}, {"pad": nested(5)}),
        ("json_depth", 1, {"pad": 1}, {"pad": []}),
        ("object_keys", 7, {str(n): n for n in range(6)}, {str(n): n for n in range(7)}),
        ("max_integer", 999, {"pad": [999, -999, 9999.5]}, {"pad": [1000]}),
        ("max_integer", 999, {"pad": -999}, {"pad": -1000}),
    ],
)
async def test_json_in_frames_and_bodies_has_limits(
    hub: Hub, limit: str, value: int, fits: dict[str, Any], past: dict[str, Any]
) -> None:
    """The error contains the limit."""
    await hub.start(**{limit: value})
    client = await hub.connect()
    await client.send(type="ping", **fits)
    await client.until_type("pong")
    await client.send(type="ping", **past)
    refused = await client.until_type("error")
    assert refused["code"] == "bad_frame" and str(value) in refused["message"]
    async with open_http(hub) as http:
        assert (await post(http, "sessions", {"sessionId": "s1"} | fits))[0] == 201
        status, reply = await post(http, "sessions", {"sessionId": "s2"} | past)
    assert (status, reply["code"]) == (400, "bad_frame")


PART = {"type": "image", "source": {"type": "url", "value": "https://example.org/a.png"}}
PARTS = """
from hub import Message

async def parts(message: str):
    yield Message("x", [{"type": "text", "text": "y"}] * int(message))
"""


@obeys("message_parts")
@pytest.mark.parametrize("most", [0, 1, 5])
async def test_a_message_has_a_limit_of_parts(hub: Hub, most: int) -> None:
    """The limit applies to user messages of all protocols and to messages of agents."""
    hub.agent("parts.py", PARTS)
    client = await begin(hub, message_parts=most)
    few, many = [PART] * most, [PART] * (most + 1)
    assert (await answer(client, "echo", "one", parts=few))["type"] == "run_finished"
    refused = [await chat(client, "echo", "two", parts=many)]
    message_id = next(f["messageId"] for f in client.frames if f["type"] == "user_message")
    edit = {"type": "edit", "sessionId": "s1", "messageId": message_id, "message": "x"}
    await client.send(**edit, parts=many)
    refused.append(await client.until_type("error"))
    assert {error["code"] for error in refused} == {"bad_frame"}
    assert all(f"more than {most} parts" in error["message"] for error in refused)
    async with open_http(hub) as http:
        assert (await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "x", "parts": many}))[0] == 400
        for parts, status in ((few or "x", 200), (many, 400)):
            body = run_request("x", f"r{status}", "t1")
            body["messages"][0]["content"] = parts
            async with http.post("agents/echo/agui", json=body) as response:
                assert response.status == status
    assert (await answer(client, "parts", str(most)))["type"] == "run_finished"
    assert (await answer(client, "parts", str(most + 1)))["code"] == "agent_bad_output"


@obeys("title_length")
async def test_a_title_has_a_length_limit(hub: Hub) -> None:
    """The limit counts characters, not bytes."""
    await begin(hub, title_length=9)
    async with open_http(hub) as http:
        assert (await call(http, "PATCH", "sessions/s1", {"title": "é" * 9}))[1]["title"] == "é" * 9
        status, reply = await call(http, "PATCH", "sessions/s1", {"title": "x" * 10})
    assert (status, reply["code"]) == (400, "bad_frame") and "at most 9 characters" in reply["error"]


@obeys("queued_runs")
async def test_the_queue_of_a_session_has_a_limit(hub: Hub) -> None:
    client = await begin(hub, queued_runs=3)
    gate = hub.folder / "gate"
    statuses = [(await chat(client, "gated", str(gate)))["status"] for _ in range(4)]
    assert statuses == ["started", "queued", "queued", "queued"]
    refused = await chat(client, "gated", str(gate))
    assert refused["code"] == "busy" and "full with 3 messages" in refused["message"]
    gate.touch()
    await eventually(lambda: hub.node.sessions[Key("s1")].is_idle)


MANY = """
import asyncio
import itertools

async def many(run):
    replies = [run.ask(str(number)) for number in range(int(run.message))]
    yield str(len(await asyncio.gather(*replies)))
"""


@obeys("open_questions")
@pytest.mark.parametrize("most", [0, 3])
async def test_an_answer_has_a_limit_of_open_questions(hub: Hub, most: int) -> None:
    """One more question ends the answer."""
    hub.agent("many.py", MANY)
    client = await begin(hub, open_questions=most)
    await chat(client, "many", str(most))
    for _ in range(most):
        question = await client.until_type("interrupt")
        await client.send(type="resume", sessionId="s1", interruptId=question["id"], status="resolved", payload=1)
    await client.until_done()
    assert client.text() == str(most)
    failed = await answer(client, "many", str(most + 1))
    assert failed["code"] == "too_many_questions" and f"more than {most} questions" in failed["message"]


DEEP = """
from hub import AgentError

async def deep(run):
    try:
        yield f"{run.message} " + await run.call("deep", str(int(run.message) + 1))
    except AgentError as error:
        yield f"{run.message} ({error.code})"
"""


@obeys("call_depth")
@pytest.mark.parametrize(("most", "text"), [(0, "0 (call_depth)"), (3, "0 1 2 3 (call_depth)")])
async def test_calls_between_agents_have_a_depth_limit(hub: Hub, most: int, text: str) -> None:
    """The limit applies with and without a session."""
    hub.agent("deep.py", DEEP)
    client = await begin(hub, call_depth=most)
    await answer(client, "deep", "0")
    assert client.text() == text
    async with open_http(hub) as http:
        assert f'"{text}"' in await complete(http, "deep", "0", False)


IN_THREADS = """
import asyncio, threading

async def threads(message: str):
    count, seconds = message.split()
    together = threading.Barrier(int(count), timeout=float(seconds))
    results = await asyncio.gather(*(asyncio.to_thread(together.wait) for _ in range(int(count))))
    yield f"{len(results)} at once"
"""


@obeys("agent_threads")
@pytest.mark.parametrize(("count", "reason"), [(2, "end_turn"), (3, "end_turn"), (4, "error")])
async def test_agents_have_a_limit_of_threads(process: HubProcess, count: int, reason: str) -> None:
    """One more call of asyncio.to_thread() waits for a free thread."""
    process.agent("threads.py", IN_THREADS)
    await process.start(limits_agent_threads=3)
    async with aiohttp.ClientSession() as http:
        client = Client(http, await http.ws_connect(f"{process.url}/api/v1/ws", protocols=("hubbub.v1",)))
        seconds = PATIENCE if reason == "end_turn" else 0.1
        await client.send(type="chat", agentId="threads", message=f"{count} {seconds}")
        assert (await client.until_type("run_finished"))["stopReason"] == reason


@obeys("chunk_bytes")
@pytest.mark.parametrize(("most", "text"), [(7, "x" * 50), (7, "é" * 20), (5, "x😀" * 9), (4, "😀" * 9)])
async def test_a_chunk_has_a_size_limit(hub: Hub, most: int, text: str) -> None:
    """The hub splits a longer text between two characters, and nothing is lost."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, chunk_bytes=most)
    await answer(client, "says", agent_input("text", text))
    lengths = [len(frame["content"].encode()) for frame in client.frames if frame["type"] == "stream"]
    assert client.text() == text and max(lengths) <= most and len(lengths) >= len(text.encode()) / most


@obeys("kept_page_bytes")
@pytest.mark.parametrize("most", [0, 7777])
async def test_the_page_cache_has_a_size_limit(hub: Hub, most: int) -> None:
    await hub.start(kept_page_bytes=most, page_bytes=777)
    await append_chunks(hub, ["x" * 300] * 20)
    for _ in range(2):
        late = await hub.connect("?sessionId=s1&afterSeq=0")
        while len(late.text()) < 6000:
            await late.next()
            assert hub.node.pages.size <= most
    assert bool(hub.node.pages.size) == bool(most)


LINES = """
import asyncio
import itertools

async def lines(message: str):
    for _ in range(256):
        yield "x" * 16_384
        await asyncio.sleep(0)
"""


@obeys("high_water_bytes", "stuck_seconds")
async def test_a_client_that_does_not_read_is_disconnected(hub: Hub) -> None:
    """The hub buffers at most the high-water mark and one page for this client, beside the kernel's buffers."""
    hub.agent("lines.py", LINES)
    await hub.start(high_water_bytes=12_345, page_bytes=23_456, stuck_seconds=0.7)
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=small_window))
    slow = Client(http, await http.ws_connect(f"{hub.url}/api/v1/ws?sessionId=s1", max_msg_size=0))
    hub.clients.append(slow)
    await eventually(lambda: len(hub.node.registry.connections) == 1)
    (connection,) = hub.node.registry.connections
    client = await hub.connect("?sessionId=s1")
    await client.send(type="chat", agentId="lines", sessionId="s1", message="x")
    most = 0
    while not (await client.next())["done"]:
        most = max(most, connection.transport.get_unsent_bytes())
    assert 0 < most <= 12_345 + 23_456 + 2 * 32 * KiB and connection.catchup.task_count
    await eventually(lambda: connection not in hub.node.registry.connections)
    assert await slow.wait_closed() in (None, 1006)


@obeys("ping_seconds", "pong_seconds")
@pytest.mark.parametrize("pong", [0.05, NEVER])
async def test_a_silent_client_gets_a_ping_and_is_disconnected(hub: Hub, pong: float) -> None:
    """It is not disconnected early: a client that connected later gets its ping first."""
    await hub.start(ping_seconds=0.07, pong_seconds=pong)
    silent = await hub.connect(extended=True, autoping=False)
    assert silent.frames[0]["heartbeatMs"] == 70
    async with asyncio.timeout(PATIENCE):
        assert (await silent.ws.receive()).type is aiohttp.WSMsgType.PING
    if pong != NEVER:
        assert await silent.wait_closed() == 1006
        return
    for _ in range(2):  # the second ping comes after the pong timeout of the first
        other = await hub.connect(autoping=False)
        async with asyncio.timeout(PATIENCE):
            assert (await other.ws.receive()).type is aiohttp.WSMsgType.PING
    assert len(hub.node.registry.connections) == 3


@pytest.fixture
async def slow_gate(hub: Hub) -> AsyncIterator[Path]:
    """Return the path of the file that slow commands wait for; the teardown creates the file."""
    hub.agent("deaf.py", GATE + DEAF)
    yield hub.folder / "gate"
    (hub.folder / "gate").touch()


async def send_slow_command(client: Client, gate: Path, session: str) -> None:
    """Send a command that waits until the gate exists: it stops an agent that ignores its cancellation."""
    accepted = await chat(client, "deaf", str(gate), session)
    await client.find(lambda frame: frame["type"] == "stream" and frame["runId"] == accepted["runId"])
    slow = {"agentId": "echo", "sessionId": session, "message": "x", "ifBusy": "rollback"}
    await client.send(type="chat", ref=f"slow {session}", **slow)


async def wait_for_pong_frame(client: Client) -> None:
    """Wait for the response to a ping control frame; the hub sends one even while commands wait."""
    await client.ws.ping()
    async with asyncio.timeout(PATIENCE):
        while (message := await client.ws.receive()).type is not aiohttp.WSMsgType.PONG:
            client.frames.append(message.json())


@obeys("command_queues")
async def test_a_limited_number_of_sessions_runs_commands_concurrently(hub: Hub, slow_gate: Path) -> None:
    """Commands for one more session, and all after them, wait until a session has none left."""
    await hub.start(command_queues=3, grace_seconds=NEVER)
    client = await hub.connect(extended=True, autoping=False)
    for session in ("s1", "s2"):
        await send_slow_command(client, slow_gate, session)
    assert (await chat(client, "echo", "third", "s3"))["type"] == "accepted"
    await send_slow_command(client, slow_gate, "s3")
    await client.send(type="ping", ref="read")
    await outcome(client, "read")
    await client.send(type="chat", agentId="echo", sessionId="s4", message="x", ref="fourth")
    await client.send(type="ping", ref="after it")
    await wait_for_pong_frame(client)
    assert not {"fourth", "after it"} & {frame.get("ref") for frame in client.frames}
    slow_gate.touch()
    for ref in ("slow s1", "slow s2", "slow s3", "fourth"):
        assert (await client.find(lambda frame: frame.get("ref") == ref))["type"] == "accepted"
    await client.find(lambda frame: frame.get("ref") == "after it")


@obeys("command_bytes")
@pytest.mark.parametrize(("size", "fitting"), [(200, 4), (2048, 2)])
async def test_waiting_commands_have_a_size_limit(hub: Hub, slow_gate: Path, size: int, fitting: int) -> None:
    """Each command counts as 1 KiB or more, the running one too. Past the limit the hub stops reading the socket."""
    await hub.start(command_bytes=5 * KiB, grace_seconds=NEVER)
    client = await hub.connect(extended=True, autoping=False)
    await send_slow_command(client, slow_gate, "s1")
    waiting = {"type": "chat", "agentId": "echo", "sessionId": "s1", "message": "x", "ifBusy": "parallel"}
    for number in range(fitting):
        await client.ws.send_str(padded(waiting | {"ref": number}, size))
    await client.send(type="ping", ref="read")
    assert (await outcome(client, "read"))["type"] == "pong"
    await client.send(**waiting, ref="over")
    await client.send(type="ping", ref="not read")
    await wait_for_pong_frame(client)
    assert not any(frame.get("ref") == "not read" for frame in client.frames)
    slow_gate.touch()
    await outcome(client, "not read")
    for ref in (*range(fitting), "over"):
        assert (await client.find(lambda frame: frame.get("ref") == ref))["type"] == "accepted"


@obeys("commands_per_second", "command_burst")
async def test_commands_have_a_rate_limit(hub: Hub) -> None:
    """A burst is accepted, then commands are refused; a client that continues is disconnected."""
    await hub.start(commands_per_second=3, command_burst=7)
    client = await hub.connect()
    for number in range(60):  # a hub that stalls for 15 s would accept all of them
        await client.send(type="ping", ref=number)
    assert await client.wait_closed() == 4004
    assert [frame["type"] for frame in client.frames[:7]] == ["pong"] * 7
    refused = next(frame for frame in client.frames if frame["type"] == "error")
    assert refused["code"] == "rate_limited" and 0 < refused["retryAfterMs"] <= 334
    assert "more than 3 commands per second" in refused["message"]
    assert sum(frame["type"] == "error" for frame in client.frames) >= 8


@obeys("bad_frames_per_minute")
async def test_bad_frames_have_a_rate_limit(hub: Hub) -> None:
    """One more frame gets its error, and closes the connection."""
    await hub.start(bad_frames_per_minute=3)
    client = await hub.connect()
    for _ in range(4):
        await client.send(type="dance")
    assert await client.wait_closed() == 4501
    assert [frame["code"] for frame in client.frames] == ["unknown_type"] * 4


@obeys("presence_members")
@pytest.mark.parametrize("most", [0, 3])
async def test_presence_names_a_limited_number_of_members(hub: Hub, most: int) -> None:
    """With more members, the notice contains only their number."""
    client = await begin(hub, presence_members=most, presence_seconds=0.01)
    for count in range(1, most + 2):
        notice = await client.find(lambda f: f["type"] == "presence" and f["count"] == count)
        assert len(notice.get("members") or ()) == (count if count <= most else 0)
        other = await hub.connect(extended=True)
        await other.send(type="subscribe", sessionId="s1")


@obeys("presence_seconds")
@pytest.mark.parametrize("seconds", [0.01, NEVER])
async def test_presence_is_sent_after_its_delay(hub: Hub, seconds: float) -> None:
    """It is not sent early: a chat is answered first."""
    client = await begin(hub, presence_seconds=seconds)
    if seconds == NEVER:
        await answer(client, "echo", "x")
        assert not any(frame["type"] == "presence" for frame in client.frames)
    else:
        await client.find(lambda f: f["type"] == "presence" and f["count"] == 1)


@obeys("body_seconds")
@pytest.mark.parametrize("seconds", [0.2, NEVER])
async def test_the_body_of_a_request_has_a_time_limit(hub: Hub, seconds: float) -> None:
    """Also if bytes come all the time. It is not refused early: another session is made first."""
    await hub.start(body_seconds=seconds)
    rest = asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b'{"sessionId": "s1"'
        while not rest.is_set():
            yield b" "
            await asyncio.sleep(0.01)
        yield b"}"

    async with open_http(hub) as http:
        pending = asyncio.create_task(http.post("sessions", data=slow_body()).__aenter__())
        try:
            if seconds == NEVER:
                assert (await post(http, "sessions", {"sessionId": "s2"}))[0] == 201 and not pending.done()
                rest.set()
            response = await pending
            code = (await response.json()).get("code")
            assert (response.status, code) == ((201, None) if seconds == NEVER else (408, "too_slow"))
        finally:
            rest.set()
            pending.cancel()


@obeys("upload_seconds")
@pytest.mark.parametrize("seconds", [0.2, NEVER])
async def test_an_upload_has_a_time_limit(hub: Hub, seconds: float) -> None:
    """The upload is not refused early: another file is stored first."""
    await hub.start(upload_seconds=seconds)
    rest = asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"one "
        await rest.wait()
        yield b"two"

    async with open_http(hub) as http:
        pending = asyncio.create_task(upload_slowly(http, slow_body()))
        try:
            if seconds == NEVER:
                assert (await upload(http, 9))[0] == 201 and not pending.done()
                rest.set()
            assert await pending == ((201, 7) if seconds == NEVER else (408, "too_slow"))
        finally:
            pending.cancel()


async def upload_slowly(http: aiohttp.ClientSession, data: AsyncIterator[bytes]) -> tuple[int, Any]:
    async with http.post("files?sessionId=s1", data=data, headers=TEXT) as response:
        reply = await response.json()
        return response.status, reply.get("size", reply.get("code"))


@obeys("run_seconds", "silence_seconds")
@pytest.mark.parametrize("limit", ["run_seconds", "silence_seconds"])
async def test_an_answer_has_a_time_limit(hub: Hub, limit: str) -> None:
    """Each of the two limits ends the answer alone."""
    client = await begin(hub, **dict[str, Any](run_seconds=NEVER, silence_seconds=NEVER) | {limit: 0.2})
    assert (await answer(client, "gated", str(hub.folder / "never")))["stopReason"] == "timeout"


@obeys("run_seconds", "silence_seconds")
async def test_an_answer_continues_within_its_time_limit(hub: Hub) -> None:
    """Another chat is answered during the first one."""
    gate = hub.folder / "gate"
    client = await begin(hub, run_seconds=NEVER, silence_seconds=NEVER)
    first = await chat(client, "gated", str(gate))
    await answer(client, "echo", "x", ifBusy="parallel")
    assert not any(f["type"] == "run_finished" and f["runId"] == first["runId"] for f in client.frames)
    gate.touch()
    end = await client.until(lambda f: f["type"] == "run_finished")
    assert (end["runId"], end["stopReason"]) == (first["runId"], "end_turn")


@obeys("agui_orphan_seconds")
@pytest.mark.parametrize(("seconds", "reason"), [(0, "cancelled"), (NEVER, None)])
async def test_an_answer_without_its_request_has_a_time_limit(hub: Hub, seconds: float, reason: str | None) -> None:
    client = await begin(hub, agui_orphan_seconds=seconds)
    gate = hub.folder / "gate"
    await agui_events(hub, "gated", run_request(str(gate), thread_id="s2"), most=3)
    await eventually(lambda: len(hub.node.registry.connections) == 1)
    await answer(client, "echo", "x")
    if reason is None:
        gate.touch()
    await eventually(lambda: hub.node.sessions.keys() == {"s1"})
    await client.send(type="subscribe", sessionId="s2", history=1)
    subscribed = await client.until_type("subscribed")
    assert subscribed["history"][-1].get("stopReason") == reason


@obeys("grace_seconds")
@pytest.mark.parametrize("seconds", [0.1, NEVER])
async def test_an_agent_that_ignores_its_cancellation_has_a_time_limit(hub: Hub, seconds: float) -> None:
    """The run is not ended early: another chat is answered first."""
    hub.agent("deaf.py", GATE + DEAF)
    gate = hub.folder / "gate"
    client = await begin(hub, grace_seconds=seconds)
    run_id = (await chat(client, "deaf", str(gate)))["runId"]
    await client.until_type("stream")
    await client.send(type="cancel", sessionId="s1")
    await client.until_type("cancelling")
    if seconds == NEVER:
        await answer(client, "echo", "x", "s2")
        assert not any(f["type"] == "run_finished" and f["runId"] == run_id for f in client.frames)
        gate.touch()
    end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run_id)
    assert end["stopReason"] == "cancelled"
    gate.touch()


@obeys("drain_seconds")
@pytest.mark.parametrize(("seconds", "reason"), [(0.123, "aborted"), (NEVER, "end_turn")])
async def test_a_shutdown_waits_a_limited_time_for_answers(hub: Hub, seconds: float, reason: str) -> None:
    """`draining` contains the time; after a very short time, running answers are aborted."""
    gate = hub.folder / "gate"
    client = await begin(hub, drain_seconds=seconds)
    run_id = (await chat(client, "gated", str(gate)))["runId"]
    await client.until_type("stream")
    hub.door.drain()
    finishing = asyncio.create_task(hub.door.finish(asyncio.Event()))
    assert (await client.until_type("draining"))["withinMs"] == int(seconds * 1000)
    if reason == "end_turn":
        await wait_for_pong(client)
        gate.touch()
    end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run_id)
    assert end["stopReason"] == reason
    async with asyncio.timeout(PATIENCE):
        await finishing


@obeys("close_seconds")
@pytest.mark.parametrize("seconds", [0.1, NEVER])
async def test_the_close_handshake_has_a_time_limit(hub: Hub, seconds: float) -> None:
    """The connection is not dropped early: another client gets a pong first."""
    await hub.start(close_seconds=seconds)
    sock = await asyncio.to_thread(open_websocket, hub.port, "/api/v1/ws")
    with sock:
        sock.sendall(client_frame(b"\xff"))  # not UTF-8: the hub closes with 1007
        assert (await asyncio.to_thread(sock.recv, 4))[:1] == b"\x88"
        if seconds == NEVER:
            await wait_for_pong(await hub.connect())
            assert len(hub.app[SOCKETS_KEY]) == 2
        else:
            await eventually(lambda: not hub.app[SOCKETS_KEY])
    await eventually(lambda: len(hub.app[SOCKETS_KEY]) == (seconds == NEVER))


@obeys("linger_bytes")
async def test_a_peer_that_never_stops_sending_is_cut_after_so_many_bytes(hub: Hub) -> None:
    """The buffers of the kernel take some more bytes, which the hub does not read."""
    await hub.start(linger_bytes=2 * MiB, linger_seconds=NEVER, close_seconds=0.1)
    assert 2 * MiB - 65536 <= await send_endless_frame(hub.port) < 32 * MiB
    await eventually(lambda: not hub.app[SOCKETS_KEY])


@obeys("linger_seconds")
async def test_a_peer_that_never_stops_sending_is_cut_after_so_long(hub: Hub) -> None:
    await hub.start(linger_bytes=1 << 50, linger_seconds=0.1, close_seconds=0.1)
    await send_endless_frame(hub.port)
    await eventually(lambda: not hub.app[SOCKETS_KEY])


@obeys("retry_seconds")
@pytest.mark.parametrize("seconds", [0.01, NEVER])
async def test_a_refused_append_is_tried_again_after_its_delay(hub: Hub, seconds: float) -> None:
    """It is not tried early: a chat in another session is answered first."""
    client = await begin(hub, retry_seconds=seconds)
    gate = hub.folder / "gate"
    await chat(client, "gated", str(gate))
    await client.until_type("stream")
    original_append, refused = hub.node.log.events.append, asyncio.Event()

    def refuse(append: Append, done: AppendCallback) -> None:
        hub.node.log.events.append = original_append  # type: ignore[method-assign]
        asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))
        refused.set()

    hub.node.log.events.append = refuse  # type: ignore[method-assign]
    gate.touch()
    await asyncio.wait_for(refused.wait(), PATIENCE)
    if seconds == NEVER:
        await answer(client, "echo", "x", "s2")
        assert client.text() == "one x "
        hub.node.sessions[Key("s1")].outbox._retry()
    await client.until(lambda f: f["type"] == "run_finished" and f["sessionId"] == "s1")
    assert client.text().replace("x ", "") == "one two"


# --- connections, and runs of all agents ------------------------------------------------------------------------------


@obeys("address_connections", "node_connections")
@pytest.mark.parametrize(("limit", "status"), [("address_connections", 429), ("node_connections", 503)])
async def test_a_connection_above_a_limit_is_refused_before_it_sends_anything(
    process: HubProcess, limit: str, status: int
) -> None:
    """The response has Retry-After; the connections before it are served."""
    await process.start(sign_in=True, **{f"limits_{limit}": 3})
    async with AsyncExitStack() as stack:
        connections = [await HttpConnection.open(process.port, stack) for _ in range(3)]
        assert [await connection.get_health() for connection in connections] == [200] * 3
        for _ in range(2):
            check_refusal(await (await HttpConnection.open(process.port, stack)).read_to_end(), status)
        assert await (await HttpConnection.open(process.port, stack)).get_health() == status
        assert [await connection.get_health() for connection in connections] == [200] * 3
    await eventually(lambda: "connection refused" in process.log)
    assert process.log.count("connection refused") == 1


def check_refusal(text: bytes, status: int) -> None:
    """Check the complete response to a connection that is refused."""
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), text
    assert b"\r\nRetry-After: " in head and b"\r\nConnection: close\r\n" in head
    assert head.endswith(f"\r\nContent-Length: {len(body)}".encode())
    assert json.loads(body)["code"] == "too_many_connections"


@obeys("new_connections_per_second")
async def test_new_connections_have_a_limit_per_second(process: HubProcess) -> None:
    """One of many connections that open at once is refused, although the earlier ones are closed."""
    await process.start(sign_in=True, limits_new_connections_per_second=4)
    assert await count_until_refused(process, ["127.0.0.1"], 429) >= 2  # an address has half of them
    if sys.platform == "linux":  # elsewhere only 127.0.0.1 is an address of this machine
        assert await count_until_refused(process, [f"127.0.0.{number}" for number in range(2, 250)], 503) >= 2


async def count_until_refused(process: HubProcess, addresses: Sequence[str], status: int) -> int:
    """Open connections from these addresses in turn until one is refused. Return how many were accepted."""
    async with AsyncExitStack() as stack:
        for number, address in enumerate(itertools.islice(itertools.cycle(addresses), 1000)):
            connection = await HttpConnection.open(process.port, stack, address)
            answer = await connection.get_health()
            connection.writer.transport.abort()
            if answer != 200:
                break
    assert answer == status
    return number


@obeys("node_runs")
async def test_all_agents_together_have_a_limit_of_answers(hub: Hub) -> None:
    """With sign-in only. See also tests/sessions/test_slots.py."""
    limits = Limits(node_runs=3)
    assert Node(settings=Settings(data=hub.folder, limits=limits)).slots.max_answers is None
    slots = Node(settings=Settings(data=hub.folder, limits=limits, sign_in=True)).slots
    client = await begin(hub)
    hub.node.slots.max_answers = slots.max_answers
    answers = [await chat(client, "gated", str(hub.folder / "gate"), f"s{number}") for number in range(4)]
    assert [answer.get("status", answer.get("code")) for answer in answers] == ["started"] * 3 + ["busy"]


# --- API documents and settings ---------------------------------------------------------------------------------------


def bounds(document: dict[str, Any], name: str, keyword: str) -> set[int]:
    """Return the values of *keyword* in all schemas of fields or parameters called *name*."""
    values: set[int] = set()
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            schema = value["schema"] if value.get("name") == name and "schema" in value else None
            properties = value.get("properties")
            schema = properties[name] if isinstance(properties, dict) and name in properties else schema
            if isinstance(schema, dict):
                choices = (schema, *schema.get("anyOf", ()))
                values |= {choice[keyword] for choice in choices if keyword in choice}
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return values


async def test_the_api_documents_contain_the_limits_of_the_hub(hub: Hub) -> None:
    """The schemas have the limits as their maxima."""
    await hub.start(message_parts=5, title_length=9, list_size=7, file_name_length=11)
    async with aiohttp.ClientSession(hub.url) as http:
        (_, openapi), (_, asyncapi) = await get(http, "/openapi.json"), await get(http, "/asyncapi.json")
    assert bounds(openapi, "parts", "maxItems") == bounds(asyncapi, "parts", "maxItems") == {5}
    assert bounds(openapi, "title", "maxLength") == {9}
    assert bounds(openapi, "limit", "maximum") == {7}
    assert bounds(openapi, "name", "maxLength") == {11}
    assert bounds(openapi, "limit", "default") == set()


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    try:
        yield running
    finally:
        await running.kill()


async def test_the_hub_obeys_a_limit_of_the_file(process: HubProcess) -> None:
    """`[limits]` in hubbub.toml sets limits; the environment overrides the file."""
    (process.folder / "hubbub.toml").write_text("[limits]\ntitle_length = 9\nlist_size = 7\n")
    await process.start(limits_list_size=8)
    async with aiohttp.ClientSession(process.url) as http:
        _, openapi = await get(http, "/openapi.json")
        await post(http, "/api/v1/sessions", {"sessionId": "s1"})
        assert (await call(http, "PATCH", "/api/v1/sessions/s1", {"title": "x" * 10}))[0] == 400
        assert (await call(http, "PATCH", "/api/v1/sessions/s1", {"title": "x" * 9}))[0] == 200
        assert (await get(http, "/api/v1/sessions?limit=9"))[0] == 400
        assert (await get(http, "/api/v1/sessions?limit=8"))[0] == 200
    assert bounds(openapi, "title", "maxLength") == {9} and bounds(openapi, "limit", "maximum") == {8}


@obeys("header_seconds")
async def test_the_hub_obeys_a_limit_of_the_environment(process: HubProcess) -> None:
    """HUBBUB_LIMITS_HEADER_SECONDS disconnects a client that sends half a header, but no WebSocket."""
    # On a busy machine, the client of the WebSocket needs a moment for its header, too.
    await process.start(limits_header_seconds=2, limits_frame_bytes=1237)
    async with aiohttp.ClientSession() as http:
        client = Client(http, await http.ws_connect(f"{process.url}/api/v1/ws", protocols=("hubbub.v1",)))
        assert (await client.next())["limits"]["frameBytes"] == 1237
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localh")
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
        await wait_for_pong(client)


@obeys("auth_seconds")
async def test_a_client_that_does_not_sign_in_is_closed_with_4502(tmp_path: Path) -> None:
    hub = await Hub(tmp_path, options={"sign_in": True}).start(auth_seconds=0.2)
    client = await hub.connect()
    assert await client.wait_closed() == 4502
    await hub.stop()


@obeys("auth_frame_bytes")
async def test_a_long_frame_before_the_sign_in_closes_the_socket_with_1009(tmp_path: Path) -> None:
    """At `auth_frame_bytes` the frame is read, past it the socket is closed."""
    hub = await Hub(tmp_path, options={"sign_in": True}).start(auth_frame_bytes=1237)
    for size, code in ((1237, None), (1238, 1009)):
        client = await hub.connect()
        await client.ws.send_str(padded({"type": "ping"}, size))
        assert (await client.next())["code"] == ("unauthenticated" if code is None else "too_large")
        if code is not None:
            assert await client.wait_closed() == code
    await hub.stop()


@obeys("principal_connections")
async def test_a_principal_has_a_limited_number_of_connections(tmp_path: Path) -> None:
    """The next one gets 429 with Retry-After, or close code 4504 after its `auth`. A closed one makes room."""
    hub = await Hub(tmp_path, options={"sign_in": True}).start(principal_connections=2)
    key = await hub.key("ann")
    first, _ = await hub.connect(headers=bearer(key)), await hub.connect(headers=bearer(key))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await hub.connect(headers=bearer(key))
    assert refusal.value.status == 429 and refusal.value.headers is not None and refusal.value.headers["Retry-After"]
    third = await hub.connect()
    await third.send(type="auth", token=key)
    assert await third.wait_closed() == 4504
    await hub.connect(headers=bearer(await hub.key("bob")))
    await first.close()
    await eventually(lambda: len(hub.door.clients.by_connection) == 2)
    await hub.connect(headers=bearer(key))
    await hub.stop()


@obeys("audit_entries")
async def test_the_audit_has_a_limit(tmp_path: Path) -> None:
    """The oldest entries are deleted."""
    hub = await Hub(tmp_path, options={"sign_in": True}).start(audit_entries=3)
    for name in "abcde":
        await hub.key(name)
    for _ in range(2):
        await hub.door.audit.save()
        entries = await hub.node.log.access.list_audit(None, 100)
        assert [entry.action for entry in entries] == ["create_key"] * 3
        ids = [record.id for record in await hub.node.log.access.list_principals()]
        assert [entry.target for entry in entries] == ids[-3:]
        await hub.key("f")
    await hub.stop()


def test_every_limit_has_a_test() -> None:
    """A new limit needs a test here, and each name in a test is a limit."""
    assert TESTED == {field.name for field in attrs.fields(Limits)}
