"""AG-UI over server-sent events: an agent as AG-UI's clients run it.

A thread is a session and a run's id its clientMsgId, so that a request sent again gets the same run, from
`Last-Event-ID` on. Names and shapes are those of AG-UI's protocol; text and thought come as chunks, which its clients
put together. Where the hub's run asks, AG-UI's ends; the answer begins another, which is the rest of the hub's.
"""

import asyncio
from collections.abc import Callable
from time import time
from typing import Annotated, Any, ClassVar

import attrs
import msgspec
import orjson
from aiohttp import web

from hub.access.doors import principal
from hub.commands.dispatch import asking, reply
from hub.delivery.connection import Connection
from hub.errors import (
    AgentBroken,
    AlreadyResolved,
    BadFrame,
    Busy,
    Draining,
    IdReused,
    SessionDeleted,
    StorageUnavailable,
    UnknownAgent,
    UnknownInterrupt,
)
from hub.limits import Limits
from hub.messages import (
    Author,
    Body,
    Chat,
    Chunk,
    Custom,
    Event,
    Id,
    Interrupt,
    InterruptResolved,
    MessageRemoved,
    Progress,
    Reasoning,
    ReplyStatus,
    Resume,
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
from hub.messages.parts import Parts, Text
from hub.node.node import Node
from hub.protocols.reading import check_parts
from hub.protocols.sse import OneRun, chunk
from hub.sessions.questions import asked, check_payload, resolved, too_late
from hub.sessions.session import Session
from hub.storage.log import KeptChat
from hub.web import bodies
from hub.web.clients import NODE
from hub.web.routes import STREAM, Route
from hub.web.sse import LastEvent, last_event, stream


class ResumeEntry(msgspec.Struct):
    """AG-UI's answer to a question."""

    interruptId: Id
    status: ReplyStatus
    payload: Any = None


class RunInput(msgspec.Struct):
    """AG-UI's RunAgentInput, as far as it concerns the hub, which has the history itself."""

    example: ClassVar[str] = '{"threadId":"s1","runId":"r1","messages":[{"role":"user","content":"hello"}]}'
    threadId: Id
    runId: Id
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(examples=[[{"role": "user", "content": "hello"}]])]
    resume: list[ResumeEntry] | None = None


class Resuming(msgspec.Struct, frozen=True):
    """Where a lost stream goes on, for clients that cannot set a header."""

    lastEventId: LastEvent | None = None


async def run(request: web.Request) -> web.StreamResponse:
    """Run an agent by AG-UI, or go on with a run whose stream was lost."""
    node = request.app[NODE]
    node.refuse_if_draining()
    agent = node.agents.get(request.match_info["id"])
    given = await bodies.read(request, RunInput, node.settings.limits.conversation_bytes)
    who, last = principal(request), last_event(request)
    if given.resume:
        run_id, start = await _answered(node, given.threadId, given.resume, who)
    async with node.use(given.threadId) as session:
        if not given.resume:
            message, parts = _message(given.messages, node.settings.limits)
            command = Chat(message=message, parts=parts, agentId=agent.id, clientMsgId=given.runId)
            accepted = await session.chat(command, who, agent)
            run_id, start = accepted.runId, accepted.seq - 1
        cursor = _cursor(session, start, last)
        protocol = OneAgui(run_id, given.runId, session)

        async def begin(connection: Connection) -> None:
            if given.resume and cursor == start:
                connection.write(protocol.started())
            node.registry.subscribe(connection, session.channel, cursor)

        return await stream(request, begin, protocol.ended, protocol)


def _cursor(session: Session, start: int, last: tuple[str, int] | None) -> int:
    """Return the seq after which the client goes on: what it had last, where that is of this run and this session."""
    if last is None or last[0] != session.channel.epoch:
        return start
    return min(max(start, last[1]), session.channel.head)


async def _answered(node: Node, session_id: str, entries: list[ResumeEntry], who: Author) -> tuple[str, int]:
    """Answer questions; return the run that asked them, and after which seq it has not been heard yet.

    All are looked at before any is kept. The same answers may be sent again. A question that is closed may be
    `cancelled`, so that its asker can go on.
    """
    questions = [await asked(node.log, session_id, entry.interruptId) for entry in entries]
    if len({question.runId for question in questions}) > 1:
        raise BadFrame("these questions are of several runs: answer each run's in a request of its own")
    for entry, question in zip(entries, questions):
        await _check(node, session_id, question, entry, who)
    for entry, question in zip(entries, questions):
        command = Resume(sessionId=session_id, **msgspec.structs.asdict(entry))
        try:
            await reply(node, command, who)
        except AlreadyResolved:
            if entry.status == "resolved" and not await _stands(node, session_id, question, entry, who):
                raise
    return questions[0].runId, min(question.seq for question in questions)


