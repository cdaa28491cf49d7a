"""The JavaScript client, in Node.js behind a network that breaks, and in a browser."""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web
from playwright.async_api import Browser
from playwright.async_api import Error as PlaywrightError
from support.browser import Tab, needs_browser, serve_other_origin
from support.documents import ROOT, of_kind
from support.hub import Hub
from support.node import NODE_FOLDER, install_packages, needs_node, run_code, run_node
from support.proxy import Fate, Proxy
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.web.pages.javascript_client import CLIENT_FILES, CLIENT_FOLDER

# Characters of several bytes and of two UTF-16 units: an offset counts code points.
TELLER = '''
"""Answer each message with the same story, in many small pieces."""
import asyncio

STORY = [f"{number} \\N{GRINNING FACE}\\N{LATIN SMALL LETTER E WITH ACUTE} " for number in range(200)]

async def teller(message: str):
    for piece in STORY:
        yield piece
        await asyncio.sleep(0.002)
'''
STORY = "".join(f"{number} \N{GRINNING FACE}\N{LATIN SMALL LETTER E WITH ACUTE} " for number in range(200))


@attrs.define(eq=False)
class Driver:
    """A Node.js program that controls the client by commands; `lines` are all its results."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = attrs.Factory(list)

    @classmethod
    async def start(cls) -> "Driver":
        await install_packages()
        pipe = subprocess.PIPE
        arguments = ("node", str(NODE_FOLDER / "driver.mjs"))
        limit = 1 << 24
        return cls(await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, limit=limit))

    def do(self, command: str, /, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": command, **fields}).encode() + b"\n")

    async def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self.process.stdout.readline()
        assert line, f"the driver has ended, after {self.lines[-5:]}"
        self.lines.append(json.loads(line))
        return self.lines[-1]

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return the first line with these fields, of all lines or of the next ones."""
        wanted = {"kind": kind, **fields}.items()
        for line in self.lines:
            if wanted <= line.items():
                return line
        while not wanted <= (line := await self.next()).items():
            pass
        return line

    def events(self, session_id: str = "s1") -> list[dict[str, Any]]:
        return [line["event"] for line in self.lines if line["kind"] == "event" and line["sessionId"] == session_id]

    def text(self, session_id: str = "s1") -> str:
        return "".join(event["content"] for event in self.events(session_id) if event["type"] == "stream")

    def count(self, kind: str, **fields: Any) -> int:
        return sum({"kind": kind, **fields}.items() <= line.items() for line in self.lines)

    async def close(self) -> None:
        """Close the client. Then nothing keeps the program alive: it ends."""
        self.do("close")
        await self.until("closed")
        async with asyncio.timeout(PATIENCE):
            assert await self.process.wait() == 0


@attrs.define(eq=False)
class Network:
    """A hub, a proxy in front of it that can cut connections, and the driver of a client that connects to the proxy.

    The hub may have another port after a restart.
    """

    hub: Hub
    proxy: Proxy
    driver: Driver
    is_down: bool = False

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.proxy.port}/api/v1/ws"

    def target(self) -> tuple[str, int]:
        return "127.0.0.1", 1 if self.is_down else self.hub.port

    def cut(self) -> None:
        for link in self.proxy.links:
            link.reset()

    async def lose(self) -> None:
        """Cut all connections, and refuse new ones until `is_down` is set back."""
        self.is_down = True
        self.cut()
        await self.driver.until("state", state="waiting")


@pytest.fixture
async def network(hub: Hub) -> AsyncIterator[Network]:
    hub.agent("teller.py", TELLER)
    network = Network(hub, None, None)  # type: ignore[arg-type]
    network.proxy = await Proxy(network.target).start()
    network.driver = await Driver.start()
    try:
        yield network
    finally:
        if network.driver.process.returncode is None:
            network.driver.process.kill()
            await network.driver.process.wait()
        await network.proxy.stop()


async def begin(network: Network, agent: str = "teller", **session: Any) -> Driver:
    driver = network.driver
    driver.do("connect", url=network.url)
    driver.do("session", sessionId="s1", agent=agent, **session)
    return driver


