"""An agent's limits apply to each of its answers, whoever asked for it and by which route."""

import asyncio
import random
import sys
import textwrap
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.agui import run_request
from support.hub import Client, Hub
from support.sse import post
from support.waiting import PATIENCE, eventually

from hub.ids import Key

HEAD = "import asyncio, pathlib, threading\nfrom hub import AgentError, Run, agent\nGATE = threading.Event()\n"
# Each says "a" and goes on until its GATE is open.
AGENTS = {
    "slow": "@agent(time_limit=0.05)\nasync def slow(message):\n    while True:\n        yield 'a'\n"
    "        await asyncio.sleep(0.001)",
    "silent": "@agent(silence_limit=0.05)\nasync def silent(message):\n    yield 'a'\n    await asyncio.Event().wait()",
    "blocking": "@agent(silence_limit=0.05)\ndef blocking(message):\n    yield 'a'\n    GATE.wait()",
    "stubborn": "@agent(time_limit=0.05)\nasync def stubborn(message):\n    yield 'a'\n    while not GATE.is_set():\n"
    "        try:\n            await asyncio.sleep(0.01)\n        except asyncio.CancelledError:\n            pass\n"
    "    for _ in range(99):\n        yield 'late'",
}
SINGLE = """
@agent(max_runs=1)
async def single(message):
    yield 'a'
    while not GATE.is_set():
        await asyncio.sleep(0.01)
"""
CALLER = """
async def caller(run: Run):
    try:
        yield await run.call(*run.message.split())
    except AgentError as error:
        yield error.code
"""
Http = aiohttp.ClientSession
Way = Callable[[Hub, Http, str], Awaitable[str]]


async def by_websocket(hub: Hub, http: Http, agent: str) -> str:
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId=agent, sessionId="by-websocket", message="go now")
    end = await client.until(lambda frame: frame["type"] in ("run_finished", "error"))
    return str(end.get("stopReason") or end["code"])


async def by_openai(hub: Hub, http: Http, agent: str, **more: Any) -> str:
    body = {"model": agent, "messages": [{"role": "user", "content": "go now"}], **more}
    async with http.post("chat/completions", json=body) as response:
        return await response.text()


async def by_openai_stream(hub: Hub, http: Http, agent: str) -> str:
    return await by_openai(hub, http, agent, stream=True)


async def by_openai_in_a_session(hub: Hub, http: Http, agent: str) -> str:
    return await by_openai(hub, http, agent, sessionId="by-openai")


async def by_agui(hub: Hub, http: Http, agent: str) -> str:
    async with http.post(f"agents/{agent}/agui", json=run_request("go now", thread_id="by-agui")) as response:
        return await response.text()


async def by_call(hub: Hub, http: Http, agent: str) -> str:
    return await said(http, "caller", f"{agent} go")


async def by_nested_call(hub: Hub, http: Http, agent: str) -> str:
    return await said(http, "outer", f"{agent} go")


async def said(http: Http, agent: str, message: str) -> str:
    """Return an agent's answer to a message in a session of its own."""
    _, answer = await post(http, f"sessions/by-{agent}/chat?wait=true", {"agentId": agent, "message": message})
    return str(answer["content"])


CALLS = [by_call, by_nested_call]
WAYS = [by_websocket, by_openai, by_openai_stream, by_openai_in_a_session, by_agui, *CALLS]


async def begin(hub: Hub) -> Http:
    for name, code in AGENTS.items():
        hub.agent(f"{name}.py", HEAD + code)
    hub.agent("single.py", HEAD + SINGLE)
    hub.agent("caller.py", HEAD + CALLER)
    hub.agent("outer.py", "async def outer(run):\n    yield await run.call('caller', run.message)")
    await hub.start(grace_seconds=0.05)
    return Http(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE))


def open_gate(hub: Hub, agent: str) -> None:
    """Let the code of an agent end."""
    sys.modules[f"hubbub_agents.{agent}"].GATE.set()


