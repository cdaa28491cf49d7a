"""The slots of an agent with `max_runs`: sessions get a free slot in order of arrival, and no others are woken."""

import asyncio
import gc
import weakref
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.ids import Key
from hub.sessions.schedule import Schedule

# Has one slot. Yields "one ", and ends when the file named by the message exists.
SINGLE = """
    import asyncio, pathlib
    from hub import agent

    @agent(max_runs=1)
    async def single(message: str):
        yield "one "
        while not pathlib.Path(message).exists():
            await asyncio.sleep(0.01)
    """


async def start(hub: Hub) -> Client:
    """Start a hub in which `single` answers in the session s0, until the file s0 exists."""
    hub.agent("single.py", SINGLE)
    await hub.start()
    client = await hub.connect(extended=True)
    await chat(hub, client, "s0")
    await client.until_type("stream")
    return client


async def chat(hub: Hub, client: Client, session: str, agent: str = "single", **more: Any) -> str:
    """Chat; return the id of the run, which ends when the file with the name of the session exists."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=str(hub.folder / session), **more)
    return str((await client.until_type("accepted"))["runId"])


async def queue_run(hub: Hub, client: Client, session: str) -> str:
    """Chat with `single` while another agent answers, and let that answer end; return the id of the queued run."""
    await client.send(type="chat", agentId="gated", sessionId=session, message=str(hub.folder / f"{session}-before"))
    before = (await client.until_type("accepted"))["runId"]
    run = await chat(hub, client, session, ifBusy="enqueue")
    (hub.folder / f"{session}-before").touch()
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == before)
    assert [one.id for one in hub.node.sessions[Key(session)].queued_runs] == [run]
    return run


async def next_started_session(client: Client) -> str:
    return str((await client.until_type("run_started"))["sessionId"])


async def test_the_longest_waiting_session_gets_the_slot(hub: Hub) -> None:
    """Not the session that was in memory first."""
    client = await start(hub)
    names = ["s3", "s1", "s2"]
    for name in sorted(names):
        await client.send(type="subscribe", sessionId=name)
    for name in names:
        await queue_run(hub, client, name)
    client.frames.clear()
    for before, name in zip(["s0", *names], names):
        (hub.folder / before).touch()
        assert await next_started_session(client) == name
    (hub.folder / names[-1]).touch()
    await client.until_done()


async def test_a_freed_slot_wakes_only_sessions_that_wait_for_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 sessions with a queue, only the one with the ended run and the waiting one try to start a run."""
    client = await start(hub)
    for number in range(30):
        for _ in range(2):  # the second one is queued
            await chat(hub, client, f"q{number}", "gated")
    await queue_run(hub, client, "s1")
    looks, look = [], Schedule.wake

    def counted(schedule: Schedule) -> None:
        looks.append(schedule.channel.id)
        look(schedule)

    monkeypatch.setattr(Schedule, "wake", counted)
    (hub.folder / "s0").touch()
    assert await next_started_session(client) == "s1"
    await client.find(lambda frame: frame["type"] == "run_finished" and frame["sessionId"] == "s0")
    assert set(looks) == {"s0", "s1"} and len(looks) <= 3, looks


async def test_a_run_that_is_cancelled_in_the_queue_leaves_the_slot_to_the_next_session(hub: Hub) -> None:
    """The cancelled session leaves memory."""
    client = await start(hub)
    await queue_run(hub, client, "s1")
    await queue_run(hub, client, "s2")
    gone = weakref.ref(hub.node.sessions[Key("s1")].schedule)
    await client.send(type="cancel", sessionId="s1")
    await client.until_done()
    await client.send(type="unsubscribe", sessionId="s1")
    await eventually(lambda: "s1" not in hub.node.sessions)
    await eventually(lambda: gc.collect() >= 0 and gone() is None)
    (hub.folder / "s0").touch()
    assert await next_started_session(client) == "s2"


async def test_a_session_that_is_locked_passes_its_slot_on(hub: Hub) -> None:
    """The slot is not lost. The session waits for the next slot."""
    client = await start(hub)
    for name in ("s1", "s2"):
        await queue_run(hub, client, name)
    async with hub.node.sessions[Key("s1")].admission.pause():
        (hub.folder / "s0").touch()
        assert await next_started_session(client) == "s2"
    (hub.folder / "s2").touch()
    assert await next_started_session(client) == "s1"


async def test_a_run_that_waits_for_a_removed_agent_ends(hub: Hub) -> None:
    """At once, while the last answer of the agent goes on."""
    client = await start(hub)
    run = await queue_run(hub, client, "s1")
    (hub.folder / "agents" / "single.py").unlink()
    await hub.node.agents.reload_changed_agents()
    end = await client.until_done()
    assert (end["runId"], end["stopReason"]) == (run, "error") and hub.node.sessions[Key("s0")].active_runs


async def test_a_reloaded_agent_has_new_slots(hub: Hub) -> None:
    """As many runs start as the new `max_runs` allows; the others go on waiting."""
    client = await start(hub)
    for name in ("s1", "s2"):
        await queue_run(hub, client, name)
    hub.agent("single.py", SINGLE.replace("one ", "another "))
    await hub.node.agents.reload_changed_agents()
    assert await next_started_session(client) == "s1" and len(hub.node.sessions[Key("s2")].queued_runs) == 1
    (hub.folder / "s1").touch()
    assert await next_started_session(client) == "s2"


