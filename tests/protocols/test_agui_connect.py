"""AG-UI's connectAgent() with the hub's own agent: reload in mid-answer, a second browser, stop, and questions."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from support.agui import check_messages, events, run_request
from support.hub import Hub
from support.late import hold_results
from support.node import NODE_FOLDER, install_packages, needs_node
from support.people import People
from support.tools import HELPER
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.ids import Key
from hub.limits import MiB

ASKS = """
async def asks(run):
    yield "Well. "
    reply = await run.ask("Sure?")
    yield f"{reply.payload}."
"""

ENDS = """
import asyncio, pathlib

async def ends(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
"""


@attrs.define
class Page:
    """A page with a HubbubAgent: its last state, and all errors and warnings."""

    process: asyncio.subprocess.Process
    state: dict[str, Any] = attrs.Factory(dict)

    async def call(self, *command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Read states until one meets the condition, and return it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while not (self.state and condition(self.state)):
                self.state = json.loads(await self.process.stdout.readline())
                assert self.state.keys().isdisjoint({"error", "warning"}), self.state
        return self.state

    async def until_texts(self, *texts: str) -> dict[str, Any]:
        """Wait until the run is over and the messages have these texts."""
        return await self.until(lambda state: not state["isRunning"] and read_texts(state) == list(texts))


def read_texts(state: dict[str, Any]) -> list[str]:
    return [message.get("content", "") for message in state["messages"]]


@asynccontextmanager
async def open_page(
    hub: Hub, agent: str, thread: str = "t1", *key: str, script: str = "agui_connect.mjs"
) -> AsyncIterator[Page]:
    await install_packages()
    arguments = (f"{hub.url}/api/v1/agents/{agent}/agui", thread, *key)
    process = await asyncio.create_subprocess_exec(
        *("node", script, *arguments),
        cwd=NODE_FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Page(process)
    finally:
        process.kill()
        await process.wait()


@needs_node
async def test_a_page_that_is_opened_in_mid_answer_shows_all_of_it(hub: Hub, tmp_path: Path) -> None:
    """It gets the history, the answer from its start, and the rest. So does a second page."""
    await hub.start()
    gate = tmp_path / "gate"
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="echo", sessionId="t1", message="hello")
    await socket.until_done()
    await socket.send(type="chat", agentId="gated", sessionId="t1", message=str(gate))
    async with open_page(hub, "gated") as first, open_page(hub, "gated") as second:
        for page in (first, second):
            state = await page.until(lambda state: read_texts(state)[-1:] == ["one "])
            assert state["isRunning"] and read_texts(state) == ["hello", "hello ", str(gate), "one "]
            assert not state["isConnected"]
        gate.touch()
        for page in (first, second):
            await page.until_texts("hello", "hello ", str(gate), "one two")
            await page.until(lambda state: state["isConnected"])


@needs_node
async def test_a_page_shows_later_runs_of_other_clients(hub: Hub) -> None:
    """With the messages that they answer. The page's own runs stand in its messages once."""
    await hub.start()
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="echo", sessionId="t1", message="first")
    await socket.until_done()
    async with open_page(hub, "echo") as page, open_page(hub, "echo") as second:
        for one in (page, second):
            await one.until_texts("first", "first ")
        await page.call("say", "u1", "mine")
        texts = ["first", "first ", "mine", "mine "]
        for one in (page, second):
            state = await one.until_texts(*texts)
            assert state["messages"][2]["id"] == "u1"
        await page.call("look", "connected again")
        state = await page.until(lambda state: state.get("mark"))
        assert not state["isRunning"]
        await socket.send(type="chat", agentId="echo", sessionId="t1", message="theirs")
        for one in (page, second):
            await one.until_texts(*texts, "theirs", "theirs ")


