"""AG-UI over server-sent events: an agent as AG-UI's clients run it.

A thread is a session and a run's id its clientMsgId, so that a request sent again gets the same run, from
`Last-Event-ID` on. Names and shapes are those of AG-UI's protocol; text and thought come as chunks, which its clients
put together.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import msgspec
from aiohttp import web

from hub.auth import principal
from hub.clients import NODE
from hub.connection import Connection
from hub.errors import BadFrame
from hub.messages import (
    Body,
    Chat,
    Chunk,
    Custom,
    Event,
    Id,
    MessageRemoved,
    Progress,
    Reasoning,
    RunError,
    RunFinished,
    RunStarted,
    StateDelta,
    StateSnapshot,
    StepFinished,
    StepStarted,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    WholeMessage,
)
from hub.parts import Parts, Text
from hub.protocols.reading import read_object
from hub.protocols.sse import OneRun
from hub.sse import last_event, stream

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RunInput(msgspec.Struct):
    """AG-UI's RunAgentInput, as far as it concerns the hub, which has the history itself."""

    threadId: Id
    runId: Id
    messages: list[dict[str, Any]]


async def run(request: web.Request) -> web.StreamResponse:
    """Run an agent, or go on with a run whose stream was lost."""
    node = request.app[NODE]
    node.refuse_if_draining()
    agent = node.agents.get(request.match_info["id"])
    try:
        given = msgspec.convert(read_object(await request.read()), RunInput)
    except msgspec.ValidationError as wrong:
        raise BadFrame(f"this is no RunAgentInput: {wrong}") from None
    message, parts = _message(given.messages)
    command = Chat(message=message, parts=parts, agentId=agent.id, clientMsgId=given.runId)
    last = last_event(request)
    async with node.use(given.threadId) as session:
        accepted = await session.chat(command, principal(request), agent)
        cursor = accepted.seq - 1
        if last is not None and last[0] == session.channel.epoch:
            cursor = min(max(cursor, last[1]), session.channel.head)

        async def begin(connection: Connection) -> None:
            node.registry.subscribe(connection, session.channel, cursor)

        protocol = OneAgui(accepted.runId, given.runId)
        return await stream(request, begin, lambda: session.finished(accepted.runId), protocol)


def _message(messages: list[dict[str, Any]]) -> tuple[str, Parts | None]:
    """Return the text of the last message, which is the user's, and its parts where there is more than text."""
    last = messages[-1] if messages else {}
    content = last.get("content")
    if last.get("role") != "user" or not isinstance(content, (str, list)):
        raise BadFrame("the last of the messages must be the user's, and text or parts")
    if isinstance(content, str):
        return content, None
    try:
        parts = msgspec.convert(content, Parts)
    except msgspec.ValidationError as wrong:
        raise BadFrame(f"these are no parts of a message: {wrong}") from None
    texts = [part.text for part in parts if isinstance(part, Text)]
    return "".join(texts), parts if len(texts) < len(parts) else None


class OneAgui(OneRun):
    """One run by the names of AG-UI; *named* is the run's id as its client knows it."""

    def __init__(self, run_id: str, named: str) -> None:
        super().__init__(run_id)
        self.named = named

    def said(self, event: Event, body: Any) -> list[dict[str, Any]]:
        kind, fields = SAYS[type(body)](body) if type(body) in SAYS else ("", {})
        if kind in ("RUN_STARTED", "RUN_FINISHED"):
            fields = {"threadId": event.sessionId, "runId": self.named} | fields
        return [{"type": kind, "timestamp": event.ts, **fields}] if kind else []


def _text(body: Any) -> tuple[str, dict[str, Any]]:
    fields = {"messageId": body.messageId, "role": "assistant", "delta": body.content}
    return "TEXT_MESSAGE_CHUNK" if body.content else "", fields


def _result(body: ToolCallResult) -> tuple[str, dict[str, Any]]:
    fields = {"messageId": f"{body.toolCallId}-result", "toolCallId": body.toolCallId, "content": body.content}
    return "TOOL_CALL_RESULT", fields | {"role": "tool"}


def _as(kind: str) -> Callable[[Any], tuple[str, dict[str, Any]]]:
    """Say an event by its own fields."""
    return lambda body: (kind, attrs.asdict(body))


# AG-UI ends a run with one of two events: a run that failed has its RUN_ERROR, and nothing after it.
SAYS: dict[type[Body], Callable[[Any], tuple[str, dict[str, Any]]]] = {
    RunStarted: lambda body: ("RUN_STARTED" if body.attempt == 1 else "", {}),
    Chunk: _text,
    WholeMessage: _text,
    Reasoning: _as("REASONING_MESSAGE_CHUNK"),
    ToolCallStart: _as("TOOL_CALL_START"),
    ToolCallArgs: _as("TOOL_CALL_ARGS"),
    ToolCallEnd: _as("TOOL_CALL_END"),
    ToolCallResult: _result,
    StepStarted: _as("STEP_STARTED"),
    StepFinished: _as("STEP_FINISHED"),
    StateSnapshot: _as("STATE_SNAPSHOT"),
    StateDelta: _as("STATE_DELTA"),
    Custom: _as("CUSTOM"),
    Progress: lambda body: ("CUSTOM", {"name": "progress", "value": attrs.asdict(body)}),
    MessageRemoved: lambda body: ("CUSTOM", {"name": "message_removed", "value": attrs.asdict(body)}),
    RunError: lambda body: ("RUN_ERROR", {"message": body.message, "code": body.code}),
    RunFinished: lambda body: (
        "RUN_FINISHED" if body.stopReason != "error" else "",
        {"result": {"stopReason": body.stopReason}},
    ),
}

ROUTES: tuple[tuple[str, str, Handler], ...] = (("POST", "/agents/{id}/agui", run),)
