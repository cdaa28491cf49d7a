"""Answers that nobody hears any more: `unheard_seconds` of an agent, and answers without their AG-UI request."""

import asyncio
import json
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import agui
from support.hub import Client, Hub
from support.sockets import HttpConnection
from support.sse import call
from support.waiting import PATIENCE, eventually

HEARD = """
    import asyncio, pathlib
    from hub import agent

    @agent(unheard_seconds={seconds})
    async def {name}(run):
        yield "one "
        if run.message.startswith("ask"):
            await run.ask("Sure?")
        while not pathlib.Path(run.message).exists():
            await asyncio.sleep(0.01)
        yield "two"
    """


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


async def start(hub: Hub, **limits: Any) -> None:
    hub.agent("brief.py", HEARD.format(name="brief", seconds=0.02))
    hub.agent("patient.py", HEARD.format(name="patient", seconds=100))
    await hub.start(**{"ping_seconds": 10_000, "agui_orphan_seconds": 100} | limits)


async def request(hub: Hub, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        return await call(http, method, f"{hub.url}/api/v1{path}", body)


async def chat(hub: Hub, agent: str, message: Any, session: str, query: str = "") -> tuple[int, dict[str, Any]]:
    body = {"agentId": agent, "message": str(message)}
    return await request(hub, "POST", f"/sessions/{session}/chat{query}", body)


async def begin(hub: Hub, agent: str, gate: Any, session: str = "s1") -> Client:
    """Return a client that hears an answer, which has begun."""
    client = await hub.connect(f"?sessionId={session}", extended=True)
    await client.send(type="chat", agentId=agent, sessionId=session, message=str(gate))
    await client.until_type("stream")
    return client


def list_runs(hub: Hub, session: str = "s1") -> list[Any]:
    live = next((live for live in hub.node.sessions.values() if live.id == session), None)
    return live.schedule.list_runs() if live is not None else []


async def wait_for_reason(hub: Hub, session: str = "s1") -> str | None:
    """Wait until no answer is running in the session. Return the stop reason of the last one."""
    await eventually(lambda: not list_runs(hub, session))
    status, page = await request(hub, "GET", f"/sessions/{session}/messages?order=desc&limit=1")
    assert status == 200 and page["data"][0]["role"] == "assistant"
    reason: str | None = page["data"][0].get("stopReason")
    return reason


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds by which the clock of the loop is ahead."""
    loop, ahead = asyncio.get_running_loop(), [0.0]
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])
    return ahead


# --- unheard_seconds --------------------------------------------------------------------------------------------------


async def test_an_answer_that_nobody_hears_any_more_is_cancelled(hub: Hub, gate: Path) -> None:
    await start(hub)
    client = await begin(hub, "brief", gate)
    await client.close()
    assert await wait_for_reason(hub) == "cancelled"


async def test_an_answer_is_cancelled_only_when_its_last_client_has_left(hub: Hub, gate: Path) -> None:
    """A client of the agent's group counts as one of the session."""
    await start(hub)
    group = await hub.connect(extended=True)
    await group.send(type="subscribe", agentId="brief")
    await group.until_type("subscribed")
    client = await begin(hub, "brief", gate)
    await group.until_type("stream")
    other = await begin(hub, "brief", gate, "s2")
    await other.send(type="unsubscribe", sessionId="s2")
    await client.send(type="unsubscribe", sessionId="s1")
    unheard = await begin(hub, "brief", gate, "s3")
    await group.send(type="unsubscribe", agentId="brief")
    assert await wait_for_reason(hub) == "cancelled"
    assert await wait_for_reason(hub, "s2") == "cancelled"
    assert len(list_runs(hub, "s3")) == 1
    await unheard.close()


async def test_an_answer_that_nobody_has_heard_goes_on(hub: Hub, gate: Path) -> None:
    """A message over HTTP has no listener. Meanwhile another answer is cancelled."""
    await start(hub)
    status, _ = await chat(hub, "brief", gate, "s1")
    assert status == 202
    for _ in range(2):
        other = await begin(hub, "brief", gate, "s2")
        await other.close()
        assert await wait_for_reason(hub, "s2") == "cancelled"
    gate.touch()
    assert await wait_for_reason(hub) is None


async def test_an_agent_without_the_limit_goes_on(hub: Hub, gate: Path) -> None:
    await start(hub)
    client = await begin(hub, "gated", gate)
    await client.close()
    other = await begin(hub, "brief", gate, "s2")
    await other.close()
    assert await wait_for_reason(hub, "s2") == "cancelled"
    gate.touch()
    assert await wait_for_reason(hub) is None


async def test_a_request_that_waits_hears_its_answer(hub: Hub, gate: Path) -> None:
    """A client of the session comes and leaves meanwhile."""
    await start(hub)
    waiting = asyncio.create_task(chat(hub, "brief", gate, "s1", "?wait=true"))
    client = await hub.connect("?sessionId=s1", extended=True)
    await client.until_type("stream")
    await client.close()
    other = await begin(hub, "brief", gate, "s2")
    await other.close()
    assert await wait_for_reason(hub, "s2") == "cancelled"
    gate.touch()
    status, outcome = await waiting
    assert (status, outcome["stopReason"]) == (200, "end_turn")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/sessions/s1/chat?wait=true", {"agentId": "brief", "message": ""}),
        ("/v1/chat/completions", {"model": "brief", "messages": [{"role": "user", "content": ""}], "sessionId": "s1"}),
    ],
    ids=["chat", "openai"],
)
async def test_a_request_hears_no_answer_when_its_client_has_left(
    hub: Hub, gate: Path, path: str, body: dict[str, Any]
) -> None:
    await start(hub)
    text = json.dumps(body).replace('""', json.dumps(str(gate)))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client = await hub.connect("?sessionId=s1", extended=True)
    async with AsyncExitStack() as stack:
        connection = await HttpConnection.open(hub.port, stack)
        connection.writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        await client.until_type("stream")
        await client.close()
    assert await wait_for_reason(hub) == "cancelled"