@needs_node
async def test_a_page_has_one_stream_however_often_it_connects(hub: Hub, tmp_path: Path) -> None:
    """React's strict mode connects twice. The page is shown as running in its own run, and is live again after it.

    CopilotKit detaches the page before each run.
    """
    await hub.start()
    gate = tmp_path / "gate"
    async with open_page(hub, "gated") as page:
        for _ in range(3):
            await page.call("connect")
        await page.call("look", "connected")
        await page.until(lambda state: state.get("mark"))
        await page.call("detach")
        await page.call("say", "u1", str(gate))
        state = await page.until(lambda state: read_texts(state)[-1:] == ["one "])
        assert state["isRunning"]
        subscriptions = hub.node.sessions[Key("t1")].channel.subscriptions
        await eventually(lambda: len(subscriptions) == 1)
        gate.touch()
        await page.until_texts(str(gate), "one two")
        socket = await hub.connect("?sessionId=t1")
        await socket.send(type="chat", agentId="echo", sessionId="t1", message="theirs")
        await page.until_texts(str(gate), "one two", "theirs", "theirs ")


@needs_node
async def test_a_second_page_stops_the_answer_and_answers_the_question(hub: Hub, tmp_path: Path) -> None:
    """Both pages show the end."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    gate = tmp_path / "gate"
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="gated", sessionId="t1", message=str(gate))
    async with open_page(hub, "asks") as first, open_page(hub, "asks") as second:
        for page in (first, second):
            await page.until(lambda state: read_texts(state)[-1:] == ["one "])
        await second.call("stop")
        for page in (first, second):
            await page.until_texts(str(gate), "one ")
        await first.call("say", "u1", "go")
        for page in (first, second):
            state = await page.until(lambda state: state["questions"] and not state["isRunning"])
            assert state["questions"][0]["message"] == "Sure?"
        await second.call("answer", "yes")
        for page in (first, second):
            state = await page.until_texts(str(gate), "one ", "go", "Well. ", "yes.")
            assert not state["questions"]


@needs_node
async def test_a_page_can_send_while_an_event_is_applied(hub: Hub) -> None:
    """AG-UI's client replaces the list of messages after the event, but the new message stays in it."""
    await hub.start()
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="echo", sessionId="t1", message="a")
    await socket.until_done()
    async with open_page(hub, "echo") as page:
        await page.until_texts("a", "a ")
        await page.call("hold")
        await page.call("look", "ready")
        await page.until(lambda state: state.get("mark") == "ready")
        await socket.send(type="chat", agentId="echo", sessionId="t1", message="theirs")
        await page.until(lambda state: state.get("mark") == "held")
        await page.call("say", "u1", "mine")
        await page.until_texts("a", "a ", "theirs", "theirs ", "mine", "mine ")


@needs_node
async def test_a_page_that_is_left_in_its_own_run_does_not_connect_again(hub: Hub, tmp_path: Path) -> None:
    """The agent sends no request any more."""
    await hub.start()
    gate = tmp_path / "gate"
    async with open_page(hub, "gated") as page:
        await page.call("say", "u1", str(gate))
        await page.until(lambda state: read_texts(state)[-1:] == ["one "])
        await page.call("detach")
        await page.until(lambda state: not state["isRunning"])
        await page.call("look", "left")
        state = await page.until(lambda state: state.get("mark") == "left")
        assert state["requests"] == 2


@needs_node
async def test_a_page_goes_on_after_a_run_that_fails(hub: Hub) -> None:
    """Such a run ends the stream of AG-UI, so the page connects again."""
    hub.agent("failing.py", "async def failing(message: str):\n    yield 'one '\n    raise ValueError(message)")
    await hub.start()
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="echo", sessionId="t1", message="a")
    await socket.until_done()
    async with open_page(hub, "echo") as page:
        await page.until_texts("a", "a ")
        for agent, message in (("failing", "b"), ("echo", "c")):
            await socket.send(type="chat", agentId=agent, sessionId="t1", message=message)
            await socket.until_type("run_finished")
        await page.until_texts("a", "a ", "b", "one ", "c", "c ")


@needs_node
async def test_a_page_that_is_opened_before_the_first_message_waits_for_it(hub: Hub) -> None:
    """It does not connect again and again. connectAgent() resolves before, because no answer is being written."""
    await hub.start()
    async with open_page(hub, "echo") as page:
        await page.until(lambda state: state["isConnected"])
        socket = await hub.connect("?sessionId=t1", extended=True)
        await socket.send(type="chat", agentId="echo", sessionId="t1", message="a")
        state = await page.until_texts("a", "a ")
        assert state["delay"] == 100  # the shortest


