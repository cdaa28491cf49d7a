"""Calls between agents are events of the run, for clients of the extended protocol and of AG-UI."""

import json
from typing import Any

from support.agui import events, run_request
from support.hub import Hub
from support.node import needs_node, run_node

AGENTS = {
    "top": """
        from hub import AgentError

        async def top(run):
            yield "I ask. "
            text = await run.call("middle", run.message)
            try:
                await run.call("failing", "x")
            except AgentError:
                yield text
        """,
    "middle": """
        async def middle(run):
            async for text in run.call("echo", run.message):
                yield text
        """,
    "failing": """
        from hub import AgentError

        async def failing(message: str):
            yield "x"
            raise AgentError("no luck", "out_of_luck")
        """,
    "asker": """
        async def asker(run):
            yield (await run.ask("Sure?")).payload
        """,
    "manager": """
        async def manager(run):
            yield await run.call("asker", "x")
        """,
    "impatient": """
        async def impatient(run):
            async for text in run.call("gated", "/nowhere"):
                break
            await run.call("gated", "/nowhere")
        """,
}


def calls(frames: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the events of calls, with the numbers of the calls instead of their ids."""
    found = []
    for frame in frames:
        if frame["type"].lower().startswith("subagent_"):
            ids = [frame.get(name) for name in ("subagentRunId", "parentSubagentRunId")]
            numbers = [id and int(id.rpartition("-")[2]) for id in ids]
            kind = frame["type"].lower().removeprefix("subagent_")
            found.append((kind, *numbers, frame.get("name") or frame.get("code")))
    return found


EXPECTED = [
    ("started", 1, None, "middle"),
    ("started", 2, 1, "echo"),
    ("finished", 2, None, None),
    ("finished", 1, None, None),
    ("started", 3, None, "failing"),
    ("error", 3, None, "out_of_luck"),
]


async def start(hub: Hub) -> None:
    for name, code in AGENTS.items():
        hub.agent(f"{name}.py", code)
    await hub.start()


async def test_clients_see_the_calls_between_agents(hub: Hub) -> None:
    """Also after a restart. Plain clients get only the text."""
    await start(hub)
    socket, plain = await hub.connect("?sessionId=t1", extended=True), await hub.connect("?sessionId=t1")
    run_events = await events(hub, "top", run_request("hi"))
    await socket.until_done()
    await plain.until_done()
    assert calls(run_events) == calls(socket.frames) == EXPECTED
    assert {frame["type"] for frame in plain.frames} == {"stream"} and plain.text() == socket.text() == "I ask. hi "
    await hub.stop()
    await hub.start()
    late = await hub.connect("?sessionId=t1&afterSeq=0", extended=True)
    await late.until_done()
    assert calls(late.frames) == EXPECTED


async def test_a_call_that_is_cancelled_or_left_has_an_end(hub: Hub) -> None:
    """A caller that needs no more text ends the call; a run that is stopped cancels it."""
    await start(hub)
    socket = await hub.connect("?sessionId=s1", extended=True)
    await socket.send(type="chat", agentId="impatient", sessionId="s1", message="x")
    await socket.find(lambda f: f["type"] == "subagent_started" and f["subagentRunId"].endswith("-2"))
    await socket.send(type="cancel", sessionId="s1")
    await socket.until_done()
    assert sorted(calls(socket.frames)) == [
        ("error", 2, None, "cancelled"),
        ("finished", 1, None, None),
        ("started", 1, None, "gated"),
        ("started", 2, None, "gated"),
    ]


@needs_node
async def test_ag_uis_client_accepts_the_calls(hub: Hub) -> None:
    """Also if a called agent asks a question: the call is suspended then."""
    await start(hub)
    for agent, turns in (("top", [{"message": "hi"}]), ("manager", [{"message": "go"}, {"answer": "yes"}])):
        url = f"{hub.url}/api/v1/agents/{agent}/agui"
        output = json.loads(await run_node("agui_turns.js", url, agent, json.dumps(turns)))
        assert output["errors"] == [] and output["outcomes"][-1] == "success"
    assert output["messages"][-1]["content"] == "yes"
