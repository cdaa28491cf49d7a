"""AG-UI: front-end tools, shared state, snake_case, and the checks of AG-UI's own client."""

import json
import re
from typing import Any

import aiohttp
from support.agents import EVERYTHING
from support.agui import events, run_request, text
from support.hub import Hub
from support.node import needs_node, run_node
from support.tools import HELPER

from hub.ids import Key
from hub.limits import Limits, MiB
from hub.protocols.agui_request import make_call_id, read_call_id, read_messages

TOOLS = [{"name": "get_weather", "description": "of a city", "parameters": {"type": "object"}}]
SHARED = {"state": {"a": 1}, "context": [{"description": "place", "value": "Rome"}], "forwardedProps": {"p": [1]}}
MIRROR = """
import attrs, json
from hub import agent

@agent(tools=True)
async def mirror(run):
    yield json.dumps({"request": attrs.asdict(run.request), "parts": list(run.parts), "message": run.message})
"""


def call_ids(run_events: list[dict[str, Any]]) -> list[str]:
    return [event["toolCallId"] for event in run_events if event["type"] == "TOOL_CALL_START"]


def tool_message(call_id: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"id": f"t-{call_id}", "role": "tool", "toolCallId": call_id, "content": content} | fields


async def test_tools_and_what_the_client_shares_reach_the_agent(hub: Hub) -> None:
    """An empty state and empty props are no request."""
    hub.agent("mirror.py", MIRROR)
    await hub.start()
    seen = json.loads(text(await events(hub, "mirror", run_request("hi") | SHARED | {"tools": TOOLS})))["request"]
    assert seen["tools"] == [{**TOOLS[0], "strict": None}]
    assert (seen["state"], seen["context"], seen["forwarded"]) == tuple(SHARED.values())
    empty = json.loads(text(await events(hub, "mirror", run_request("hi", "run-2"))))["request"]
    assert (empty["state"], empty["forwarded"], empty["tools"], empty["context"]) == (None, None, [], [])


async def test_the_result_of_a_front_end_tool_continues_in_a_new_run(hub: Hub) -> None:
    """The calls end their run. Their ids are unique in the thread, and the agent gets its own ids back."""
    hub.agent("helper.py", HELPER)
    await hub.start()
    for turn in (1, 2):
        calls = await events(hub, "helper", run_request("c1 c2", f"run-{turn}") | {"tools": TOOLS})
        assert calls[-1]["result"] == {"stopReason": "tool_calls"} and "outcome" not in calls[-1]
        first, second = ids = call_ids(calls)
        body = run_request("c1 c2", f"after-{turn}") | {"tools": TOOLS}
        body["messages"] += [tool_message(first, "sunny"), tool_message(second, "", error="no sun")]
        answer = await events(hub, "helper", body)
        assert json.loads(text(answer))["results"] == ["c1=sunny", "c2=no sun"]
        assert text(await events(hub, "helper", body)) == text(answer)  # the same run again
    assert ids != call_ids(await events(hub, "helper", run_request("c1 c2", "run-1") | {"tools": TOOLS}))
    last, _ = await hub.node.log.sessions.read_last_messages(Key("t1"), 2, MiB)
    assert [part.get("isError") for part in last.parts or ()] == [None, True]


async def test_two_calls_with_one_id_in_an_answer_have_ids_of_their_own(hub: Hub) -> None:
    """So each gets its own result; an id that looks like the second one is not used twice either."""
    hub.agent("helper.py", HELPER)
    await hub.start()
    ids = call_ids(await events(hub, "helper", run_request("c1 c1 c1-2 c1") | {"tools": TOOLS}))
    assert len({*ids}) == 4
    results = [tool_message(id, str(number)) for number, id in enumerate(ids)]
    body = run_request("", "run-2")
    answer = json.loads(text(await events(hub, "helper", body | {"messages": results})))
    assert answer["results"] == ["c1=0", "c1-2=1", "c1-2-2=2", "c1-3=3"]
    assert [call for line in answer["history"] for call in re.findall(r"[\w-]+\(", line)] == [
        *("c1(", "c1-2(", "c1-2-2(", "c1-3(")
    ]


