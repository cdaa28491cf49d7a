"""Every limit is obeyed at an odd value, which no constant in the code happens to have.

A test names the limits that it sees obeyed; the last test in this file fails for a limit that no test names.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import attrs
import pytest
from support.agui import asked
from support.hub import Client, Hub
from support.sse import call, get, post
from support.waiting import PATIENCE, eventually

from hub.cli.records import write_session
from hub.limits import KiB, Limits, MiB, size_text
from hub.messages import Chunk, Event
from hub.settings import ConfigError, load
from hub.storage.log import Done
from hub.storage.records import Append

NEVER = 1e6  # seconds: longer than any test
LEAST = 4 * KiB  # what a file counts at least
TEXT = {"Content-Type": "text/plain"}
Test = TypeVar("Test", bound=Callable[..., Any])
TESTED: set[str] = set()


def obeys(*limits: str) -> Callable[[Test], Test]:
    """Note which limits a test sees obeyed."""
    TESTED.update(limits)
    return lambda test: test


@asynccontextmanager
async def over_http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=timeout) as http:
        yield http


def padded(frame: dict[str, Any], size: int) -> str:
    """Return a frame or a body as JSON of exactly *size* bytes."""
    text = json.dumps(frame | {"pad": ""})
    return text[:-2] + "x" * (size - len(text)) + text[-2:]


def sized(size: int) -> dict[str, str]:
    """Return an object that has *size* bytes as the hub writes JSON."""
    return {"a": "x" * (size - len('{"a":""}'))}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def begin(hub: Hub, session: str = "s1", **limits: Any) -> Client:
    """Start a hub, and return a client that hears a session of it."""
    await hub.start(**limits)
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId=session)
    await client.until_type("subscribed")
    return client


async def outcome(client: Client, ref: str) -> dict[str, Any]:
    """Return the answer to the command of that ref, or the error."""
    return await client.until(lambda frame: frame.get("ref") == ref)


async def chat(client: Client, agent: str, message: str, session: str = "s1", **more: Any) -> dict[str, Any]:
    """Say something; return what became of it: `accepted`, or an error."""
    ref = f"{agent} {message}"[:30]
    await client.send(type="chat", agentId=agent, sessionId=session, message=message, ref=ref, **more)
    return await outcome(client, ref)


async def answer(client: Client, agent: str, message: str, session: str = "s1", **more: Any) -> dict[str, Any]:
    """Say something and hear the whole answer; return how it ended: an error of the run, or its end."""
    accepted = await chat(client, agent, message, session, **more)
    assert accepted["type"] == "accepted", accepted
    run_id = accepted["runId"]
    end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run_id)
    return next((f for f in client.frames if f["type"] == "run_error" and f["runId"] == run_id), end)


async def after_a_pong(client: Client) -> None:
    """Let the hub answer something that comes later."""
    await client.send(type="ping")
    await client.until_type("pong")


async def put(hub: Hub, texts: list[str], session: str = "s1") -> None:
    """Add chunks of one message to a session's log."""
    await hub.node.log.load(session)
    entries = [Event("main", "r1", Chunk("m1", text, 0)) for text in texts]
    kept: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    hub.node.log.append(Append(session, entries), kept.set_result)
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await kept, int)


async def upload(http: aiohttp.ClientSession, size: int, query: str = "sessionId=s1") -> tuple[int, dict[str, Any]]:
    async with http.post(f"files?{query}", data=b"x" * size, headers=TEXT) as response:
        return response.status, await response.json()


# Yields what a JSON text says: pieces of text, whole messages, events, and so often.
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


def saying(kind: str, text: str, count: int = 1) -> str:
    return json.dumps([kind, text, count])