async def _check(node: Node, session_id: str, question: KeptChat, entry: ResumeEntry, who: Author) -> None:
    """Raise what an answer would be refused with, as far as that is known before any of them is kept."""
    check_payload(entry.payload, node.settings.limits)
    if asking(node, session_id, entry.interruptId) is None and entry.status == "resolved":
        if not await _stands(node, session_id, question, entry, who):
            node.refuse_if_draining()
            raise too_late(session_id, entry.interruptId)


async def _stands(node: Node, session_id: str, question: KeptChat, entry: ResumeEntry, who: Author) -> bool:
    """Tell whether this very answer is the one that the log has."""
    head = await node.log.find(session_id)
    said = await resolved(node.log, session_id, question, head.seq if head is not None else 0)
    if said is None or said.resolvedBy is None:
        return False
    return (said.resolvedBy.id, _json(said.payload)) == (who.id, _json(entry.payload)) and said.status == entry.status


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _message(messages: list[dict[str, Any]], limits: Limits) -> tuple[str, Parts | None]:
    """Return the text of the last message, which is the user's, and its parts where there is more than text."""
    last = messages[-1] if messages else {}
    content = last.get("content")
    if last.get("role") != "user" or not isinstance(content, (str, list)):
        raise BadFrame("the last of the messages must be the user's, and text or parts")
    if isinstance(content, str):
        return content, None
    try:
        check_parts(content, limits)
        parts = msgspec.convert(content, Parts)
    except ValueError as wrong:
        raise BadFrame(f"these are no parts of a message: {wrong}") from None
    texts = [part.text for part in parts if isinstance(part, Text)]
    return "".join(texts), parts if len(texts) < len(parts) else None


class OneAgui(OneRun):
    """One run by the names of AG-UI; *named* is the run's id as its client knows it.

    It ends early, at *upto*, with the first question that is open when it comes. That is decided once: what is said of
    an event stays the same.
    """

    def __init__(self, run_id: str, named: str, session: Session) -> None:
        super().__init__(run_id)
        self.named, self.session = named, session
        self.upto: int | None = None
        self.asked = asyncio.Event()

    def started(self) -> bytes:
        """Begin a run that goes on with one of the hub's. It has no place in the log, and so no id."""
        fields = {"timestamp": int(time() * 1000), "threadId": self.session.id, "runId": self.named}
        return chunk(b"data: %b\n\n" % orjson.dumps({"type": "RUN_STARTED", **fields}))

    async def ended(self) -> None:
        """Wait until the hub's run has ended, or asks."""
        ends = [asyncio.create_task(self.session.finished(self.run_id)), asyncio.create_task(self.asked.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    def said(self, event: Event, body: Any) -> list[dict[str, Any]]:
        if isinstance(body, Interrupt) and self.upto is None and self.session.asking(body.id) is not None:
            self.upto = event.seq
            self.asked.set()
        if type(body) not in SAYS or (self.upto is not None and event.seq > self.upto):
            return []
        kind, fields = SAYS[type(body)](body)
        if isinstance(body, Interrupt) and event.seq != self.upto:
            return []  # it was answered before it came here
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


def _asks(body: Interrupt) -> tuple[str, dict[str, Any]]:
    question = attrs.asdict(body, filter=lambda _, value: value is not None)
    return "RUN_FINISHED", {"outcome": {"type": "interrupt", "interrupts": [question]}}


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
    Interrupt: _asks,
    InterruptResolved: lambda body: ("CUSTOM", {"name": "interrupt_resolved", "value": attrs.asdict(body)}),
    RunError: lambda body: ("RUN_ERROR", {"message": body.message, "code": body.code}),
    RunFinished: lambda body: (
        "RUN_FINISHED" if body.stopReason != "error" else "",
        {"result": {"stopReason": body.stopReason}},
    ),
}

ROUTES = (
    Route(
        "POST",
        "/agents/{id}/agui",
        run,
        "Agents",
        {200: STREAM},
        body=RunInput,
        query=Resuming,
        headers={"Last-Event-ID": LastEvent},
        raises=(
            *(UnknownAgent, UnknownInterrupt, AgentBroken, AlreadyResolved, IdReused),
            *(SessionDeleted, Busy, Draining, StorageUnavailable),
        ),
    ),
)