async def test_a_result_before_a_message_is_sent_with_it(hub: Hub) -> None:
    """If the session has the result already, only the message is sent."""
    hub.agent("helper.py", HELPER)
    await hub.start()
    (call_id,) = call_ids(await events(hub, "helper", run_request("c1") | {"tools": TOOLS}))
    for run_id in ("run-2", "run-3"):
        body = run_request("c1", run_id)
        body["messages"] += [tool_message(call_id, "sunny"), {"id": "u2", "role": "user", "content": "and now?"}]
        said = json.loads(text(await events(hub, "helper", body)))
        assert said["results"] == (["c1=sunny"] if run_id == "run-2" else [])


async def test_a_result_is_not_taken_for_that_of_a_later_call_with_the_same_id(hub: Hub) -> None:
    """The client sends an old result again, with a new `runId`. The later call stays open."""
    hub.agent("helper.py", HELPER)
    await hub.start()
    (first,) = call_ids(await events(hub, "helper", run_request("c1") | {"tools": TOOLS}))
    body = run_request("c1", "run-2") | {"messages": [tool_message(first, "sunny")]}
    await events(hub, "helper", body)
    (second,) = call_ids(await events(hub, "helper", run_request("c1", "run-3") | {"tools": TOOLS}))
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/helper/agui", json=body | {"runId": "run-4"}) as response:
            assert (response.status, (await response.json())["code"]) == (409, "tool_call_answered")
    answer = await events(hub, "helper", body | {"runId": "run-4", "messages": [tool_message(second, "rain")]})
    assert json.loads(text(answer))["results"] == ["c1=rain"]


async def test_a_call_in_a_fork_gets_its_result(hub: Hub) -> None:
    """The messages of a fork have no run, so their calls have the agent's own ids."""
    assert read_call_id(make_call_id("c1", "")) == "c1"


async def test_an_answer_to_an_unknown_call_is_refused(hub: Hub) -> None:
    """So is a second result, and a message that only repeats a result of the agent."""
    hub.agent("helper.py", HELPER)
    await hub.start()
    (call_id,) = call_ids(await events(hub, "helper", run_request("c1") | {"tools": TOOLS}))
    body = run_request("c1", "run-2") | {"messages": [tool_message(call_id, "sunny")]}
    await events(hub, "helper", body)
    cases = [
        (body | {"runId": "run-3"}, 409),
        (body | {"runId": "run-3", "messages": [tool_message("c9", "x")]}, 404),
        (body | {"runId": "run-3", "messages": [tool_message("c9", "x", id="c9-result")]}, 400),
        (body | {"runId": "run-3", "messages": [tool_message("c9", 7)]}, 400),
        (body | {"runId": "run-3", "messages": [{"role": "tool", "content": "x"}]}, 400),
    ]
    async with aiohttp.ClientSession() as http:
        for case, status in cases:
            async with http.post(f"{hub.url}/api/v1/agents/helper/agui", json=case) as response:
                assert response.status == status, case


async def test_fields_in_snake_case_are_read(hub: Hub) -> None:
    """Of the request, of its messages, of parts, and of answers to questions."""
    hub.agent("mirror.py", MIRROR)
    await hub.start()
    source = {"type": "data", "value": "aGk=", "mime_type": "image/png"}
    body = {
        "thread_id": "t1",
        "run_id": "run-1",
        "forwarded_props": {"snake_case": 1},
        "messages": [{"id": "u1", "role": "user", "content": [{"type": "image", "source": source}]}],
    }
    run_events = await events(hub, "mirror", body)
    seen = json.loads(text(run_events))
    assert run_events[0]["runId"] == "run-1" and seen["request"]["forwarded"] == {"snake_case": 1}
    assert seen["parts"][0]["source"]["mimeType"] == "image/png"
    new_input = read_messages(
        [{"role": "tool", "tool_call_id": "c1-r_1", "content": [{"type": "text", "text": "x"}]}], Limits()
    )
    assert [(part.toolCallId, part.content) for part in new_input.parts] == [("c1", "x")]  # type: ignore[union-attr]
    body |= {"run_id": "run-2", "messages": [], "resume": [{"interrupt_id": "i_none", "status": "cancelled"}]}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/mirror/agui", json=body) as response:
            assert (response.status, (await response.json())["code"]) == (404, "unknown_interrupt")


