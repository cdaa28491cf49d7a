"""Both client libraries under the same faults: a driver program each, a real hub, a proxy that breaks connections.

A driver reads commands and says what it hears, one JSON object a line:

    {"do": "connect", "url"}
    {"do": "session", "sessionId", "agent", "afterSeq"?, "epoch"?}
    {"do": "chat", "id", "sessionId", "message", "clientMsgId"?}
    {"do": "ask", "id", "sessionId", "message"}
    {"do": "cancel", "sessionId"}
    {"do": "close"}

    {"kind": "state", "state", "code"?}
    {"kind": "event", "sessionId", "event"}
    {"kind": "chat-event", "id", "event"}, {"kind": "chat-end", "id", "text"}
    {"kind": "answer", "id", "text"}
    {"kind": "error", "id"?, "code", "message"}
    {"kind": "reset", "sessionId", "reason"}
    {"kind": "closed"}

`event` says each numbered event of each session once, in order. After `closed` a driver exits with 0.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support import babble, client_driver
from support.documents import ROOT
from support.hub import Hub
from support.kills import seed
from support.node import NODE_FOLDER, SCRIPTS, install_packages, needs_node
from support.process import HubProcess
from support.proxy import Fate, Proxy
from support.scripted import Peer, Script, scripted
from support.waiting import PATIENCE

LONG = 3 * PATIENCE  # for a whole answer through many reconnects


@attrs.define(eq=False)
class Driver:
    """A driver program; `lines` are all its results."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = attrs.Factory(list)

    async def do(self, do: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | fields).encode() + b"\n")
        await self.process.stdin.drain()

    async def until(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """Return the first line with these fields that was not returned before; wait for it if there is none."""
        line: dict[str, Any]
        for line in self.lines:
            if line["kind"] == kind and not line.get("seen") and wanted.items() <= line.items():
                line["seen"] = True
                return line
        assert self.process.stdout is not None
        async with asyncio.timeout(LONG):
            while raw := await self.process.stdout.readline():
                line = json.loads(raw)
                self.lines.append(line)
                if line["kind"] == kind and wanted.items() <= line.items():
                    line["seen"] = True
                    return line
        raise EOFError(f"the driver ended before a line {kind} {wanted}: {self.lines[-5:]}")

    async def until_event(self, kind: str, session: str = "s1") -> dict[str, Any]:
        """Return the next event of that type."""
        while True:
            line = await self.until("event", sessionId=session)
            event: dict[str, Any] = line["event"]
            if event["type"] == kind:
                return event

    def events(self, session: str = "s1") -> list[dict[str, Any]]:
        return [line["event"] for line in self.lines if line["kind"] == "event" and line["sessionId"] == session]

    def count(self, kind: str, **wanted: Any) -> int:
        return sum(line["kind"] == kind and wanted.items() <= line.items() for line in self.lines)

    async def join(self, port: int, agent: str, session: str = "s1", **cursor: Any) -> None:
        """Connect, and hear a session."""
        await self.do("connect", url=f"ws://127.0.0.1:{port}/api/v1/ws")
        await self.do("session", sessionId=session, agent=agent, **cursor)
        await self.until("state", state="live")

    async def close(self) -> None:
        """End it as it should end."""
        await self.do("close")
        await self.until("closed")
        async with asyncio.timeout(PATIENCE):
            assert await self.process.wait() == 0


def whole(driver: Driver, session: str = "s1") -> dict[str, str]:
    """Return the text of each message; fails where an event came twice, out of order, or was left out."""
    texts: dict[str, str] = {}
    seq, epoch = 0, None
    for event in driver.events(session):
        assert epoch in (None, event["epoch"]), (epoch, event)
        assert event["seq"] == seq + 1 or (event["type"] == "stream" and event["seq"] > seq), (seq, event)
        seq, epoch = event["seq"], event["epoch"]
        if event["type"] == "stream":
            assert event["offset"] == len(texts.get(event["messageId"], "")), event
            texts[event["messageId"]] = texts.get(event["messageId"], "") + event["content"]
        elif event["type"] == "message_removed":
            for message in event["messageIds"]:
                texts.pop(message, None)
    return texts


NODE_DRIVER = SCRIPTS / "driver.mjs"
COMMANDS: dict[str, Callable[[], list[str]]] = {
    "python": lambda: [sys.executable, "-P", client_driver.__file__],  # -P: support/hub.py is not the hub
    "node": lambda: ["node", str(NODE_FOLDER / NODE_DRIVER.name)],
}
DRIVERS = ["python"] + ([pytest.param("node", marks=needs_node)] if NODE_DRIVER.exists() else [])


@pytest.fixture(params=DRIVERS)
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    """The client library of one language."""
    if request.param == "node":
        await install_packages()
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[request.param](),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )
    try:
        yield Driver(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub in a process of its own, with the agents that the tests ask."""
    hub = HubProcess(tmp_path)
    hub.agent("echo.py", "async def echo(message: str):\n    for word in message.split():\n        yield word + ' '\n")
    hub.agent("babble.py", Path(babble.__file__).read_text(encoding="utf-8"))
    hub.agent(
        "gated.py",
        """
        import asyncio, pathlib

        async def gated(message: str):
            yield "one "
            while not pathlib.Path(message).exists():
                await asyncio.sleep(0.01)
            yield "two"
        """,
    )
    try:
        yield await hub.start()
    finally:
        await hub.kill()


@asynccontextmanager
async def proxied(port: Callable[[], int], *fates: Fate) -> AsyncIterator[Proxy]:
    proxy = await Proxy(lambda: ("127.0.0.1", port()), fates).start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def test_a_chat_and_a_question_are_answered(driver: Driver, server: HubProcess) -> None:
    """The events of a chat are those of its run, to its end; a question gives the whole text."""
    await driver.join(server.port, "echo")
    await driver.do("chat", id=1, sessionId="s1", message="hello there")
    assert (await driver.until("chat-end", id=1))["text"] == "hello there "
    heard = [line["event"] for line in driver.lines if line["kind"] == "chat-event"]
    assert heard[0]["type"] == "run_started" and heard[-1]["type"] == "run_finished"
    assert len({event["runId"] for event in heard}) == 1
    await driver.do("ask", id="q", sessionId="s1", message="how are you")
    assert (await driver.until("answer", id="q"))["text"] == "how are you "
    while [event["type"] for event in driver.events()].count("run_finished") < 2:
        await driver.until("event")
    assert list(whole(driver).values()) == ["hello there ", "how are you "]
    await driver.close()


async def test_what_comes_in_several_frames_is_one_event(driver: Driver, hub: Hub) -> None:
    """A long message, and a long answer that the agent gave in one piece."""
    hub.agent("repeat.py", "def repeat(message: str):\n    return message")
    await hub.start(out_frame_bytes=4096)
    text = "".join(f"{n}\N{GRINNING FACE}" for n in range(2000))
    await driver.join(hub.port, "repeat")
    await driver.do("chat", id=1, sessionId="s1", message=text)
    assert (await driver.until("chat-end", id=1))["text"] == text
    await driver.until_event("run_finished")
    heard = {event["type"]: event for event in driver.events()}
    assert heard["user_message"]["content"] == text and "more" not in heard["user_message"]
    assert list(whole(driver).values()) == [text]
    await driver.close()


async def test_killed_at_random_it_holds_what_the_agent_said(driver: Driver, server: HubProcess) -> None:
    """8 kills of its sockets in mid-answer, in each way: the text is exact, no event comes twice, none is missing."""
    chance = random.Random(seed())
    fates = [Fate.draw(chance, most_bytes=8_000) for _ in range(8)]
    wanted = "".join(babble.chunks("7", 400))
    async with proxied(lambda: server.port, *fates) as proxy:
        await driver.do("connect", url=f"ws://127.0.0.1:{proxy.port}/api/v1/ws")
        await driver.do("session", sessionId="s1", agent="babble", afterSeq=0)
        for number in range(10):
            await driver.do("chat", id=number, sessionId="s1", message="7 400 2")
            assert (await driver.until("chat-end", id=number))["text"] == wanted
            if not proxy.remaining_fates:
                break
        assert proxy.strikes == 8
        ends = driver.count("chat-end")
        while sum(event["type"] == "run_finished" for event in driver.events()) < ends:
            await driver.until("event")
        assert list(whole(driver).values()) == [wanted] * ends
        assert not driver.count("error") and not driver.count("reset")
        await driver.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
async def test_it_outlives_the_hub(driver: Driver, server: HubProcess, number: int) -> None:
    """An answer that a restart cut short ends, once; what waited behind it is answered by the next hub."""
    async with proxied(lambda: server.port) as proxy:
        await driver.join(proxy.port, "gated")
        never = server.folder / "never"
        await driver.do("chat", id="cut", sessionId="s1", message=str(never))
        await driver.until_event("stream")
        go = server.folder / "go"
        go.touch()
        await driver.do("chat", id="next", sessionId="s1", message=str(go))
        while (await driver.until_event("user_message"))["content"] != str(go):
            pass
        server.signal(number)
        if number == signal.SIGTERM:
            server.signal(number)  # the second does not wait for the answer
        await server.wait_until_ended()
        await driver.do("chat", id="meanwhile", sessionId="s1", message=str(go))
        await server.start()
        assert (await driver.until("chat-end", id="cut"))["text"] == "one "
        assert (await driver.until("chat-end", id="next"))["text"] == "one two"
        assert (await driver.until("chat-end", id="meanwhile"))["text"] == "one two"
        while sum(event["type"] == "run_finished" for event in driver.events()) < 3:
            await driver.until("event")
        assert list(whole(driver).values()) == ["one ", "one two", "one two"]
        ends = [event["stopReason"] for event in driver.events() if event["type"] == "run_finished"]
        assert ends == ["aborted", "end_turn", "end_turn"]
        await driver.close()


async def test_an_answer_that_ended_meanwhile_is_heard_to_its_end(driver: Driver, server: HubProcess) -> None:
    """It was cut off, the answer ended without it, and it comes back: the iteration goes on where it was."""
    gate = server.folder / "gate"
    async with proxied(lambda: server.port) as proxy:
        await driver.join(proxy.port, "gated")
        await driver.do("chat", id=1, sessionId="s1", message=str(gate))
        await driver.until_event("stream")
        there, proxy.target = proxy.target, lambda: ("127.0.0.1", 1)  # nobody is there
        for link in proxy.links:
            link.reset()
        await driver.until("state", state="waiting")
        gate.touch()
        await ended(server, "s1")
        proxy.target = there
        assert (await driver.until("chat-end", id=1))["text"] == "one two"
        await driver.close()


async def ended(server: HubProcess, session: str) -> None:
    """Wait until nothing is answered in a session."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{server.url}/api/v1/sessions/{session}") as response:
                if (await response.json())["state"] == "idle":
                    return