async def test_the_limit_does_not_count_while_a_question_is_open(hub: Hub, gate: Path) -> None:
    """After the reply it counts again."""
    await start(hub)
    client = await begin(hub, "brief", "ask")
    question = await client.find(lambda frame: frame["type"] == "interrupt")
    await client.close()
    other = await begin(hub, "brief", gate, "s2")
    await other.close()
    assert await wait_for_reason(hub, "s2") == "cancelled"
    assert len(list_runs(hub)) == 1
    body = {"interruptId": question["id"], "status": "resolved"}
    status, _ = await request(hub, "POST", "/sessions/s1/resume", body)
    assert status == 200
    assert await wait_for_reason(hub) == "cancelled"


async def test_a_queued_answer_is_cancelled_only_after_its_start(hub: Hub, gate: Path) -> None:
    await start(hub)
    client = await begin(hub, "gated", gate)
    await client.send(type="chat", agentId="brief", sessionId="s1", message="none", ifBusy="enqueue", ref=1)
    assert (await client.until_type("accepted"))["status"] == "queued"
    await client.close()
    other = await begin(hub, "brief", gate, "s2")
    await other.close()
    assert await wait_for_reason(hub, "s2") == "cancelled"
    assert len(list_runs(hub)) == 2
    gate.touch()
    assert await wait_for_reason(hub) == "cancelled"


async def test_the_time_is_measured_from_the_last_client(hub: Hub, gate: Path, clock: list[float]) -> None:
    await start(hub)
    await (await begin(hub, "patient", gate)).close()
    await eventually(lambda: not hub.node.registry.connections)
    clock[0] += 80
    second = await hub.connect("?sessionId=s1", extended=True)
    await second.until_type("stream")
    clock[0] += 80  # the time of the first client is over now
    await second.send(type="ping")
    await second.until_type("pong")
    await second.close()
    await eventually(lambda: not hub.node.registry.connections)
    clock[0] += 80
    await (await begin(hub, "echo", "hello", "s2")).close()
    assert len(list_runs(hub)) == 1
    clock[0] += 40
    assert await wait_for_reason(hub) == "cancelled"


# --- answers without their AG-UI request ------------------------------------------------------------------------------


async def cut(hub: Hub, gate: Path, run_id: str = "run-1") -> list[dict[str, Any]]:
    """Ask with AG-UI, and disconnect during the answer."""
    received = await agui.events(hub, "gated", agui.run_request(str(gate), run_id), most=3)
    await eventually(lambda: not hub.node.registry.connections)
    return received


async def test_a_new_message_cancels_an_answer_whose_request_has_ended(hub: Hub, gate: Path) -> None:
    """It does not wait for the answer."""
    await start(hub, agui_orphan_seconds=3600)
    await cut(hub, gate)
    answer = await agui.events(hub, "echo", agui.run_request("stop that", "run-2"))
    assert agui.text(answer) == "stop that "
    status, page = await request(hub, "GET", "/sessions/t1/messages")
    reasons = [message.get("stopReason") for message in page["data"] if message["role"] == "assistant"]
    assert (status, reasons) == (200, ["cancelled", None])


async def test_a_new_message_waits_for_an_answer_that_others_began(hub: Hub, gate: Path) -> None:
    await start(hub, agui_orphan_seconds=3600)
    client = await begin(hub, "gated", gate, "t1")
    waiting = asyncio.create_task(agui.events(hub, "gated", agui.run_request(str(gate), "run-2")))
    await client.until(lambda frame: frame["type"] == "state" and frame["queue"])
    gate.touch()
    assert agui.text(await asyncio.wait_for(waiting, PATIENCE)) == "one two"
    await client.until_done()
    assert client.text().startswith("one two")