# Agents that say "one ", and go on when the file that the message names is there.
GATE = """
import asyncio, pathlib
from hub import Message

async def opened(message):
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
"""
# Notes how many pieces were taken of it.
EAGER = """
async def eager(message: str):
    yield "one "
    await opened(message)
    for number in range(20):
        pathlib.Path(message).write_text(str(number))
        yield KIND("x" * 100)
    pathlib.Path(message).write_text("20")
"""
# Ignores that it is cancelled.
DEAF = """
async def deaf(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        try:
            await opened(message)
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
def test_a_size_is_said_exactly(size: int, text: str) -> None:
    """In the largest unit of which it is a whole number."""
    assert size_text(size) == text


ROUTES_OF_BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("body_bytes", "sessions", {"sessionId": "s1"}),
    ("chat_bytes", "sessions/s1/chat", {"agentId": "echo", "message": "hello"}),
    ("conversation_bytes", "chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "x"}]}),
    ("conversation_bytes", "agents/echo/agui", asked("hello")),
]


@obeys("body_bytes", "chat_bytes", "conversation_bytes")
@pytest.mark.parametrize(("limit", "path", "body"), ROUTES_OF_BODIES, ids=[path for _, path, _ in ROUTES_OF_BODIES])
async def test_a_body_has_its_routes_own_limit(hub: Hub, limit: str, path: str, body: dict[str, Any]) -> None:
    """The others are small; the answer to one that is too large says the exact number."""
    others = {name: 7 for name, _, _ in ROUTES_OF_BODIES}
    await hub.start(**others | {limit: 1237})
    async with over_http(hub) as http:
        for size in (1236, 1237, 1238):
            async with http.post(path, data=padded(body, size)) as response:
                assert (response.status == 413) == (size > 1237)
                said = await response.text()
        assert "too_large" in said and "1237 bytes" in said


@obeys("metadata_bytes")
async def test_metadata_has_a_limit(hub: Hub) -> None:
    """Of a message, and of a session; an error says the exact number."""
    client = await begin(hub, metadata_bytes=777)
    assert (await chat(client, "echo", "x", metadata=sized(777)))["type"] == "accepted"
    refused = await chat(client, "echo", "y", metadata=sized(778))
    assert refused["code"] == "bad_frame" and "larger than 777 bytes" in refused["message"]
    async with over_http(hub) as http:
        assert (await call(http, "PATCH", "sessions/s1", {"metadata": sized(777)}))[0] == 200
        status, said = await call(http, "PATCH", "sessions/s1", {"metadata": sized(778)})
    assert (status, said["code"]) == (413, "too_large") and "at most 777 bytes" in said["error"]


@obeys("reply_bytes")
async def test_a_reply_has_a_limit(hub: Hub) -> None:
    """A question whose answer was too large stays open."""
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
async def test_an_event_that_is_no_text_has_a_limit(hub: Hub) -> None:
    hub.agent("says.py", SAYS)
    client = await begin(hub, content_bytes=777)
    room = 777 - len('{"name":"n","value":""}')
    assert (await answer(client, "says", saying("custom", "x" * room)))["type"] == "run_finished"
    failed = await answer(client, "says", saying("custom", "x" * (room + 1)))
    assert failed["code"] == "answer_too_long" and "more than 777 bytes" in failed["message"]


@obeys("run_bytes")
@pytest.mark.parametrize("kind", ["text", "message"])
async def test_an_answer_has_a_limit(hub: Hub, kind: str) -> None:
    """All its pieces together, in bytes of UTF-8."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, run_bytes=778)
    assert (await answer(client, "says", saying(kind, "é", 389)))["type"] == "run_finished"
    failed = await answer(client, "says", saying(kind, "é", 390))
    assert failed["code"] == "answer_too_long" and "more than 778 bytes" in failed["message"]


