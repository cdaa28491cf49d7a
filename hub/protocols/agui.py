"""AG-UI: read requests of AG-UI clients, and translate one run of the hub to AG-UI events.

When a run of the hub asks a question, the run of AG-UI ends; the answer begins a new run of AG-UI, which continues the
same run of the hub.
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
from hub.protocols.agui_messages import OpenMessages, find_message_after, find_open_message, make_turn
from hub.protocols.reading import check_parts, split_error
from hub.protocols.sse import RunStream, http_chunk


class ResumeEntry(msgspec.Struct):
    """AG-UI's answer to a question."""

    interruptId: Id
    status: ReplyStatus
    payload: Any = None


class RunInput(msgspec.Struct):
    """The fields of AG-UI's RunAgentInput that the hub uses. Of `messages`, the hub reads only the last one."""

    example: ClassVar[str] = '{"threadId":"s1","runId":"r1","messages":[{"role":"user","content":"hello"}]}'
    threadId: Id
    runId: Id
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(examples=[[{"role": "user", "content": "hello"}]])]
    resume: list[ResumeEntry] | None = None


def read_message(messages: list[dict[str, Any]], limits: Limits) -> tuple[str, Parts | None]:
    """Return the text and the parts of the last message; the parts are None if it is only text. Raises BadFrame."""
    last_message = messages[-1] if messages else {}
    content = last_message.get("content")
    if last_message.get("role") != "user" or not isinstance(content, (str, list)):
        raise BadFrame("the last of the messages must have the role user, and text or parts as its content")
    if isinstance(content, str):
        return content, None
    try:
        check_parts(content, limits)
        parts = msgspec.convert(content, Parts)
    except ValueError as error:
        problem, field = split_error(error, Parts)
        raise BadFrame(f"bad content of the last message: {problem} - at `${field}`") from None
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts), parts if len(texts) < len(parts) else None


class AguiStream(RunStream):
    """One run as a stream of AG-UI's events; *client_run_id* is the run id of the client.

    The stream ends at the first question that is open when its event is translated. Then *end_seq* is the seq of that
    event, and *end_event* is set. If the event is translated again, the result is the same, even if the question is
    closed by then. The caller sets *is_question_open*, a function of the question's id.

    *cursor_event* is the last event that the client has received. It is None if the stream begins at the start.
    """

    def __init__(self, run_id: str, client_run_id: str, thread_id: str, cursor_event: Event | None = None) -> None:
        super().__init__(run_id)
        self._open_messages = OpenMessages(find_message_after(cursor_event) if cursor_event is not None else None)
        self.client_run_id, self.thread_id = client_run_id, thread_id
        self.end_seq: int | None = None
        self.end_event = asyncio.Event()
        self.is_question_open: Callable[[str], bool] = lambda interrupt_id: False

    def encode_start(self) -> bytes:
        """Encode the start of an AG-UI run that continues a run of the hub. The event has no id: it is not logged."""
        fields = {"timestamp": int(time() * 1000), "threadId": self.thread_id, "runId": self.client_run_id}
        return http_chunk(b"data: %b\n\n" % orjson.dumps({"type": "RUN_STARTED", **fields}))

    def translate_pieces(self, event: Event, pieces: list[Body]) -> list[dict[str, Any]]:
        if self.end_seq is not None and event.seq > self.end_seq:
            return []
        previous, objects = self._open_messages.find_before(event), list[dict[str, Any]]()
        for body in pieces:
            message = find_open_message(body, previous)
            objects += make_turn(previous, message, event.ts) + self.translate(event, body)
            previous = message
        if isinstance(event.body, WholeMessage):
            objects += make_turn(previous, None, event.ts)
            previous = None
        self._open_messages.note(event.seq, previous)
        return objects

    def can_resume_after(self, event: Event) -> bool:
        """Return False for an `interrupt_resolved` within a message: the event does not say which message is open."""
        return not isinstance(event.body, InterruptResolved) or self._open_messages.find_before(event) is None

    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        if isinstance(body, Interrupt) and self.end_seq is None and self.is_question_open(body.id):
            self.end_seq = event.seq
            self.end_event.set()
        if type(body) not in TRANSLATIONS:
            return []
        kind, fields = TRANSLATIONS[type(body)](body)
        if isinstance(body, Interrupt) and event.seq != self.end_seq:
            return []  # the question was already answered: the run goes on
        if kind in ("RUN_STARTED", "RUN_FINISHED"):
            fields = {"threadId": event.sessionId, "runId": self.client_run_id} | fields
        return [{"type": kind, "timestamp": event.ts, **fields}] if kind else []