@needs_node
async def test_a_page_with_sign_in_is_connected_before_the_first_message(signed: Hub) -> None:
    """Even though the hub refuses to connect it to a session that does not exist."""
    people = People(signed)
    await people.add("ann")
    async with open_page(signed, "echo", "t1", people.keys["ann"]) as page:
        await page.until(lambda state: state["isConnected"])
        await page.call("say", "u1", "a")
        await page.until_texts("a", "a ")
        socket = await people.connect("ann")
        await people.chat(socket, "echo", "b", "t1")
        await page.until_texts("a", "a ", "b", "b ")


@needs_node
async def test_a_store_shows_that_a_later_connection_is_refused(signed: Hub) -> None:
    """The first one has shown the session: connectAgent() has returned, and rejects no more."""
    people = People(signed)
    await people.add("ann")
    socket = await people.connect("ann")
    await people.chat(socket, "echo", "a", "t1")
    async with open_page(signed, "echo", "t1", people.keys["ann"], script="agent_store.mjs") as page:
        state = await page.until(lambda state: read_texts(state) == ["a", "a "])
        assert "shown" not in state
        await commands.remove_principal(signed.door, OPERATOR, "ann")
        await page.until(lambda state: state.get("shown"))


@needs_node
async def test_a_connection_that_works_resets_the_delay_before_the_next_one(hub: Hub) -> None:
    """An answer that fails ends the connection, so the page waits before it connects again. The delay does not grow."""
    hub.agent("failing.py", "async def failing(message: str):\n    yield 'one '\n    raise ValueError(message)")
    await hub.start()
    socket = await hub.connect("?sessionId=t1", extended=True)
    async with open_page(hub, "failing") as page:
        await page.until(lambda state: state["isConnected"])
        for number in range(1, 4):
            await socket.send(type="chat", agentId="failing", sessionId="t1", message="a")
            await page.until_texts(*number * ("a", "one "))
            await page.until(lambda state: state["requests"] == number + 1 and state["delay"] == 100)


THINKS = """
import asyncio, pathlib
from hub import Reasoning

async def thinks(message: str):
    yield Reasoning(f"about {message}")
    while "/" in message and not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
    yield f"{message}."
"""


@needs_node
async def test_a_page_shows_what_is_left_after_an_edit(hub: Hub, tmp_path: Path) -> None:
    """Not the answer and the reasoning that the edit has removed. Reasoning before the edited message stays."""
    hub.agent("thinks.py", THINKS)
    await hub.start()
    socket = await hub.connect("?sessionId=t1", extended=True)
    async with open_page(hub, "thinks") as page:
        await page.until(lambda state: state["isConnected"])
        ids = []
        for message in ("a", "b"):
            await socket.send(type="chat", agentId="thinks", sessionId="t1", message=message)
            ids.append((await socket.until_type("user_message"))["messageId"])
            await socket.until_type("run_finished")
        await page.until_texts("a", "about a", "a.", "b", "about b", "b.")
        gate = tmp_path / "gate"
        await socket.send(type="edit", sessionId="t1", messageId=ids[1], message=str(gate))
        await page.until(lambda state: read_texts(state)[-1] == f"about {gate}")
        gate.touch()
        await page.until_texts("a", "about a", "a.", str(gate), f"about {gate}", f"{gate}.")
        await socket.send(type="regenerate", sessionId="t1", messageId=ids[0])
        await page.until(lambda state: read_texts(state)[-1] == "a." and str(gate) not in read_texts(state))


TOOLS = [{"name": "get_weather", "description": "", "parameters": {"type": "object"}}]


async def connect(hub: Hub, thread: str, **query: str) -> list[dict[str, Any]]:
    """Return the events of one connection that ends when no run is going on."""
    received = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        url = f"{hub.url}/api/v1/agents/echo/agui/connect"
        async with http.post(url, params={"live": "false", **query}, json=run_request("", "c", thread)) as response:
            assert response.status == 200
            async for line in response.content:
                if line.startswith(b"data: "):
                    received.append(json.loads(line[6:]))
    check_messages(received)
    return received


