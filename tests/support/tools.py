"""Agents that call the tools of a client, and clients that send requests and results."""

from typing import Any

from support.hub import Client, Hub

from hub.access.principal import LOCAL
from hub.commands import table
from hub.messages import Accepted, ChatWithRequest, Request, RunOutcome, Tool

WEATHER = Tool(name="get_weather", parameters={"type": "object"})
REQUEST = Request(tools=(WEATHER,), sampling={"temperature": 0.5}, state={"a": 1})

# Calls the tool once for each word of a message, which is the id of the call. To results, and without the tool, it says
# what it got. A word with a slash is the path of a file: the agent waits for it.
HELPER = '''
"""Calls tools of the client."""
import asyncio, json, pathlib
from hub import Run, ToolCallArgs, ToolCallEnd, ToolCallStart, agent


def describe(past):
    calls = [f"{call.id}({call.arguments})" for call in past.tool_calls]
    return f"{past.role}:{past.content}{''.join(calls)}{past.tool_call_id or ''}"


@agent(tools=True)
async def helper(run: Run):
    results = [f"{part['toolCallId']}={part['content']}" for part in run.parts if part["type"] == "tool_result"]
    if results or not run.request.tools:
        request = run.request
        said = {"results": results, "history": [describe(past) for past in run.history]}
        said |= {"tools": sorted(request.tool_names), "choice": request.tool_choice, "state": request.state}
        yield json.dumps(said | {"sampling": request.sampling})
        return
    for word in run.message.split():
        if "/" in word:
            while not pathlib.Path(word).exists():
                await asyncio.sleep(0.01)
            continue
        yield ToolCallStart(word, "get_weather")
        yield ToolCallArgs(word, '{"city":')
        yield ToolCallArgs(word, '"Rome"}')
        yield ToolCallEnd(word)
'''


def make_chat(message: str, request: Request = REQUEST, **fields: Any) -> ChatWithRequest:
    values = {"agentId": "helper", "sessionId": "s1"} | fields
    return ChatWithRequest(message=message, request=request, **values)


async def ask(hub: Hub, message: str, request: Request = REQUEST, **fields: Any) -> RunOutcome:
    """Chat with a request, as the endpoint of OpenAI does, and return the outcome."""
    outcome: RunOutcome = await table.ask(hub.door, LOCAL, make_chat(message, request, **fields))
    return outcome


async def start(hub: Hub, message: str, request: Request = REQUEST, **fields: Any) -> Accepted:
    """Chat with a request, and do not wait for the answer."""
    accepted: Accepted = await table.chat(hub.door, LOCAL, make_chat(message, request, **fields))
    return accepted


def result(call_id: str, content: str = "sunny", **fields: Any) -> dict[str, Any]:
    """Return the part of a result."""
    return {"type": "tool_result", "toolCallId": call_id, "content": content, **fields}


async def send_results(client: Client, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Send results, and return `accepted` or the error."""
    await client.send(**{"type": "chat", "sessionId": "s1", "message": "", "parts": list(parts)} | fields)
    return await client.until(lambda frame: frame["type"] in ("accepted", "error"))