async def test_the_same_id_twice_is_answered_once(driver: Driver, server: HubProcess) -> None:
    """Both chats hear the one answer, and the session has one message."""
    await driver.join(server.port, "echo")
    await driver.do("chat", id=1, sessionId="s1", message="hello there", clientMsgId="c1")
    assert (await driver.until("chat-end", id=1))["text"] == "hello there "
    await driver.do("chat", id=2, sessionId="s1", message="hello there", clientMsgId="c1")
    assert (await driver.until("chat-end", id=2))["text"] == "hello there "
    await driver.do("ask", id=3, sessionId="s1", message="last")
    await driver.until("answer", id=3)
    while sum(event["type"] == "run_finished" for event in driver.events()) < 2:
        await driver.until("event")
    said = [event["content"] for event in driver.events() if event["type"] == "user_message"]
    assert said == ["hello there", "last"]
    await driver.close()


async def test_the_same_id_with_other_words_is_refused(driver: Driver, server: HubProcess) -> None:
    """The error says which chat it was; nothing runs."""
    await driver.join(server.port, "echo")
    await driver.do("chat", id=1, sessionId="s1", message="hello", clientMsgId="c1")
    await driver.until("chat-end", id=1)
    await driver.do("chat", id=2, sessionId="s1", message="goodbye", clientMsgId="c1")
    assert (await driver.until("error", id=2))["code"] == "id_reused"
    await driver.close()