async def test_the_snapshot_has_tool_calls_and_results_with_the_ids_of_the_events(hub: Hub) -> None:
    """Two messages with one id get different ids."""
    hub.agent("helper.py", HELPER)
    await hub.start()
    calls = await events(hub, "helper", run_request("c1") | {"tools": TOOLS})
    (call_id,) = [event["toolCallId"] for event in calls if event["type"] == "TOOL_CALL_START"]
    body = run_request("c1", "run-2")
    body["messages"] += [{"id": "t7", "role": "tool", "toolCallId": call_id, "content": "sunny"}]
    answer = await events(hub, "helper", body)
    await events(hub, "echo", run_request("again", "run-3"))
    (snapshot,) = [event for event in await connect(hub, "t1") if event["type"] == "MESSAGES_SNAPSHOT"]
    messages = snapshot["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    ids = [message["id"] for message in messages]
    assert ids[:3] == ["u1", call_id, "t7"] and len({*ids}) == 6
    assert ids[3] == next(event["messageId"] for event in answer if event["type"] == "TEXT_MESSAGE_START")
    assert messages[2]["toolCallId"] == call_id and messages[1]["toolCalls"][0]["id"] == call_id


async def test_a_connection_goes_on_after_its_cursor(hub: Hub) -> None:
    """It has no messages then, but the next run with the message that the run answers."""
    await hub.start()
    *_, end = await events(hub, "echo", run_request("one"))
    cursor = end["metadata"]["hubbub"]
    await events(hub, "echo", run_request("two", "run-2"))
    received = await connect(hub, "t1", live="true", **cursor)
    assert received[0]["type"] == "RUN_STARTED" and received[-1]["type"] == "RUN_FINISHED"
    assert [message["content"] for message in received[0]["input"]["messages"]] == ["two"]
    assert received[0]["input"]["tools"] == received[0]["input"]["context"] == []  # clients before AG-UI 1.0 need them
    assert [event["delta"] for event in received if "delta" in event] == ["two "]
    assert [event["type"] for event in await connect(hub, "empty")] == [
        "RUN_STARTED",
        "MESSAGES_SNAPSHOT",
        "RUN_FINISHED",
    ]


async def test_the_snapshot_has_no_message_that_comes_live(hub: Hub, tmp_path: Path) -> None:
    """The log has a message a moment before the hub delivers its event: a connection may begin in between."""
    hub.agent("ends.py", ENDS)
    await hub.start()
    gate = tmp_path / "gate"
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="ends", sessionId="t1", message=str(gate))
    await socket.until_type("stream")
    with hold_results(hub):
        gate.touch()
        connection = await connect_before_delivery(hub, "t1", 2)
    received = await connection
    (snapshot,) = [event for event in received if event["type"] == "MESSAGES_SNAPSHOT"]
    assert [message["content"] for message in snapshot["messages"]] == [str(gate)]
    assert [event["delta"] for event in received if "delta" in event] == ["one "]
    with hold_results(hub):
        await socket.send(type="chat", agentId="echo", sessionId="t1", message="two")
        connection = await connect_before_delivery(hub, "t1", 3)
    received = await connection
    (snapshot,) = [event for event in received if event["type"] == "MESSAGES_SNAPSHOT"]
    assert [message["content"] for message in snapshot["messages"]] == [str(gate), "one "]
    (start,) = [event for event in received if "input" in event]
    assert [message["content"] for message in start["input"]["messages"]] == ["two"]


async def connect_before_delivery(hub: Hub, thread: str, count: int) -> asyncio.Task[list[dict[str, Any]]]:
    """Connect when the log has *count* messages. Return the connection when its subscription has begun."""
    while len(await hub.node.log.sessions.read_last_messages(Key(thread), 9, MiB)) < count:
        pass
    subscriptions = hub.node.sessions[Key(thread)].channel.subscriptions
    previous_count = len(subscriptions)
    connection = asyncio.create_task(connect(hub, thread, live="true"))
    await eventually(lambda: len(subscriptions) > previous_count)
    return connection