@obeys("file_bytes")
async def test_a_file_has_a_limit(hub: Hub) -> None:
    """Also one that the hub makes of a tool's result."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, file_bytes=1237, result_bytes=99)
    async with over_http(hub) as http:
        assert (await upload(http, 1237))[0] == 201
        status, said = await upload(http, 1238)
    assert (status, said["code"]) == (413, "file_too_large") and "at most 1237 bytes" in said["error"]
    assert (await answer(client, "says", saying("result", "x" * 1237)))["type"] == "run_finished"
    failed = await answer(client, "says", saying("result", "x" * 1238))
    assert failed["code"] == "answer_too_long" and "more than 1237 bytes" in failed["message"]


@obeys("session_files_bytes", "files_bytes")
@pytest.mark.parametrize(("limit", "other"), [("session_files_bytes", "s1"), ("files_bytes", "s2")])
async def test_files_have_a_limit_together(hub: Hub, limit: str, other: str) -> None:
    """Those of a session, and those of all; each counts a block at least."""
    await hub.start(**{limit: 3 * LEAST + 1})
    async with over_http(hub) as http:
        assert (await upload(http, 2 * LEAST))[0] == 201
        status, said = await upload(http, LEAST + 2, f"sessionId={other}")
        assert (status, said["code"]) == (413, "quota_exceeded") and "at most 12289 bytes" in said["error"]
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
async def test_a_fork_copies_the_newest_messages(hub: Hub, limit: dict[str, int], copied: list[str]) -> None:
    client = await begin(hub, **limit)
    for text in ("abc", "def"):
        end = await answer(client, "echo", text)
    await client.send(type="fork", sessionId="s1", messageId=end["messageId"], newSessionId="f1")
    await client.until_type("subscribed")
    assert [message["content"] for message in await hub.node.history("f1", 9)] == copied


@obeys("fork_bytes")
async def test_a_fork_of_one_message_that_is_too_large_is_refused(hub: Hub) -> None:
    client = await begin(hub, fork_bytes=3)
    end = await answer(client, "echo", "abc")
    await client.send(type="fork", sessionId="s1", messageId=end["messageId"])
    refused = await client.until_type("error")
    assert refused["code"] == "wrong_message" and "the 3 bytes that a fork may copy" in refused["message"]


@obeys("frame_bytes", "json_depth")
def test_a_limit_that_cannot_be_obeyed_is_no_limit(tmp_path: Path) -> None:
    """aiohttp counts frames in 32 bits, and the log cannot write what is too deep."""
    for name, most in (("FRAME_BYTES", 2**31), ("JSON_DEPTH", 128)):
        variable = f"HUBBUB_LIMITS_{name}"
        assert getattr(load({}, {variable: str(most)}, tmp_path).limits, name.lower()) == most
        with pytest.raises(ConfigError, match=f"{variable} in the environment must be a whole number from 1 to {most}"):
            load({}, {variable: str(most + 1)}, tmp_path)


def largest(field: "attrs.Attribute[Any]") -> float:
    """Return the largest value that a limit may be set to."""
    (meta,) = field.type.__metadata__  # type: ignore[union-attr]
    return float(meta.le) if field.name.endswith("_seconds") else int(meta.le)


async def test_a_hub_works_with_every_limit_at_its_largest(hub: Hub) -> None:
    """Whatever is asked of it; what is nested so deep is kept, too."""
    hub.agent("asks.py", "async def asks(run):\n    yield str((await run.ask(str(len(run.history)))).payload)")
    client = await begin(hub, **{field.name: largest(field) for field in attrs.fields(Limits)})
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
    async with over_http(hub) as http:
        assert (await upload(http, 9))[0] == 201
        assert (await get(http, f"sessions/s1/messages?size={10**6}"))[1]["total"] == 2
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
async def test_a_page_has_so_many_events(hub: Hub, limits: dict[str, int], lengths: list[int]) -> None:
    """Of a catch-up, of which the first may be shorter and never longer, and over HTTP."""
    await hub.start(**limits)
    await put(hub, ["x"] * 17)
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    while len(late.text()) < 17:
        await late.next()
    assert [len(frame["content"]) for frame in late.frames] == lengths
    async with over_http(hub) as http:
        _, page = await get(http, "sessions/s1/events")
    assert len(page["data"]) == limits["page_rows"]


@obeys("page_bytes")
@pytest.mark.parametrize("text", ["x" * 100, "é" * 50], ids=["ascii", "two-bytes"])
async def test_a_page_and_a_merged_chunk_have_so_many_bytes(hub: Hub, text: str) -> None:
    """A page ends with the event that passes the limit; what is joined of it does not pass it."""
    await hub.start(page_bytes=777)
    await put(hub, [text] * 20)
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    while len(late.text()) < 20 * len(text):
        await late.next()
    lengths = [len(frame["content"].encode()) for frame in late.frames]
    assert lengths == [700, 100, 700, 100, 400]
    async with over_http(hub) as http:
        _, page = await get(http, "sessions/s1/events")
    assert len(page["data"]) == 8


@obeys("pending_bytes")
@pytest.mark.parametrize("kind", ["str", "Message"])
async def test_an_agent_waits_for_a_log_that_is_slower(hub: Hub, kind: str) -> None:
    """With the piece that passes the limit, be it text or a whole message; nothing is lost."""
    gate = hub.folder / "gate"
    hub.agent("eager.py", GATE + EAGER.replace("KIND", kind))
    client = await begin(hub, pending_bytes=777)
    await chat(client, "eager", str(gate))
    await client.until_type("stream")
    held: list[tuple[Append, Done]] = []
    let_through = hub.node.log.append
    hub.node.log.append = lambda *given: held.append(given)  # type: ignore[method-assign]
    gate.touch()
    await eventually(lambda: gate.read_text() == "7")
    await after_a_pong(client)
    assert gate.read_text() == "7"  # the eighth piece of 100 bytes has passed 777
    hub.node.log.append = let_through  # type: ignore[method-assign]
    for given in held:
        let_through(*given)
    await client.until_done()
    assert client.text() == "one " + "x" * 2000 and gate.read_text() == "20"


@obeys("result_bytes", "result_start_bytes", "file_name_length")
@pytest.mark.parametrize("start", [0, 77, 5000])
async def test_a_large_result_of_a_tool_is_kept_as_a_file(hub: Hub, start: int) -> None:
    """Its event has so many bytes of it, and never more than a result may have; its name fits, too."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, result_bytes=777, result_start_bytes=start, file_name_length=7)
    await answer(client, "says", saying("result", "é" * 388 + "x"))
    whole = await client.find(lambda frame: frame["type"] == "tool_call_result")
    assert whole["content"] == "é" * 388 + "x" and "fileId" not in whole
    client.frames.clear()
    assert (await answer(client, "says", saying("result", "é" * 389)))["type"] == "run_finished"
    cut = await client.find(lambda frame: frame["type"] == "tool_call_result")
    assert cut["content"] == "é" * (min(start, 777) // 2) and cut["size"] == 778
    async with over_http(hub) as http, http.get(f"files/{cut['fileId']}") as response:
        assert await response.text() == "é" * 389
        assert 'filename="tool-re"' in response.headers["Content-Disposition"]


@obeys("content_bytes", "result_bytes")
async def test_a_result_of_a_tool_has_a_limit_of_its_own(hub: Hub) -> None:
    """It may be larger than another event."""
    hub.agent("says.py", SAYS)
    client = await begin(hub, content_bytes=77, result_bytes=777)
    assert (await answer(client, "says", saying("result", "x" * 777)))["type"] == "run_finished"
    assert (await answer(client, "says", saying("custom", "x" * 77)))["code"] == "answer_too_long"


async def complete(http: aiohttp.ClientSession, agent: str, message: str, stream: bool) -> str:
    """Ask without a session; return the status and all that is answered."""
    body = {"model": agent, "messages": [{"role": "user", "content": message}], "stream": stream}
    async with http.post("chat/completions", json=body) as response:
        return f"{response.status} {await response.text()}"


@obeys("run_bytes")
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_a_session_has_the_same_limit(hub: Hub, stream: bool) -> None:
    """In bytes, streamed or not."""
    hub.agent("says.py", SAYS)
    await hub.start(run_bytes=778)
    async with over_http(hub) as http:
        said = await complete(http, "says", saying("text", "é", 389), stream)
        assert said.startswith("200 ") and "answer_too_long" not in said
        said = await complete(http, "says", saying("text", "é", 390), stream)
        assert "answer_too_long" in said and "more than 778 bytes" in said


@obeys("run_seconds", "silence_seconds")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", ["run_seconds", "silence_seconds"])
async def test_an_answer_without_a_session_ends_in_time(hub: Hub, limit: str, stream: bool) -> None:
    await hub.start(**{"run_seconds": NEVER, "silence_seconds": NEVER, limit: 0.2})
    async with over_http(hub) as http:
        said = await complete(http, "gated", str(hub.folder / "never"), stream)
    assert '"code":"timeout"' in said.replace(" ", "")


# Never ends, and notes that it was stopped.
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
    """Return a socket that takes little while nobody reads it."""
    sock = socket.socket(address[0], address[1])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    return sock


@obeys("stuck_seconds")
async def test_a_client_that_reads_nothing_of_a_completion_is_cut_off(hub: Hub) -> None:
    """Its agent is stopped."""
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
async def test_a_connection_hears_so_many_sessions(hub: Hub) -> None:
    """Those that it hears for an agent's group do not count, but where it subscribes to one of them."""
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
async def test_without_a_queue_a_chat_goes_at_once_or_not_at_all(hub: Hub) -> None:
    """Whatever it says of a busy session."""
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
async def test_a_page_of_a_list_has_a_limit(hub: Hub, path: str) -> None:
    """Who names no size gets as many as there may be."""
    client = await begin(hub, list_size=7)
    for number in range(8):
        await answer(client, "echo", "x", f"s{number % 2 + 1}" if "messages" in path else f"t{number}")
    async with over_http(hub) as http:
        status, page = await get(http, f"{path}?size=7")
        assert (status, page["size"], len(page["data"])) == (200, 7, 7)
        assert (await get(http, path)) == (200, page)
        status, said = await get(http, f"{path}?size=8")
    assert (status, said["code"]) == (400, "bad_query") and "<= 7" in said["error"]


@obeys("file_name_length")
async def test_the_name_of_a_file_has_a_limit(hub: Hub) -> None:
    """One that is given; the hub's own is cut."""
    await hub.start(file_name_length=3)
    async with over_http(hub) as http:
        assert (await upload(http, 1, "sessionId=s1&name=xyz"))[0] == 201
        status, said = await upload(http, 1, "sessionId=s1&name=four")
        assert (status, said["code"]) == (400, "bad_query") and "1 to 3 characters" in said["error"]
        assert (await upload(http, 1))[1]["name"] == "fil"


@obeys("taken_messages")
async def test_so_many_messages_are_taken_back_at_once(hub: Hub) -> None:
    """The message that is answered anew is none of them."""
    client = await begin(hub, taken_messages=3)
    for text in ("one", "two"):
        await answer(client, "echo", text)
    message_id = next(f["messageId"] for f in client.frames if f["type"] == "user_message")
    place = {"sessionId": "s1", "messageId": message_id, "message": "x"}
    await client.send(type="edit", **place)
    refused = await client.until_type("error")
    assert refused["code"] == "wrong_message" and "more than 3 messages" in refused["message"]
    for kind, removed in (("regenerate", 3), ("edit", 2)):
        await client.send(type=kind, **place)
        assert len((await client.until_type("message_removed"))["messageIds"]) == removed
        await client.until_done()


async def test_a_session_is_exported_by_pages_of_any_size(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal asks for no more than the hub gives."""
    client = await begin(hub, list_size=3)
    for number in range(4):
        await answer(client, "echo", str(number))
    assert await write_session(hub.url, "s1", "json") == 0
    said = [message["content"] for message in json.loads(capsys.readouterr().out)]
    assert said == [text for number in range(4) for text in (str(number), f"{number} ")]


REMEMBERS = """
async def remembers(run):
    yield "/".join(past.content for past in run.history) or "nothing"
"""
# Waits for a file, and says nothing.
WAITS = """
import asyncio, pathlib

async def waits(message: str):
    while not (pathlib.Path(__file__).parents[1] / "gate").exists():
        await asyncio.sleep(0.01)
    yield ""
"""


@obeys("history_messages", "history_bytes")
@pytest.mark.parametrize(
    ("limit", "told", "known"),
    [
        ({"history_messages": 3}, ["a ", "bc", "bc "], "bc/bc /w"),
        ({"history_messages": 0}, [], "nothing"),
        ({"history_bytes": 8}, ["a", "a ", "bc", "bc "], "a /bc/bc /w"),
        ({"history_bytes": 7}, ["a ", "bc", "bc "], "bc/bc /w"),
        ({"history_bytes": 1}, [], "w"),
    ],
)
async def test_a_history_has_a_limit(hub: Hub, limit: dict[str, int], told: list[str], known: str) -> None:
    """For a client, and for an agent, to whom no message counts that waits or that it is answering."""
    hub.agent("remembers.py", REMEMBERS)
    hub.agent("waits.py", WAITS)
    client = await begin(hub, **limit)
    for text in ("a", "bc"):
        await answer(client, "echo", text)
    await client.send(type="subscribe", sessionId="s1", history=9)
    assert [message["content"] for message in (await client.until_type("subscribed"))["history"]] == told
    late = await hub.connect("?sessionId=s1&afterSeq=99", extended=True)
    assert [message["content"] for message in (await late.until_type("reset"))["messages"]] == told
    await chat(client, "waits", "w")
    queued = [await chat(client, "remembers", letter * 50, ifBusy="enqueue") for letter in "xy"]
    (hub.folder / "gate").touch()
    await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == queued[0]["runId"])
    assert client.text(queued[0]["runId"]) == known
