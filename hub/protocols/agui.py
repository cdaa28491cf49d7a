"""AG-UI: what its clients ask for, and one run by the names of its protocol.

Text and thought come as chunks, which its clients put together. Where the hub's run asks, AG-UI's ends; the answer
begins another, which is the rest of the hub's.
"""

import asyncio
from collections.abc import Callable
from time import time
from typing import Annotated, Any, ClassVar

import attrs
import msgspec
import orjson

from hub.errors import BadFrame
from hub.limits import Limits
from hub.messages import (
    Body,
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
from hub.messages.parts import Parts, TextPart
from hub.protocols.reading import check_parts, split_error
from hub.protocols.sse import RunStream, http_chunk


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


def read_message(messages: list[dict[str, Any]], limits: Limits) -> tuple[str, Parts | None]:
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
        expected, field = split_error(wrong, Parts)
        raise BadFrame(f"these are no parts of a message: {expected} - at `${field}`") from None
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts), parts if len(texts) < len(parts) else None


class AguiStream(RunStream):
    """One run by the names of AG-UI; *named* is the run's id as its client knows it.

    It ends early, at *upto*, with the first question that is open when it comes, and sets *asked*. That is decided
    once: what is said of an event stays the same. *is_open* is the client's, and set when that is there.
    """

    def __init__(self, run_id: str, client_run_id: str, thread_id: str) -> None:
        super().__init__(run_id)
        self.client_run_id, self.thread_id = client_run_id, thread_id
        self.end_seq: int | None = None
        self.pause = asyncio.Event()
        self.is_open: Callable[[str], bool] = lambda interrupt_id: False

    def encode_start(self) -> bytes:
        """Begin a run that goes on with one of the hub's. It has no place in the log, and so no id."""
        fields = {"timestamp": int(time() * 1000), "threadId": self.thread_id, "runId": self.client_run_id}
        return http_chunk(b"data: %b\n\n" % orjson.dumps({"type": "RUN_STARTED", **fields}))

    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        if isinstance(body, Interrupt) and self.end_seq is None and self.is_open(body.id):
            self.end_seq = event.seq
            self.pause.set()
        if type(body) not in TRANSLATIONS or (self.end_seq is not None and event.seq > self.end_seq):
            return []
        kind, fields = TRANSLATIONS[type(body)](body)
        if isinstance(body, Interrupt) and event.seq != self.end_seq:
            return []  # it was answered before it came here
        if kind in ("RUN_STARTED", "RUN_FINISHED"):
            fields = {"threadId": event.sessionId, "runId": self.client_run_id} | fields
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


# The ends that are errors, in words; `error` itself was told by the run's RunError.
FAILED = {"timeout": "the answer took longer than the hub allows", "aborted": "the answer ended with the hub"}


def _end(body: RunFinished) -> tuple[str, dict[str, Any]]:
    """End a run with one of AG-UI's two events: one that failed has its RUN_ERROR, and nothing after it."""
    if body.stopReason in FAILED:
        return "RUN_ERROR", {"message": FAILED[body.stopReason], "code": body.stopReason}
    outcome = {"outcome": {"type": "cancelled"}} if body.stopReason == "cancelled" else {}
    return "RUN_FINISHED" if body.stopReason != "error" else "", {"result": {"stopReason": body.stopReason}} | outcome


TRANSLATIONS: dict[type[Body], Callable[[Any], tuple[str, dict[str, Any]]]] = {
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
    RunFinished: _end,
}