def _translate_text(body: Any) -> tuple[str, dict[str, Any]]:
    return "TEXT_MESSAGE_CONTENT" if body.content else "", {"messageId": body.messageId, "delta": body.content}


def _translate_tool_result(body: ToolCallResult) -> tuple[str, dict[str, Any]]:
    fields = {"messageId": f"{body.toolCallId}-result", "toolCallId": body.toolCallId, "content": body.content}
    return "TOOL_CALL_RESULT", fields | {"role": "tool"}


def _translate_as(kind: str) -> Callable[[Any], tuple[str, dict[str, Any]]]:
    """Return a function that translates an event to *kind* with the same fields."""
    return lambda body: (kind, attrs.asdict(body))


def _translate_question(body: Interrupt) -> tuple[str, dict[str, Any]]:
    question = attrs.asdict(body, filter=lambda _, value: value is not None)
    return "RUN_FINISHED", {"outcome": {"type": "interrupt", "interrupts": [question]}}


# The texts for stop reasons that are errors in AG-UI. The reason `error` needs none: a RunError comes before it.
AGUI_ERROR_TEXTS = {
    "timeout": "the answer took longer than the hub allows: try again, or ask for less",
    "aborted": "the hub stopped before the end of the answer: try again",
}


def _translate_end(body: RunFinished) -> tuple[str, dict[str, Any]]:
    """Translate the end of a run. For the stop reason `error`, nothing is sent: RUN_ERROR was sent before."""
    if body.stopReason in AGUI_ERROR_TEXTS:
        return "RUN_ERROR", {"message": AGUI_ERROR_TEXTS[body.stopReason], "code": body.stopReason}
    outcome = {"outcome": {"type": "cancelled"}} if body.stopReason == "cancelled" else {}
    return "RUN_FINISHED" if body.stopReason != "error" else "", {"result": {"stopReason": body.stopReason}} | outcome


# Each function returns the type and the fields of the AG-UI event. If the type is empty, nothing is sent.
TRANSLATIONS: dict[type[Body], Callable[[Any], tuple[str, dict[str, Any]]]] = {
    RunStarted: lambda body: ("RUN_STARTED" if body.attempt == 1 else "", {}),
    Chunk: _translate_text,
    WholeMessage: _translate_text,
    Reasoning: _translate_as("REASONING_MESSAGE_CONTENT"),
    ToolCallStart: _translate_as("TOOL_CALL_START"),
    ToolCallArgs: _translate_as("TOOL_CALL_ARGS"),
    ToolCallEnd: _translate_as("TOOL_CALL_END"),
    ToolCallResult: _translate_tool_result,
    StepStarted: _translate_as("STEP_STARTED"),
    StepFinished: _translate_as("STEP_FINISHED"),
    StateSnapshot: _translate_as("STATE_SNAPSHOT"),
    StateDelta: _translate_as("STATE_DELTA"),
    Custom: _translate_as("CUSTOM"),
    Progress: lambda body: ("CUSTOM", {"name": "progress", "value": attrs.asdict(body)}),
    MessageRemoved: lambda body: ("CUSTOM", {"name": "message_removed", "value": attrs.asdict(body)}),
    Interrupt: _translate_question,
    InterruptResolved: lambda body: ("CUSTOM", {"name": "interrupt_resolved", "value": attrs.asdict(body)}),
    RunError: lambda body: ("RUN_ERROR", {"message": body.message, "code": body.code}),
    RunFinished: _translate_end,
}