async def test_stopped_in_the_first_millisecond_it_ends_once(driver: Driver, server: HubProcess) -> None:
    """A stop that follows the message at once ends the answer, with `cancelled`, however far it was."""
    await driver.join(server.port, "gated")
    for number in range(5):
        await driver.do("chat", id=number, sessionId="s1", message=str(server.folder / "never"))
        await driver.do("cancel", sessionId="s1")
        assert (await driver.until("chat-end", id=number))["text"] in ("", "one ")
        assert (await driver.until_event("run_finished"))["stopReason"] == "cancelled"
    await driver.do("ask", id="after", sessionId="s1", message=str(server.folder))  # which exists
    assert (await driver.until("answer", id="after"))["text"] == "one two"
    assert driver.count("chat-end") == 5 and not driver.count("error")
    await driver.close()


async def test_a_socket_that_is_half_open_is_given_up(driver: Driver, hub: Hub) -> None:
    """Nothing comes and nothing fails: it finds out by its own pings, connects again, and hears what it missed."""
    await hub.start(ping_seconds=0.5)
    gate = hub.folder / "gate"
    async with proxied(lambda: hub.port) as proxy:
        await driver.join(proxy.port, "gated")
        await driver.do("chat", id=1, sessionId="s1", message=str(gate))
        await driver.until_event("stream")
        for link in list(proxy.links):
            link.freeze()
        gate.touch()
        await driver.until("state", state="waiting")
        assert (await driver.until("chat-end", id=1))["text"] == "one two"
        assert [event["seq"] for event in driver.events()] == sorted({event["seq"] for event in driver.events()})
        await driver.close()