async def is_free(hub: Hub, agent: str) -> None:
    one = hub.node.agents.get_working(agent)
    await eventually(lambda: one.running_answers == one.used_slots == 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("agent", AGENTS)
async def test_time_and_silence_have_their_limits(hub: Hub, way: Way, agent: str) -> None:
    """The answer ends, even if the agent blocks a thread or ignores its cancel; then its place is free again."""
    async with await begin(hub) as http:
        assert "timeout" in await way(hub, http, agent)
        open_gate(hub, agent)
        await is_free(hub, agent)


@pytest.mark.parametrize("way", WAYS)
async def test_an_agent_gives_so_many_answers_on_all_ways(hub: Hub, way: Way) -> None:
    """While a call has the only place, a new chat gets `busy`, and another call waits."""
    async with await begin(hub) as http:
        single = hub.node.agents.get_working("single")
        holder = await hub.connect(extended=True)
        await holder.send(type="chat", agentId="caller", sessionId="holder", message="single go")
        await eventually(lambda: single.used_slots == 1)
        if way in CALLS:
            waiting = asyncio.create_task(way(hub, http, "single"))
            await eventually(lambda: waits(hub))
        else:
            assert "busy" in await way(hub, http, "single")
        assert (single.running_answers, single.used_slots) == (1, 1)
        open_gate(hub, "single")
        async with asyncio.timeout(PATIENCE):
            if way in CALLS:
                assert await waiting == "a"
            await is_free(hub, "single")
            assert "busy" not in await way(hub, http, "single")


def waits(hub: Hub) -> int:
    """Return how many calls and sessions wait for a slot."""
    return len(hub.node.slots._agent_ids_by_waiter)


async def holding(hub: Hub) -> Client:
    """Return a client whose chat with `single` has its place."""
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="single", sessionId="holder", message="go")
    await client.until_type("stream")
    return client


async def call_single(hub: Hub, client: Client, session: str) -> str:
    """Let the caller call `single`, and return its run's id when it waits."""
    before = waits(hub)
    await client.send(type="chat", agentId="caller", sessionId=session, message="single go")
    run = (await client.until_type("accepted"))["runId"]
    await eventually(lambda: waits(hub) == before + 1)
    return str(run)


async def test_a_call_that_waits_is_cancelled_with_its_caller(hub: Hub) -> None:
    """The next call in the queue takes its turn."""
    async with await begin(hub):
        client = await holding(hub)
        gone = await call_single(hub, client, "s1")
        next_one = await call_single(hub, client, "s2")
        await client.send(type="cancel", sessionId="s1")
        end = await client.until_type("run_finished")
        assert (end["runId"], end["stopReason"], waits(hub)) == (gone, "cancelled", 1)
        open_gate(hub, "single")
        end = await client.until(lambda f: f["type"] == "run_finished" and f["runId"] == next_one)
        assert end["stopReason"] == "end_turn" and client.text(next_one) == "a"
        await is_free(hub, "single")


async def test_a_call_that_is_cancelled_as_it_gets_its_place_gives_it_on(hub: Hub) -> None:
    """Both in one step of the loop: the place is neither lost nor taken twice."""
    async with await begin(hub):
        client = await holding(hub)
        gone = await call_single(hub, client, "s1")
        slots = hub.node.slots
        request = next(iter(slots._agent_ids_by_waiter))
        slots.set_queues(request, frozenset())
        request.wake()
        hub.node.sessions[Key("s1")].active_runs[gone].stop("cancelled")
        assert hub.node.agents.get_working("single").used_slots == 2
        await client.until_type("run_finished")
        assert hub.node.agents.get_working("single").used_slots == 1
        open_gate(hub, "single")
        await client.until_type("run_finished")
        await is_free(hub, "single")


async def test_a_call_that_waits_for_an_agent_that_goes_fails(hub: Hub) -> None:
    """With the code that a new call of that agent would get."""
    async with await begin(hub):
        client = await holding(hub)
        run = await call_single(hub, client, "s1")
        (hub.folder / "agents" / "single.py").unlink()
        await hub.node.agents.reload_changed_agents()
        await client.until(lambda f: f["type"] == "run_finished" and f["runId"] == run)
        assert client.text(run) == "unknown_agent"


