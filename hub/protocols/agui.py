"""AG-UI: translate one run of the hub to AG-UI events.

When a run of the hub asks a question, the run of AG-UI ends; the answer begins a new run of AG-UI, which continues the
same run of the hub.
"""

from collections.abc import Callable
from time import time
from typing import Any

import attrs
import orjson

from hub.messages import (
    Body,
    Chunk,
    Custom,
    Event,
    Interrupt,
    InterruptResolved,
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
    SubagentError,
    SubagentFinished,
    SubagentStarted,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    Usage,
    WholeMessage,
)
from hub.protocols.agui_messages import (
    Opening,
    Openings,
    add_parts,
    find_items,
    find_message_after,
    find_open_message,
    make_ends,
    make_turn,
)
from hub.protocols.agui_request import make_call_id, make_result_id
from hub.protocols.sse import RunStream, http_chunk


class AguiStream(RunStream):
    """One run as a stream of AG-UI's events; *client_run_id* is the run id of the client.

    *cursor_event* is the last event that the client has received. It is None if the stream begins at the start.
    *has_cancelled_outcome* is False for clients before AG-UI 1.0: they fail at the outcome `cancelled`.
    """

    def __init__(
        self,
        run_id: str,
        client_run_id: str,
        thread_id: str,
        cursor_event: Event | None = None,
        has_cancelled_outcome: bool = True,
    ) -> None:
        super().__init__(run_id)
        self._has_cancelled_outcome = has_cancelled_outcome
        # The steps and tool calls that were open at the cursor are not known.
        self._is_resumed = cursor_event is not None
        self._openings = Openings(Opening(find_message_after(cursor_event) if cursor_event is not None else None))
        self.client_run_id, self.thread_id = client_run_id, thread_id

    def encode_start(self) -> bytes:
        """Encode the start of an AG-UI run that continues a run of the hub. The event has no id: it is not logged."""
        fields = {"timestamp": int(time() * 1000), "threadId": self.thread_id, "runId": self.client_run_id}
        return http_chunk(b"data: %b\n\n" % orjson.dumps({"type": "RUN_STARTED", **fields}))

    def translate_pieces(self, event: Event, pieces: list[Body]) -> list[dict[str, Any]]:
        if self.end_seq is not None and event.seq > self.end_seq:
            return []
        (previous, items), objects = self._openings.find_before(event), list[dict[str, Any]]()
        for body in pieces:
            message = find_open_message(body, previous)
            objects += make_turn(previous, message, event.ts)
            previous = message
            body = self._rename_call(body)
            items, is_valid = find_items(body, items)
            translation = self.translate(event, body) if is_valid or self._is_resumed else []
            if isinstance(body, MessageRemoved) or (translation and translation[0]["type"] == "RUN_FINISHED"):
                objects += make_ends(items, event.ts)
                items = ()
            objects += translation
        if isinstance(event.body, WholeMessage):
            objects += add_parts(make_turn(previous, None, event.ts), event.body.parts)
            previous = None
        self._openings.note(event.seq, Opening(previous, items))
        return objects

    def can_resume_after(self, event: Event) -> bool:
        """Return False for an `interrupt_resolved` within a message: the event does not say which message is open."""
        return not isinstance(event.body, InterruptResolved) or self._openings.find_before(event).message is None

    def _rename_call(self, body: Any) -> Any:
        """Replace the agent's id of a tool call by the one for clients."""
        call_id = getattr(body, "toolCallId", None)
        return body if call_id is None else attrs.evolve(body, toolCallId=make_call_id(call_id, self.run_id))

    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        self.note_question(event)
        if type(body) not in TRANSLATIONS:
            return []
        kind, fields = TRANSLATIONS[type(body)](body)
        if isinstance(body, Interrupt) and event.seq != self.end_seq:
            return []  # the question was already answered: the run goes on
        if kind in ("RUN_STARTED", "RUN_FINISHED"):
            fields = {"threadId": event.sessionId, "runId": self.client_run_id} | fields
        if kind == "RUN_FINISHED":
            if not self._has_cancelled_outcome and fields.get("outcome") == {"type": "cancelled"}:
                del fields["outcome"]
            fields["metadata"] = {"hubbub": self.make_cursor(event)}
        return [{"type": kind, "timestamp": event.ts, **fields}] if kind else []

    def make_cursor(self, event: Event) -> dict[str, str]:
        """Return the query with which a client connects to the session after the last event of this stream.

        It has the `runId` of a run that waits for a reply.
        """
        cursor = {"lastEventId": f"{event.epoch}:{event.seq}"}
        return cursor | {"runId": self.run_id} if event.seq == self.end_seq else cursor


def _translate_text(body: Any) -> tuple[str, dict[str, Any]]:
    return "TEXT_MESSAGE_CONTENT" if body.content else "", {"messageId": body.messageId, "delta": body.content}


def _translate_tool_result(body: ToolCallResult) -> tuple[str, dict[str, Any]]:
    """AG-UI has no fields for an error and for the file of a large result: they are in the metadata."""
    fields = {"messageId": make_result_id(body.toolCallId), "toolCallId": body.toolCallId, "content": body.content}
    values = {"isError": body.isError, "fileId": body.fileId, "size": body.size}
    metadata = {name: value for name, value in values.items() if value is not None}
    return "TOOL_CALL_RESULT", fields | {"role": "tool"} | ({"metadata": metadata} if metadata else {})


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
    usage = _make_usage(body.usage)
    if body.stopReason in AGUI_ERROR_TEXTS:
        return "RUN_ERROR", {"message": AGUI_ERROR_TEXTS[body.stopReason], "code": body.stopReason} | usage
    fields: dict[str, Any] = {"result": {"stopReason": body.stopReason}}
    if body.stopReason != "tool_calls":  # after `success`, assistant-ui's client does not send the results of its tools
        fields["outcome"] = {"type": "cancelled" if body.stopReason == "cancelled" else "success"}
    return "RUN_FINISHED" if body.stopReason != "error" else "", fields | usage


def _make_usage(usage: Usage | None) -> dict[str, Any]:
    """Return the field `usage`, or nothing if the agent has counted nothing."""
    if usage is None or (usage.inputTokens is None and usage.outputTokens is None):
        return {}
    counts = {name: value for name, value in attrs.asdict(usage).items() if value is not None}
    return {"usage": [counts | ({"totalTokens": sum(counts.values())} if len(counts) == 2 else {})]}


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
    SubagentStarted: lambda body: ("SUBAGENT_STARTED", attrs.asdict(body, filter=lambda _, value: value is not None)),
    SubagentFinished: _translate_as("SUBAGENT_FINISHED"),
    SubagentError: _translate_as("SUBAGENT_ERROR"),
    Custom: _translate_as("CUSTOM"),
    Progress: lambda body: ("CUSTOM", {"name": "progress", "value": attrs.asdict(body)}),
    MessageRemoved: lambda body: ("CUSTOM", {"name": "message_removed", "value": attrs.asdict(body)}),
    Interrupt: _translate_question,
    InterruptResolved: lambda body: ("CUSTOM", {"name": "interrupt_resolved", "value": attrs.asdict(body)}),
    RunError: lambda body: ("RUN_ERROR", {"message": body.message, "code": body.code}),
    RunFinished: _translate_end,
}