def closing(code: int, came: list[int]) -> Script:
    """Answer a subscribe, and close with *code*."""

    async def script(peer: Peer) -> None:
        came.append(code)
        await peer.accept_subscribe()
        await peer.ws.close(code=code)

    return script


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1009, 4500, 4503, 4999])
async def test_a_close_code_that_is_final_is_obeyed(driver: Driver, code: int) -> None:
    """The client is closed, says the code, and does not come back; what waits is told."""
    came: list[int] = []
    async with scripted(closing(code, came)) as url:
        await driver.do("connect", url=url)
        await driver.do("session", sessionId="s1", agent="echo")
        assert (await driver.until("state", state="closed"))["code"] == code
        await driver.close()
        assert came == [code]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4000, 4001, 4499])
async def test_a_close_code_that_is_not_final_is_tried_again(driver: Driver, code: int) -> None:
    """The client waits a little, and connects again."""
    came: list[int] = []
    async with scripted(closing(code, came)) as url:
        await driver.do("connect", url=url)
        await driver.do("session", sessionId="s1", agent="echo")
        await driver.until("state", state="live")
        assert (await driver.until("state", state="waiting"))["code"] == code
        await driver.until("state", state="live")
        assert len(came) > 1
        await driver.close()


async def test_a_session_that_was_made_anew_is_told(driver: Driver, server: HubProcess) -> None:
    """Its log was deleted while the client was away: `reset`, then what happens in the new one."""
    async with proxied(lambda: server.port) as proxy:
        await driver.join(proxy.port, "echo")
        await driver.do("ask", id=1, sessionId="s1", message="before")
        await driver.until("answer", id=1)
        await server.kill()
        shutil.rmtree(server.folder / "data")
        await server.start()
        assert (await driver.until("reset"))["reason"] == "epoch_changed"
        await driver.do("ask", id=2, sessionId="s1", message="after")
        assert (await driver.until("answer", id=2))["text"] == "after "
        assert [event["seq"] for event in driver.events() if event["type"] == "user_message"] == [1, 1]
        await driver.close()