async def test_an_answer_whose_request_has_ended_can_be_cancelled_at_once(hub: Hub, gate: Path) -> None:
    await start(hub, agui_orphan_seconds=0)
    await agui.events(hub, "gated", agui.run_request(str(gate)), most=3)
    assert await wait_for_reason(hub, "t1") == "cancelled"


async def test_an_answer_whose_request_has_ended_is_cancelled_later(hub: Hub, gate: Path, clock: list[float]) -> None:
    await start(hub)
    await cut(hub, gate)
    clock[0] += 80
    await (await begin(hub, "echo", "hello", "s2")).close()
    assert len(list_runs(hub, "t1")) == 1
    clock[0] += 40
    assert await wait_for_reason(hub, "t1") == "cancelled"


async def test_an_answer_that_is_asked_for_again_goes_on(hub: Hub, gate: Path, clock: list[float]) -> None:
    """The new request gets the rest. Then a new message waits for the answer."""
    await start(hub)
    received = await cut(hub, gate)
    clock[0] += 95
    again = agui.run_request(str(gate))
    waiting = asyncio.create_task(agui.events(hub, "gated", again, **{"Last-Event-ID": received[-1]["id"]}))
    await eventually(lambda: hub.node.registry.connections)
    clock[0] += 10  # the time of the first request is over now, and that of the new request is not
    later = asyncio.create_task(agui.events(hub, "gated", agui.run_request(str(gate), "run-2")))
    await eventually(lambda: len(list_runs(hub, "t1")) == 2)
    gate.touch()
    assert agui.text(received + await asyncio.wait_for(waiting, PATIENCE)) == "one two"
    assert agui.text(await asyncio.wait_for(later, PATIENCE)) == "one two"


async def test_an_answer_that_somebody_hears_after_the_time_goes_on(hub: Hub, gate: Path, clock: list[float]) -> None:
    """It is no orphan any more, so a new message waits for it."""
    await start(hub)
    client = await hub.connect("?sessionId=t1", extended=True)
    await agui.events(hub, "gated", agui.run_request(str(gate)), most=3)
    await eventually(lambda: len(hub.node.registry.connections) == 1)
    clock[0] += 120
    await client.send(type="chat", agentId="echo", sessionId="t1", message="later", ifBusy="enqueue", ref=1)
    assert (await client.until_type("accepted"))["status"] == "queued"
    gate.touch()
    await client.until_done()
    await client.until_done()
    assert client.text() == "one twolater "


async def test_an_answer_that_is_asked_for_again_goes_on_while_a_new_message_is_stored(hub: Hub, gate: Path) -> None:
    """The log is slow: the request comes between the start and the end of the commit."""
    await start(hub, agui_orphan_seconds=3600)
    received = await cut(hub, gate)
    with closing(sqlite3.connect(hub.folder / "data" / "hub.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        later = asyncio.create_task(agui.events(hub, "echo", agui.run_request("later", "run-2")))
        await eventually(lambda: len(list_runs(hub, "t1")) == 2)
        again = agui.run_request(str(gate))
        waiting = asyncio.create_task(agui.events(hub, "gated", again, **{"Last-Event-ID": received[-1]["id"]}))
        await eventually(lambda: hub.node.registry.connections)
    assert agui.text(await asyncio.wait_for(later, PATIENCE)) == "later "
    gate.touch()
    assert agui.text(received + await asyncio.wait_for(waiting, PATIENCE)) == "one two"


async def test_a_queued_answer_stays_queued_when_the_hub_ends_its_request(hub: Hub, gate: Path) -> None:
    """The next start answers it, as any other."""
    await start(hub, agui_orphan_seconds=0)
    client = await begin(hub, "gated", gate, "t1")
    waiting = asyncio.create_task(agui.events(hub, "gated", agui.run_request(str(gate))))
    await client.until(lambda frame: frame["type"] == "state" and frame["queue"])
    await eventually(lambda: len(hub.node.registry.connections) == 2)
    await hub.stop()
    await asyncio.wait([waiting])
    gate.touch()
    await hub.start()
    assert await wait_for_reason(hub, "t1") is None


async def test_a_question_ends_the_request_and_leaves_the_answer(hub: Hub, clock: list[float]) -> None:
    await start(hub)
    hub.agent("asks.py", 'async def asks(run):\n    yield (await run.ask("Sure?")).payload')
    await hub.node.agents.reload("asks")
    received = await agui.events(hub, "asks", agui.run_request("hello"))
    (question,) = received[-1]["outcome"]["interrupts"]
    await eventually(lambda: not hub.node.registry.connections)
    clock[0] += 120
    await (await begin(hub, "echo", "hello", "s2")).close()
    resume = [{"interruptId": question["id"], "status": "resolved", "payload": "yes"}]
    body = agui.run_request("hello", "run-2") | {"resume": resume}
    assert agui.text(await agui.events(hub, "asks", body)) == "yes"
