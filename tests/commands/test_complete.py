"""Answers without a session: texts, events, requests and the results of tool calls."""

import asyncio
from typing import Any

import pytest
from support.hub import Hub
from support.tools import REQUEST, result

from hub.access.principal import LOCAL
from hub.commands import table
from hub.commands.complete import Conversation
from hub.errors import AgentError, BadFrame, ToolsUnsupported
from hub.hosting.contract import Finish
from hub.messages import Past, Progress, Reasoning, Request, ToolCall, ToolCallEnd, ToolCallStart, Usage

# Calls a tool of the client, or says what it got.
CALLER = """
    from hub import *

    @agent(tools=True)
    async def caller(run: Run):
        yield Reasoning("hm")
        if run.parts:
            yield repr([(part["toolCallId"], part["content"]) for part in run.parts])
            yield repr([(past.role, past.tool_call_id, [call.id for call in past.tool_calls]) for past in run.history])
            return
        yield "text"
        yield ToolCallStart("c1", "get_weather")
        yield ToolCallEnd("c1")
        yield Finish("end_turn", Usage(3, 4))
    """


async def complete(hub: Hub, agent_id: str, message: str, request: Request = REQUEST, **fields: Any) -> list[Any]:
    conversation = Conversation(run_id="r_1", message=message, request=request, **fields)
    async with await table.complete(hub.door, LOCAL, agent_id, conversation) as outputs:
        return [output async for output in outputs]


async def test_texts_and_events_come_in_order_and_the_finish_is_last(hub: Hub) -> None:
    """It says that the client has a tool to run, and keeps the agent's token counts."""
    hub.agent("caller.py", CALLER)
    await hub.start()
    assert await complete(hub, "caller", "x") == [
        Reasoning("hm"),
        "text",
        ToolCallStart("c1", "get_weather"),
        ToolCallEnd("c1"),
        Finish("tool_calls", Usage(3, 4)),
    ]
    assert (await complete(hub, "caller", "x", Request()))[-1] == Finish("end_turn", Usage(3, 4))
    assert await complete(hub, "echo", "hi") == ["hi ", Finish("end_turn")]


async def test_the_results_of_a_conversation_are_its_parts(hub: Hub) -> None:
    hub.agent("caller.py", CALLER)
    await hub.start()
    history = [Past("user", "x"), Past("assistant", "", tool_calls=(ToolCall("c1", "get_weather", "{}"),))]
    _, results, earlier, _ = await complete(hub, "caller", "", history=history, parts=[result("c1", "sunny")])
    assert results == "[('c1', 'sunny')]"
    assert earlier == "[('user', None, []), ('assistant', None, ['c1'])]"


async def test_a_bad_request_is_refused_before_the_agent_is_called(hub: Hub) -> None:
    await hub.start()
    with pytest.raises(ToolsUnsupported):
        await complete(hub, "echo", "x", Request(tools=REQUEST.tools, tool_choice="required"))
    with pytest.raises(BadFrame):
        await complete(hub, "echo", "x", Request(tool_choice="get_weather"))


@pytest.mark.parametrize(
    ("output", "code"),
    [("Progress(2)", "agent_bad_output"), ("Custom('x', 'y' * 78)", "answer_too_long"), ("7", "agent_bad_output")],
)
async def test_an_event_is_checked_as_in_a_session(hub: Hub, output: str, code: str) -> None:
    hub.agent("bad.py", f"from hub import *\n\nasync def bad():\n    yield {output}\n")
    await hub.start(content_bytes=77)
    with pytest.raises(AgentError) as error:
        await complete(hub, "bad", "x")
    assert error.value.code == code


async def test_an_agent_waits_for_the_reader_of_its_events(hub: Hub) -> None:
    """Events count for the backpressure as texts do; the other agents of the hub go on."""
    hub.agent(
        "flood.py",
        """
        from hub import Progress

        async def flood(message: str):
            for number in range(10_000):
                yield Progress(number / 10_000)
        """,
    )
    await hub.start()
    conversation = Conversation(run_id="r_1", message="x")
    async with await table.complete(hub.door, LOCAL, "flood", conversation) as outputs:
        assert await anext(outputs) == Progress(0)
        assert await complete(hub, "echo", "hi") == ["hi ", Finish("end_turn")]
        async with asyncio.timeout(20):
            rest = [output async for output in outputs]
    assert len(rest) == 10_000 and rest[-1] == Finish("end_turn")