def assert_complete(driver: Driver, session_id: str = "s1", start: int = 1) -> None:
    """Assert that the events of the session came once, in order, and without a gap."""
    seqs, lengths = [event["seq"] for event in driver.events(session_id)], dict[str, int]()
    assert seqs == sorted(set(seqs)) and seqs[0] == start
    for event, before in zip(driver.events(session_id), [start - 1, *seqs]):
        if event["type"] == "stream":  # the hub joins only these
            assert event["offset"] == lengths.get(event["messageId"], 0)
            lengths[event["messageId"]] = event["offset"] + len(event["content"])
        else:
            assert event["seq"] == before + 1


# --- one chat ---------------------------------------------------------------------------------------------------------


@needs_node
async def test_a_chat_is_answered(network: Network) -> None:
    """Its events come to the session and to the chat, from the start of its run to the end."""
    await network.hub.start()
    driver = await begin(network, "echo")
    driver.do("chat", id=1, sessionId="s1", message="hello there")
    assert (await driver.until("chat-end", id=1))["text"] == "hello there "
    assert_complete(driver)
    chat_events = [line["event"] for line in driver.lines if line["kind"] == "chat-event"]
    assert chat_events == driver.events()[1:] and chat_events[-1]["type"] == "run_finished"
    driver.do("ask", id="two", sessionId="s1", message="again")
    assert (await driver.until("answer", id="two"))["text"] == "again "
    await driver.close()
    assert [line["state"] for line in driver.lines if line["kind"] == "state"] == ["connecting", "live", "closed"]


@needs_node
async def test_complete_messages_are_not_joined(network: Network) -> None:
    """With `stream=false`, the first of two messages has no seq, the second has one."""
    code = "async def two(message):\n    yield 'one'\n    yield Message('two')"
    network.hub.agent("two.py", f"from hub import Message\n\n{code}")
    await network.hub.start()
    network.driver.do("connect", url=f"{network.url}?stream=false")
    network.driver.do("session", sessionId="s1", agent="two")
    network.driver.do("chat", id=1, sessionId="s1", message="go")
    await network.driver.until("chat-end", id=1)
    contents = [event["content"] for event in network.driver.events() if event["type"] == "message"]
    assert contents == ["two"]
    await network.driver.close()


@needs_node
async def test_a_refused_chat_has_the_reason(network: Network) -> None:
    """It has the hub's error code, and the next chat is answered."""
    await network.hub.start()
    driver = await begin(network, "nobody")
    driver.do("ask", id=1, sessionId="s1", message="hello")
    assert (await driver.until("error", id=1))["code"] == "unknown_agent"
    driver.do("session", sessionId="s2", agent="echo")
    driver.do("ask", id=2, sessionId="s2", message="x" * (1 << 20))
    refused = await driver.until("error", id=2)
    assert (refused["code"], refused["message"]) == ("too_large", "a chat may have at most 1 MiB")
    driver.do("ask", id=3, sessionId="s2", message="half \ud83d a character")
    assert (await driver.until("answer", id=3))["text"] == "half \N{REPLACEMENT CHARACTER} a character "
    await driver.close()