async def test_a_call_ends_with_the_answer_that_called_it(hub: Hub) -> None:
    """Also if that answer does not wait for the call. A call that still waits for a place gets none."""
    leaves = """
        LEFT = []

        async def leaves(run: Run):
            for _ in range(2):
                LEFT.append(aiter(run.call("single", "go")))
            LEFT.append(asyncio.create_task(anext(LEFT[1])))
            yield await anext(LEFT[0]) if run.message == "takes" else "nothing"
            await asyncio.sleep(0)
        """
    async with await begin(hub) as http:
        hub.agent("leaves.py", HEAD + textwrap.dedent(leaves))
        await hub.node.agents.reload_changed_agents()
        assert await said(http, "leaves", "takes") == "a"
        await is_free(hub, "single")
        assert waits(hub) == 0


@pytest.mark.parametrize("circle", ["a", "a b", "a b c"])
async def test_agents_that_call_each_other_in_a_circle_do_not_hang(hub: Hub, circle: str) -> None:
    """The call that would wait for itself fails with `call_deadlock`."""
    names = circle.split()
    for name, other in zip(names, [*names[1:], names[0]]):
        calls = f"yield '{name} '\n    async for text in run.call('{other}', ''):\n        yield text"
        hub.agent(f"{name}.py", f"from hub import agent\n@agent(max_runs=1)\nasync def {name}(run):\n    {calls}")
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="a", sessionId="s1", message="go")
    error = await client.until_type("run_error")
    assert error["code"] == "call_deadlock" and "max_runs" in error["message"]
    assert client.text() == "".join(f"{name} " for name in names)


# Says "in", waits for the file of its session, then calls the other agent.
CROSSES = """
import asyncio, pathlib
from hub import AgentError, agent

@agent(max_runs=MOST)
async def NAME(run):
    yield "in "
    if run.message == "end":
        return
    while not pathlib.Path(run.message).exists():
        await asyncio.sleep(0.01)
    try:
        yield await run.call("OTHER", "end")
    except AgentError as error:
        yield error.code
"""


@pytest.mark.parametrize("most", [1, 2])
async def test_answers_that_would_wait_for_each_other_do_not_hang(hub: Hub, most: int) -> None:
    """All answers of two agents call the other agent: the last of these calls fails, and the others go on."""
    for name, other in (("ann", "bob"), ("bob", "ann")):
        hub.agent(f"{name}.py", CROSSES.replace("MOST", str(most)).replace("NAME", name).replace("OTHER", other))
    await hub.start()
    client = await hub.connect(extended=True)
    for number in range(most):
        for name in ("ann", "bob"):
            await client.send(
                type="chat", agentId=name, sessionId=f"{name}{number}", message=str(hub.folder / f"{name}{number}")
            )
            await client.until_type("stream")
    calls = [f"{name}{number}" for number in range(most) for name in ("ann", "bob")]
    for index, session in enumerate(calls[:-1]):
        (hub.folder / session).touch()
        await eventually(lambda: waits(hub) == index + 1)
    (hub.folder / calls[-1]).touch()
    for _ in calls:
        await client.until_done()
    texts = [text for text in client.text().split("in ") if text]
    assert "".join(texts).count("call_deadlock") == 1
    for name in ("ann", "bob"):
        await is_free(hub, name)


async def test_a_call_waits_for_an_answer_that_waits_for_another(hub: Hub) -> None:
    """A call that has to wait is not refused if there is no circle."""
    middle = "@agent(max_runs=1)\nasync def middle(run):\n    yield await run.call('single', '')"
    hub.agent("middle.py", HEAD + middle)
    async with await begin(hub):
        client = await holding(hub)
        for session in ("s1", "s2"):  # the first has the place of `middle`, and waits for that of `single`
            await client.send(type="chat", agentId="caller", sessionId=session, message="middle go")
            await client.until_type("accepted")
        await eventually(lambda: waits(hub) == 2)
        open_gate(hub, "single")
        for _ in range(3):
            assert (await client.until_done())["stopReason"] == "end_turn"
        assert client.text() == "aaa"