async def test_an_answer_without_a_session_passes_its_slot_to_a_waiting_session(hub: Hub) -> None:
    """The same as an answer in a session."""
    client = await start(hub)
    (hub.folder / "s0").touch()
    await client.until_done()
    body = {"model": "single", "messages": [{"role": "user", "content": str(hub.folder / "kept-nowhere")}]}
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{hub.url}/v1/chat/completions", json=body).__aenter__())
        await eventually(lambda: hub.node.agents.get_working("single").used_slots == 1)
        await queue_run(hub, client, "s1")
        (hub.folder / "kept-nowhere").touch()
        assert await next_started_session(client) == "s1"
        async with asyncio.timeout(PATIENCE):
            assert (await asking).status == 200


# --- the limit of the hub ---------------------------------------------------------------------------------------------

# Yields what `single` yields, which it calls after the file named by the message exists.
CALLER = """
    import asyncio, pathlib

    async def caller(run):
        while not pathlib.Path(run.message).exists():
            await asyncio.sleep(0.01)
        async for text in run.call("single", run.message):
            yield text
    """


async def fill(hub: Hub, client: Client, *sessions: str, agent: str = "gated") -> None:
    """Let the hub give no more answers than one in each of these sessions, and begin these."""
    hub.node.slots.max_answers = len(sessions)
    for session in sessions:
        assert await chat(hub, client, session, agent)


async def test_a_full_hub_refuses_a_chat_that_would_start(hub: Hub) -> None:
    """With and without a session, also if the agent has a free slot. The next end makes place for one."""
    await hub.start()
    client = await hub.connect(extended=True)
    await fill(hub, client, "s0", "s1")
    for session in ("s2", "s3"):
        await client.send(type="chat", agentId="echo", sessionId=session, message="x", ref=session)
        error = await client.until_type("error")
        assert error["code"] == "busy" and "node_runs" in error["message"] and error["retryAfterMs"] == 1000
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as response:
            assert response.status == 429 and "node_runs" in await response.text()
    (hub.folder / "s0").touch()
    await client.until_done()
    await chat(hub, client, "s2", "gated")
    await client.send(type="chat", agentId="echo", sessionId="s3", message="x", ref="again")
    assert (await client.until_type("error"))["code"] == "busy"


async def test_the_end_of_an_answer_starts_a_run_of_another_agent(hub: Hub) -> None:
    """The run waits although its agent has a free slot, until the hub has room."""
    await hub.start()
    client = await hub.connect(extended=True)
    await fill(hub, client, "s0", "s1")
    await chat(hub, client, "s0", "echo", ifBusy="enqueue")
    hub.node.slots.max_answers = 1
    (hub.folder / "s0").touch()
    await client.until_done()
    (queued,) = hub.node.sessions[Key("s0")].queued_runs
    (hub.folder / "s1").touch()
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == queued.id)


async def test_a_queued_run_waits_until_the_hub_has_room(hub: Hub) -> None:
    """Runs of two agents wait, in two sessions; each end of an answer starts one of them."""
    await hub.start()
    client = await hub.connect(extended=True)
    await fill(hub, client, "s0", "s1")
    for session in ("s0", "s1"):
        await chat(hub, client, session, "echo", ifBusy="enqueue")
        await chat(hub, client, session, "gated", ifBusy="enqueue")
    hub.node.slots.max_answers = 1
    (hub.folder / "s0").touch()
    end = await client.until_done()
    assert end["sessionId"] == "s0" and not hub.node.sessions[Key("s0")].active_runs
    client.frames.clear()
    (hub.folder / "s1").touch()
    running = most = 0
    while sum(frame["type"] == "run_finished" for frame in client.frames) < 5:
        frame = await client.next()
        running += (frame["type"] == "run_started") - (frame["type"] == "run_finished")
        most = max(most, running)
    assert most <= 1
    assert not any(session.queued_runs for session in hub.node.sessions.values())


async def test_a_call_between_agents_does_not_wait_for_room_in_the_hub(hub: Hub) -> None:
    """Nor behind a session that waits for it: else no answer could end."""
    hub.agent("caller.py", CALLER)
    client = await start(hub)  # `single` answers in s0
    await queue_run(hub, client, "s1")
    hub.node.slots.max_answers = 2
    await chat(hub, client, "s2", "caller")
    (hub.folder / "s2").touch()
    await eventually(lambda: len(hub.node.slots._queues["single"]) == 2)
    hub.node.slots.max_answers = 1
    (hub.folder / "s0").touch()
    end = await client.until(lambda frame: frame["type"] == "run_finished" and frame["sessionId"] == "s2")
    assert end["stopReason"] == "end_turn" and hub.node.slots._client_answers <= 1
    await client.find(lambda frame: frame["type"] == "run_started" and frame["sessionId"] == "s1")
    (hub.folder / "s1").touch()
    await eventually(lambda: not hub.node.slots._used_slots)
    await chat(hub, client, "s3", "echo")  # the calls have not counted