async def sign_in(network: Network) -> Driver:
    """Start a hub with sign-in, and connect the driver to it as Ann; open the session s1, which does not exist."""
    network.hub.options["sign_in"] = True
    await network.hub.start()
    headers = {"Authorization": f"Bearer {await network.hub.key('ann')}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(f"{network.hub.url}/api/v1/tickets", json={}) as answer:
            ticket = (await answer.json())["ticket"]
    network.driver.do("connect", url=f"{network.url}?ticket={ticket}")
    network.driver.do("session", sessionId="s1", agent="gated")
    await network.driver.until("error", code="unknown_session")
    return network.driver


@needs_node
async def test_a_chat_begins_a_session_that_looked_missing(network: Network, tmp_path: Path) -> None:
    """With sign-in, nobody can subscribe to a session before its first message. All events come after it."""
    driver = await sign_in(network)
    (tmp_path / "gate").touch()
    for number in range(2):
        driver.do("chat", id=number, sessionId="s1", message=str(tmp_path / "gate"))
        assert (await driver.until("chat-end", id=number))["text"] == "one two"
    assert_complete(driver)
    await driver.close()


@needs_node
async def test_an_answer_in_a_session_of_which_one_is_no_longer_a_member_is_an_error(
    network: Network, tmp_path: Path
) -> None:
    """It has the code `unknown_session`, and the connection stays."""
    driver = await sign_in(network)
    driver.do("chat", id=1, sessionId="s1", message=str(tmp_path / "never"))
    await driver.until("chat-event", id=1)
    members = await commands.list_members(network.hub.door, OPERATOR, "s1")
    bob = (await commands.create_key(network.hub.door, OPERATOR, "bob")).principal
    await commands.change_member(network.hub.door, OPERATOR, "s1", bob.id, "owner")
    await commands.change_member(network.hub.door, OPERATOR, "s1", members[0].id, None)
    assert (await driver.until("error", id=1))["code"] == "unknown_session"
    await driver.close()


@needs_node
async def test_a_command_with_half_a_character_is_answered(network: Network) -> None:
    """A lone surrogate is replaced. Other characters, and text that looks like an escape, stay the same."""
    await network.hub.start()
    driver = await begin(network, "echo")
    await driver.until("state", state="live")
    half = {"half \ud83d": "\udc4d half"}
    answer = {"type": "resume", "interruptId": "i1", "status": "resolved", "payload": half}
    driver.do("send", id=1, sessionId="s1", command=answer)
    assert (await driver.until("error", id=1))["code"] == "unknown_interrupt"
    driver.do("ask", id=2, sessionId="s1", message="\U0001f44d \\ud83d \\\ud83d")
    assert (await driver.until("answer", id=2))["text"] == "\U0001f44d \\ud83d \\\N{REPLACEMENT CHARACTER} "
    await driver.close()


@needs_node
async def test_a_cancelled_answer_ends(network: Network, tmp_path: Path) -> None:
    """A chat ends with the text so far; `ask()` rejects, because the answer is not complete."""
    await network.hub.start()
    driver = await begin(network, "gated")
    driver.do("chat", id=1, sessionId="s1", message=str(tmp_path / "never"))
    driver.do("ask", id=2, sessionId="s1", message=str(tmp_path / "never"))
    while driver.text() != "one ":
        await driver.next()
    driver.do("cancel", sessionId="s1")
    assert (await driver.until("chat-end", id=1))["text"] == "one "
    assert (await driver.until("error", id=2))["code"] == "cancelled"
    assert [e["stopReason"] for e in driver.events() if e["type"] == "run_finished"] == ["cancelled"] * 2
    driver.do("cancel", sessionId="s1")
    await driver.until("error", code="not_running")
    await driver.close()


@needs_node
async def test_a_message_that_is_sent_twice_is_answered_once(network: Network) -> None:
    """All chats with its id get the answer, also a chat that is sent after the end."""
    await network.hub.start()
    driver = await begin(network)
    for number in (1, 2):
        driver.do("chat", id=number, sessionId="s1", message="tell", clientMsgId="mine")
    assert (await driver.until("chat-end", id=1))["text"] == STORY
    assert (await driver.until("chat-end", id=2))["text"] == STORY
    driver.do("chat", id=3, sessionId="s1", message="tell", clientMsgId="mine")
    assert (await driver.until("chat-end", id=3))["text"] == STORY
    assert_complete(driver)
    assert [event["type"] for event in driver.events()].count("user_message") == 1 and driver.text() == STORY
    await driver.close()


@needs_node
async def test_a_page_that_is_reloaded_during_an_answer_gets_all_of_it(network: Network, tmp_path: Path) -> None:
    """The session resumes at its position; the chat, sent again, has the answer from its beginning."""
    await network.hub.start()
    gate = tmp_path / "gate"
    witness = await network.hub.connect(extended=True)
    chat = {"type": "chat", "agentId": "gated", "sessionId": "s1", "message": str(gate), "clientMsgId": "mine"}
    await witness.send(**chat)
    last = await witness.until_type("stream")
    driver = await begin(network, "gated", afterSeq=last["seq"], epoch=last["epoch"])
    driver.do("chat", id=1, sessionId="s1", message=str(gate), clientMsgId="mine")
    while not driver.count("chat-event"):
        await driver.next()
    gate.touch()
    assert (await driver.until("chat-end", id=1))["text"] == "one two"
    while not [event for event in driver.events() if event["type"] == "run_finished"]:
        await driver.next()
    assert driver.text() == "two" and driver.events()[0]["seq"] == last["seq"] + 1
    await driver.close()


# --- a network that breaks --------------------------------------------------------------------------------------------


@needs_node
async def test_an_answer_is_complete_over_many_cuts(network: Network) -> None:
    """The session and the chat have each character once."""
    await network.hub.start()
    driver = await begin(network)
    network.proxy.fates = [Fate("reset", size, PATIENCE) for size in range(1_000, 4_000, 150)]
    driver.do("chat", id=1, sessionId="s1", message="tell")
    assert (await driver.until("chat-end", id=1))["text"] == STORY == driver.text()
    assert_complete(driver)
    assert network.proxy.strikes >= 4
    await driver.close()


@needs_node
async def test_a_cut_at_any_byte_of_a_chat_makes_no_difference(network: Network) -> None:
    """In the handshake, before `subscribed` or `accepted`, in the answer: there is one complete answer."""
    await network.hub.start()
    driver = await begin(network, "echo")
    # Early cuts alternate with late ones: after many early cuts in a row the backoff would be long.
    sizes = [size for pair in zip(range(50, 1_500, 120), range(1_500, 3_000, 120)) for size in pair]
    network.proxy.fates = [Fate("reset", size, PATIENCE) for size in sizes]
    for number in range(2 * len(network.proxy.fates)):
        if number % 2:
            network.cut()
        session = f"s-{number}"
        driver.do("session", sessionId=session, agent="echo")
        driver.do("chat", id=number, sessionId=session, message="hello there")
        assert (await driver.until("chat-end", id=number))["text"] == "hello there "
        while not [event for event in driver.events(session) if event["type"] == "run_finished"]:
            await driver.next()
        assert_complete(driver, session)
        assert driver.text(session) == "hello there "
        assert [event["type"] for event in driver.events(session)].count("user_message") == 1
    assert network.proxy.strikes > 10
    await driver.close()


@needs_node
async def test_a_chat_gets_an_end_that_came_while_it_was_disconnected(network: Network, tmp_path: Path) -> None:
    """The answer began before the cut, and ended before the reconnect."""
    await network.hub.start()
    driver = await begin(network, "gated")
    driver.do("chat", id=1, sessionId="s1", message=str(tmp_path / "gate"))
    while driver.text() != "one ":
        await driver.next()
    witness = await network.hub.connect("?sessionId=s1", extended=True)
    await network.lose()
    (tmp_path / "gate").touch()
    await witness.until_done()
    network.is_down = False
    assert (await driver.until("chat-end", id=1))["text"] == "one two" == driver.text()
    assert_complete(driver)
    await driver.close()


@needs_node
async def test_a_chat_without_a_connection_is_sent_later(network: Network) -> None:
    """Chats are sent once, in their order; another command is refused."""
    await network.hub.start()
    driver = await begin(network, "echo")
    await driver.until("state", state="live")
    await network.lose()
    for number in range(3):
        driver.do("ask", id=number, sessionId="s1", message=f"number {number}")
    driver.do("cancel", sessionId="s1")
    await driver.until("error", code="disconnected")
    network.is_down = False
    for number in range(3):
        assert (await driver.until("answer", id=number))["text"] == f"number {number} "
    contents = [event["content"] for event in driver.events() if event["type"] == "user_message"]
    assert contents == ["number 0", "number 1", "number 2"]
    await driver.close()


@needs_node
async def test_the_client_reconnects_to_a_hub_that_starts_again(network: Network, tmp_path: Path) -> None:
    """The run before has its end, and a chat that was sent between is answered."""
    await network.hub.start()
    driver = await begin(network, "gated")
    driver.do("chat", id=1, sessionId="s1", message=str(tmp_path / "never"))
    while driver.text() != "one ":
        await driver.next()
    await network.hub.stop()
    await driver.until("state", state="waiting")
    (tmp_path / "gate").touch()
    driver.do("ask", id=2, sessionId="s1", message=str(tmp_path / "gate"))
    await network.hub.start()
    assert (await driver.until("chat-end", id=1))["text"] == "one "
    assert (await driver.until("answer", id=2))["text"] == "one two"
    assert_complete(driver)
    assert [e["stopReason"] for e in driver.events() if e["type"] == "run_finished"] == ["aborted", "end_turn"]
    assert not driver.count("reset")
    await driver.close()


@needs_node
async def test_a_session_is_reset_if_the_hub_lost_its_log(network: Network, tmp_path: Path) -> None:
    """The listeners get `reset`, a lost answer is an error, and the session works."""
    await network.hub.start()
    driver = await begin(network, "gated")
    driver.do("chat", id=1, sessionId="s1", message=str(tmp_path / "never"))
    while driver.text() != "one ":
        await driver.next()
    await network.lose()
    await network.hub.stop()
    shutil.rmtree(tmp_path / "data")
    await network.hub.start()
    network.is_down = False
    assert (await driver.until("reset"))["reason"] == "epoch_changed"
    assert (await driver.until("error", id=1))["code"] == "reset"
    before = len(driver.events())
    (tmp_path / "gate").touch()
    driver.do("ask", id=2, sessionId="s1", message=str(tmp_path / "gate"))
    assert (await driver.until("answer", id=2))["text"] == "one two"
    assert driver.events()[before]["seq"] == 1 and driver.count("reset") == 1
    network.cut()
    driver.do("ask", id=3, sessionId="s1", message=str(tmp_path / "gate"))
    assert (await driver.until("answer", id=3))["text"] == "one two"
    assert driver.count("reset") == 1
    await driver.close()


@needs_node
async def test_a_half_open_connection_is_replaced(network: Network) -> None:
    """If no frame comes after a ping, the client connects again."""
    await network.hub.start(ping_seconds=0.3)
    driver = await begin(network, "echo")
    await driver.until("state", state="live")
    (link,) = network.proxy.links
    link.freeze()
    driver.do("ask", id=1, sessionId="s1", message="hello")
    assert (await driver.until("answer", id=1))["text"] == "hello "
    assert len(network.proxy.links) > 1 and not link.client.is_closing()
    await driver.close()


# --- a hub that the test plays ----------------------------------------------------------------------------------------

WELCOME = {"type": "welcome", "agents": [], "principal": {"id": "me"}, "limits": {"frameBytes": 9999}}
Say = Callable[..., Awaitable[None]]


@contextlib.asynccontextmanager
async def fake_hub(act: Callable[[int, web.WebSocketResponse[Any], Say], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve WebSockets: answer `hello` with the welcome, then call *act* with the number of the connection."""
    connections: list[web.WebSocketResponse[Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        ws: web.WebSocketResponse[Any] = web.WebSocketResponse(protocols=["hubbub.v1"], timeout=1)
        await ws.prepare(request)

        async def say(**frame: Any) -> None:
            await ws.send_str(json.dumps(frame))

        hello = json.loads((await ws.receive()).data)
        assert hello["type"] == "hello"
        await say(**WELCOME, heartbeatMs=25_000, ref=hello["ref"])
        connections.append(ws)
        await act(len(connections), ws, say)
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{site.port}/"
    finally:
        await runner.cleanup()


@needs_node
@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1009, 4500, 4999])
async def test_a_final_close_code_closes_the_client(network: Network, code: int) -> None:
    """The client has the code, and its open chats are rejected."""

    async def act(number: int, ws: web.WebSocketResponse[Any], say: Say) -> None:
        await ws.receive()  # the subscribe
        await ws.close(code=code)

    async with fake_hub(act) as url:
        driver = network.driver
        driver.do("connect", url=url)
        driver.do("session", sessionId="s1")
        driver.do("ask", id=1, sessionId="s1", message="hello")
        await driver.until("state", state="closed", code=code)
        assert (await driver.until("error", id=1))["code"] == "closed"
        assert not driver.count("state", state="waiting")
        await driver.close()


@needs_node
@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4000, 4499])
async def test_the_client_reconnects_after_another_close_code(network: Network, code: int) -> None:
    """It waits for a short time, and connects again."""

    async def act(number: int, ws: web.WebSocketResponse[Any], say: Say) -> None:
        if number == 1:
            await ws.close(code=code)
        await ws.receive()

    async with fake_hub(act) as url:
        network.driver.do("connect", url=url)
        while network.driver.count("state", state="live") < 2:
            await network.driver.next()
        await network.driver.close()


@needs_node
@pytest.mark.parametrize("text", ["<html>", "null", "7", "[]", '{"type": 7}', ""])
async def test_a_frame_that_is_no_object_costs_the_connection(network: Network, text: str) -> None:
    """The client says so in its state, and connects again, as the Python client does."""

    async def act(number: int, ws: web.WebSocketResponse[Any], say: Say) -> None:
        if number == 1:
            await ws.send_str(text)
        await ws.receive()

    async with fake_hub(act) as url:
        network.driver.do("connect", url=url)
        await network.driver.until("state", state="waiting", code=1006)
        while network.driver.count("state", state="live") < 2:
            await network.driver.next()
        await network.driver.close()


@needs_node
async def test_the_client_requests_missing_events(network: Network) -> None:
    """It requests each gap once, and goes on if the hub does not have the events."""
    positions: list[int] = []
    log: list[dict[str, Any]] = [
        dict(type="run_started", runId="r1", agentId="a", messageId="m1"),
        *(dict(type="stream", runId="r1", messageId="m1", content=f"{offset}", offset=offset) for offset in range(4)),
        dict(type="run_finished", runId="r1", stopReason="end_turn"),
    ]

    async def act(number: int, ws: web.WebSocketResponse[Any], say: Say) -> None:
        async for message in ws:
            command = json.loads(message.data)
            if command["type"] != "subscribe":
                continue
            after = command.get("afterSeq", 0)
            positions.append(after)
            await say(type="subscribed", sessionId="s1", epoch="e", seq=0, active=[], ref=command["ref"])
            for seq, event in enumerate(log, 1):
                if seq > after and seq != 6 and (seq != 3 or len(positions) > 1):
                    await say(sessionId="s1", epoch="e", seq=seq, ts=0, **event)
            await say(type="custom", sessionId="s1", epoch="e", seq=7, ts=0, name="last", value=None)

    async with fake_hub(act) as url:
        driver = network.driver
        driver.do("connect", url=url)
        driver.do("session", sessionId="s1")
        while 7 not in [event["seq"] for event in driver.events()]:
            await driver.next()
        assert driver.text() == "0123"
        assert [event["seq"] for event in driver.events()] == [1, 2, 3, 4, 5, 7]
        assert positions == [0, 2, 5]
        await driver.close()


@needs_node
async def test_each_reader_gets_the_new_part_of_a_joined_piece(network: Network) -> None:
    """The cursors of the session and of its chat are in one text; the hub joins pieces across both cursors."""
    run = {"runId": "r1", "messageId": "m1", "agentId": "a"}
    events: dict[int, list[tuple[int, dict[str, Any]]]] = {
        0: [
            (1, {"type": "user_message", "messageId": "m0"}),
            (2, {"type": "run_started", **run}),
            (5, {"type": "stream", **run, "content": "012", "offset": 0}),
        ],
        4: [
            (6, {"type": "stream", **run, "content": "23", "offset": 2}),
            (7, {"type": "run_finished", **run, "stopReason": "end_turn"}),
        ],
    }
    positions: list[int] = []

    async def act(number: int, ws: web.WebSocketResponse[Any], say: Say) -> None:
        async for message in ws:
            command = json.loads(message.data)
            ids = {"sessionId": "s1", "ref": command["ref"]}
            if command["type"] == "chat":
                await say(type="accepted", **ids, runId="r1", messageId="m0", seq=1, status="duplicate")
                continue
            positions.append(command["afterSeq"])
            await say(type="subscribed", **ids, epoch="e", seq=7, active=[])
            for seq, event in events[positions[-1]] if len(positions) > 1 else []:
                await say(sessionId="s1", epoch="e", seq=seq, ts=0, **event)

    async with fake_hub(act) as url:
        driver = network.driver
        driver.do("connect", url=url)
        driver.do("session", sessionId="s1", afterSeq=4, epoch="e")
        driver.do("chat", id=1, sessionId="s1", message="tell", clientMsgId="mine")
        assert (await driver.until("chat-end", id=1))["text"] == "0123"
        while 7 not in [event["seq"] for event in driver.events()]:
            await driver.next()
        assert driver.text() == "23" and positions == [4, 0, 4]
        await driver.close()


# --- the rest of the module -------------------------------------------------------------------------------------------


@needs_node
async def test_everything_else_in_node(hub: Hub) -> None:
    """Groups, listeners, iterators, close(): see tests/support/javascript/client_api.js."""
    await hub.start()
    checks = json.loads(await run_node("client_api.js", f"ws://127.0.0.1:{hub.port}/api/v1/ws"))
    assert checks == {name: True for name in checks} and len(checks) > 8


@needs_node
async def test_the_types_fit_the_module() -> None:
    """The compiler accepts a program that uses all of the client, and finds its mistakes."""
    await install_packages()
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext")
    command = ("node_modules/.bin/tsc", *options, "client_types.ts", "react_types.ts")
    process = await asyncio.create_subprocess_exec(*command, cwd=NODE_FOLDER, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


async def test_the_client_is_served(hub: Hub) -> None:
    """The hub serves the client and its types, to pages of allowed origins; a browser revalidates them each time."""
    await hub.start()
    origin = {"Origin": "http://localhost:5173"}
    async with aiohttp.ClientSession() as http:
        for name, kind in (("client.js", "text/javascript"), ("client.d.ts", "application/typescript")):
            async with http.get(f"{hub.url}/{name}", headers=origin) as answer:
                assert answer.status == 200 and answer.content_type == kind and answer.charset == "utf-8"
                assert await answer.read() == CLIENT_FILES[f"/{name}"][1]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-cache"
                assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
                tag = {"If-None-Match": answer.headers["ETag"]}
            async with http.get(f"{hub.url}/{name}", headers=origin | tag) as answer:
                assert answer.status == 304 and answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        async with http.get(f"{hub.url}/client.js", headers={"Origin": "https://evil.example"}) as answer:
            assert answer.status == 403


def test_the_hub_serves_all_modules_of_the_client_as_one_file() -> None:
    """The file has each class and function once, and imports nothing: it can be saved beside a program."""
    text = CLIENT_FILES["/client.js"][1].decode()
    entry, modules = CLIENT_FOLDER / "client.js", set[Path]()
    paths = [entry]
    while paths:
        path = paths.pop()
        modules.add(path)
        imports = re.findall(r"^(?:import|export) .+ from '\./(.+)'", path.read_text(), re.M)
        paths += {CLIENT_FOLDER / name for name in imports} - modules
    modules.remove(entry)
    names = [
        name for path in modules for name in re.findall(r"^export (?:class|function) (\w+)", path.read_text(), re.M)
    ]
    assert len(modules) > 10 and len(names) > 10
    assert [len(re.findall(rf"^(?:class|function) {name}\b", text, re.M)) for name in names] == [1] * len(names)
    assert "import " not in [line[:7] for line in text.splitlines()]


@needs_node
async def test_the_example_of_the_docs_works(hub: Hub) -> None:
    """Only the port and the name of the module are others."""
    hub.agent("main.py", 'async def main(message: str):\n    yield "Hello "\n    yield "you!"')
    await hub.start()
    (block,) = of_kind(ROOT / "docs" / "clients.md", "js", "client")
    # tests/client_js/test_client_package.py installs the package.
    code = block.text.replace("9527", str(hub.port)).replace('"hubbub-client"', '"./client.js"')
    assert await run_code(code) == "live\nHello you!\nHello you!\n"


# --- sign-in; tests/client/test_clients.py tests what both clients share ----------------------------------------------


SIGN_IN_PAGE = """
async ([url, token]) => {
  const { connect } = await import(url ? url.replace(/^ws/, 'http').replace('/api/v1/ws', '/client.js') : '/client.js')
  window.hub = connect(url, { token })
  await hub.ready
  const answer = await hub.session('s1', { agent: 'echo' }).ask('hello there')
  const response = await hub.fetch('/sessions', { method: 'POST', body: '{"title":"mine"}' })
  const { name } = await (await hub.fetch('/me')).json()
  return [answer, response.status, name, hub.principal.name]
}
"""


FETCH_PROGRAM = """
import { connect } from './client.js'
const hub = connect('ws://127.0.0.1:1/api/v1/ws', { token: 'hk_x', WebSocket: class {} })
hub.fetch('http://a.example').catch((error) => { console.log(error.message); process.exit() })
"""


@needs_browser
async def test_a_page_of_another_origin_signs_in_with_a_token(signed: Hub, browser: Browser) -> None:
    """The socket gets it in `hello`, and the HTTP API in a header."""
    url = f"ws://127.0.0.1:{signed.port}/api/v1/ws"
    async with serve_other_origin("") as address:
        tab = Tab(await browser.new_page())
        await tab.page.goto(address)
        answer = await tab.page.evaluate(SIGN_IN_PAGE, [url, await signed.key("ann")])
        assert answer == ["hello there ", 201, "ann", "ann"] and not tab.errors


@needs_browser
async def test_a_page_of_the_hub_signs_in_with_its_cookie(signed: Hub, browser: Browser) -> None:
    """It needs no token. With the token of another principal beside the cookie, the client is closed."""
    link = await commands.invite_person(signed.door, OPERATOR, "Ann")
    tab = Tab(await browser.new_page())
    await tab.page.goto(f"{signed.url}/health")
    body = json.dumps({"token": link.rpartition("#")[2]})
    sign_in = "async (body) => (await fetch('/api/v1/sign-in', { method: 'POST', body })).status"
    assert await tab.page.evaluate(sign_in, body) == 200
    assert await tab.page.evaluate(SIGN_IN_PAGE, [None, None]) == ["hello there ", 201, "Ann", "Ann"]
    with pytest.raises(PlaywrightError, match="does not accept the token"):
        await tab.page.evaluate(SIGN_IN_PAGE, [None, await signed.key("bob")])
    assert await tab.page.evaluate("hub.closeCode") == 4500


@needs_node
async def test_fetch_takes_a_path_of_the_hub_only() -> None:
    """So the token reaches no other origin."""
    assert "is not a path of the hub" in await run_code(FETCH_PROGRAM)


# --- a browser --------------------------------------------------------------------------------------------------------

IN_A_PAGE = """
async (url) => {
  const { connect } = await import(url ? url.replace(/^ws/, 'http').replace('/api/v1/ws', '/client.js') : '/client.js')
  window.states = []
  window.hub = connect(url)
  hub.on('state', (state) => states.push(state))
  await hub.ready
  return await hub.session('s1', { agent: 'echo' }).ask('hello there')
}
"""


@needs_browser
async def test_in_a_browser(network: Network, browser: Browser) -> None:  # noqa: F811
    """A page of the hub needs no address; a page of another origin passes one."""
    await network.hub.start()
    tab = Tab(await browser.new_page())
    await tab.page.goto(network.hub.url)
    assert await tab.page.evaluate(IN_A_PAGE, None) == "hello there "
    async with serve_other_origin("") as address:
        other = Tab(await browser.new_page())
        await other.page.goto(address)
        url = f"ws://127.0.0.1:{network.hub.port}/api/v1/ws"
        assert await other.page.evaluate(IN_A_PAGE, url) == "hello there "
        assert not tab.errors and not other.errors


@needs_browser
async def test_a_browser_that_is_online_again_reconnects_at_once(
    network: Network, browser: Browser
) -> None:  # noqa: F811
    """The clock of the page stands still, so the timer of the backoff cannot fire."""
    await network.hub.start()
    tab = Tab(await browser.new_page())
    await tab.page.clock.install(time=0)
    await tab.page.clock.pause_at(1)
    await tab.page.goto(f"http://127.0.0.1:{network.proxy.port}")
    await tab.page.evaluate(IN_A_PAGE, None)
    await tab.page.evaluate("void hub.on('state', (state) => console.log(state))")
    for event in ("window.dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"):
        network.cut()
        await tab.until("waiting")
        await tab.page.evaluate(event)
        assert await tab.page.evaluate("hub.session('s1', { agent: 'echo' }).ask('again')") == "again "
    await tab.page.evaluate("hub.close()")
    assert await tab.page.evaluate("hub.state + hub.closeCode") == "closed1000"