async def test_errors_parts_and_usage_are_in_the_events(hub: Hub) -> None:
    """AG-UI's events have no field for an error and for parts: they are metadata."""
    hub.agent(
        "rich.py",
        """
        from hub import Finish, Message, ToolCallEnd, ToolCallResult, ToolCallStart, Usage

        async def rich(message: str):
            yield ToolCallStart("c1", "search")
            yield ToolCallEnd("c1")
            yield ToolCallResult("c1", "none", isError=True)
            yield Message("", [{"type": "image", "source": {"type": "url", "value": "https://x.org/a.png"}}])
            yield Finish("end_turn", Usage(3, 4))
        """,
    )
    await hub.start()
    run_events = await events(hub, "rich", run_request("x"))
    by_type = {event["type"]: event for event in run_events}
    assert by_type["TOOL_CALL_RESULT"]["metadata"] == {"isError": True}
    assert by_type["TEXT_MESSAGE_END"]["metadata"]["parts"][0]["source"]["value"] == "https://x.org/a.png"
    assert by_type["RUN_FINISHED"]["usage"] == [{"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}]
    assert "TEXT_MESSAGE_CONTENT" not in by_type


UNCLEAN = """
from hub import AgentError, Finish, StepFinished, StepStarted, ToolCallArgs, ToolCallEnd, ToolCallStart, Usage

async def unclean(run):
    yield StepStarted("s")
    yield StepStarted("s")
    yield ToolCallStart("c1", "search")
    yield ToolCallEnd("c9")
    yield ToolCallArgs("c9", "{}")
    if run.message == "ask":
        await run.ask("Sure?")
        yield ToolCallEnd("c1")
        yield StepFinished("s")
    if run.message == "fail":
        raise AgentError("no")
    yield Finish("max_tokens", Usage(1, 2))
"""


async def run_turns(hub: Hub, agent: str, turns: list[Any], thread: str = "t1") -> Any:
    """Run an agent with AG-UI's own client, and check that the client finds nothing wrong."""
    output = json.loads(
        await run_node("agui_turns.js", f"{hub.url}/api/v1/agents/{agent}/agui", thread, json.dumps(turns))
    )
    assert output["errors"] == []
    return output


@needs_node
async def test_ag_uis_client_warns_of_nothing(hub: Hub) -> None:
    """For an agent that emits everything, for one that leaves things open, and for each way a run ends."""
    hub.agent("everything.py", EVERYTHING)
    hub.agent("unclean.py", UNCLEAN)
    await hub.start(run_seconds=5)
    output = await run_turns(hub, "everything", [{"message": "x"}, {"message": "y"}])
    assert output["outcomes"] == ["success", "success"] and output["state"] == {"n": 2}
    calls = [call for one in output["messages"] for call in one.get("toolCalls") or ()]
    assert [call["function"]["arguments"] for call in calls] == ['{"q":1}', '{"q":1}']
    turns = [{"message": "x"}, {"message": "ask"}, {"answer": True}, {"message": "fail"}]
    output = await run_turns(hub, "unclean", turns, "t2")
    assert output["outcomes"] == ["success", "interrupt", "success", "agent_error"]
    assert output["usage"][0] == [{"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}]


@needs_node
async def test_ag_uis_client_runs_front_end_tools(hub: Hub) -> None:
    """Each call and its result stand once in its messages, although the agent uses one id again."""
    hub.agent("helper.py", HELPER)
    await hub.start()
    turn = [{"message": "c1", "tools": TOOLS}, {"results": {"get_weather": "sunny"}, "tools": TOOLS}]
    output = await run_turns(hub, "helper", turn * 2)
    roles = [message["role"] for message in output["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant"] * 2
    assert [json.loads(one["content"])["results"] for one in output["messages"][3::4]] == [["c1=sunny"]] * 2