ASKS = """
@agent(silence_limit=1000)
async def asks(run):
    yield str((await run.ask("Go?")).payload)
"""


async def test_a_called_agent_may_wait_for_people(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its question is open, its silence limit does not count, but its time limit does."""
    loop, ahead = asyncio.get_running_loop(), [0.0]
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])
    hub.agent("asks.py", HEAD + ASKS)
    hub.agent("waits.py", HEAD + ASKS.replace("silence_limit=1000", "time_limit=0.05").replace("asks", "waits"))
    hub.agent("through.py", "async def through(run):\n    yield await run.call(run.message, '')")
    await hub.start(ping_seconds=10_000)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="through", sessionId="s1", message="asks")
    question = await client.until_type("interrupt")
    ahead[0] += 1500
    other = await hub.connect()
    await other.send(type="chat", agentId="echo", message="the hub looks at its timers meanwhile")
    await other.until_done()
    await client.send(type="resume", sessionId="s1", interruptId=question["id"], status="resolved", payload="gone")
    await client.until_done()
    assert client.text() == "gone"
    await client.send(type="chat", agentId="through", sessionId="s1", message="waits")
    assert (await client.until_type("run_error"))["code"] == "timeout"


CROWD = """
import asyncio, random
from hub import AgentError, agent

async def one(call):
    try:
        await call
    except AgentError as error:
        assert error.code == "call_deadlock"

@agent(max_runs=MOST)
async def NAME(run):
    depth, seed = map(int, run.message.split())
    chance = random.Random(seed)
    for _ in range(chance.randrange(9)):
        await asyncio.sleep(0)
    yield "x"
    for _ in range(2 if depth else 0):
        calls = [
            run.call(f"c{chance.randrange(4)}", f"{depth - 1} {chance.randrange(10**9)}")
            for _ in range(chance.randrange(1, 4))
        ]
        if chance.random() < 0.2:
            calls, left = calls[1:], aiter(calls[0])
            await one(anext(left))
        await asyncio.gather(*map(one, calls))
"""


@pytest.mark.parametrize("seed", range(3))
async def test_agents_that_call_each_other_at_random_all_end(hub: Hub, seed: int) -> None:
    """Whatever waits for what, also where calls are left and runs are cancelled; and no place is lost."""
    chance = random.Random(seed)
    for number in range(4):
        name, most = f"c{number}", str(chance.randrange(1, 3))
        hub.agent(f"{name}.py", CROWD.replace("MOST", most).replace("NAME", name))
    await hub.start()
    client = await hub.connect(extended=True)
    for number in range(60):
        where = {"agentId": f"c{chance.randrange(4)}", "sessionId": f"s{number % 20}"}
        await client.send(type="chat", **where, message=f"{chance.randrange(4)} {chance.randrange(10**9)}")
        if chance.random() < 0.2:
            await client.send(type="cancel", sessionId=f"s{chance.randrange(20)}", queued=True)
        answer = await client.until(lambda frame: frame["type"] == "accepted" or frame.get("code") == "busy")
        if chance.random() < 0.3 and answer["type"] == "accepted":
            await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == answer["runId"])
    runs = {frame["runId"] for frame in client.frames if frame["type"] == "accepted"}
    for run in runs:
        end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run)
        assert end["stopReason"] in ("end_turn", "cancelled")
    for number in range(4):
        await is_free(hub, f"c{number}")
    assert not waits(hub) and not hub.node.slots._used_slots


async def test_a_plain_function_calls_no_other_agent(hub: Hub) -> None:
    """Its coroutines run in a loop of their own, to which places mean nothing; it is told so."""
    hub.agent(
        "plain.py", "async def go(run):\n    return await run.call('echo', 'hi')\n\ndef plain(run):\n    return go(run)"
    )
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="plain", sessionId="s1", message="go")
    error = await client.until_type("run_error")
    assert error["message"] == "agent plain can call another agent only in an `async def` function"
    assert hub.node.agents.get_working("echo").running_answers == 0
