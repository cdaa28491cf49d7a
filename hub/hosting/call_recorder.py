"""Record the tool calls of one answer, as parts of its messages."""

from typing import Any

import attrs
import msgspec

from hub.messages import Body, FinishReason, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart
from hub.messages.parts import JsonParts, ToolCallPart

TOOL_EVENTS = (ToolCallStart, ToolCallArgs, ToolCallEnd, ToolCallResult)


@attrs.define(eq=False)
class RecordedCall:
    """A call, and the message to which it belongs. *pieces* are the pieces of its arguments."""

    start: ToolCallStart
    message_id: str
    pieces: list[str] = attrs.Factory(list)

    def to_part(self) -> ToolCallPart:
        return ToolCallPart(self.start.toolCallId, self.start.toolCallName, "".join(self.pieces))


@attrs.define(eq=False, kw_only=True)
class CallRecorder:
    """The tool calls and the results of one answer. A call without a result is open.

    *client_tools* are the names of the tools that the client runs. The agent's own calls, which have results, are
    recorded up to *max_bytes* in all. Later ones are dropped, with their results.
    """

    client_tools: frozenset[str]
    max_bytes: int
    _entries: dict[str, list[RecordedCall | ToolCallResult]] = attrs.Factory(dict)  # by message id, in order
    _open_calls: dict[str, RecordedCall] = attrs.Factory(dict)  # by the id of the call
    _result_bytes: int = 0

    def add(self, event: Body, message_id: str) -> None:
        """Record an event. A call that starts belongs to the message *message_id*. Other events are ignored."""
        if isinstance(event, ToolCallStart):
            call = self._open_calls[event.toolCallId] = RecordedCall(event, message_id)
            self._entries.setdefault(message_id, []).append(call)
        elif isinstance(event, ToolCallArgs) and event.toolCallId in self._open_calls:
            self._open_calls[event.toolCallId].pieces.append(event.delta)
        elif isinstance(event, ToolCallResult) and event.toolCallId in self._open_calls:
            self._add_result(self._open_calls.pop(event.toolCallId), event)

    def _add_result(self, call: RecordedCall, result: ToolCallResult) -> None:
        entries = self._entries.get(call.message_id, [])  # empty if the message was removed
        texts = (result.content, result.toolCallId, *call.pieces, call.start.toolCallId, call.start.toolCallName)
        self._result_bytes += sum(len(text.encode()) for text in texts)
        if self._result_bytes <= self.max_bytes:
            entries.append(result)
        elif entries and entries[-1] is call:  # the usual case: the search below takes longer
            entries.pop()
        elif call in entries:
            entries.remove(call)

    def remove_messages(self, message_ids: tuple[str, ...]) -> None:
        """Forget the calls of messages that were removed."""
        for message_id in message_ids:
            for entry in self._entries.pop(message_id, ()):
                if isinstance(entry, RecordedCall):
                    self._open_calls.pop(entry.start.toolCallId, None)

    def has_open_call(self, call_id: str) -> bool:
        return call_id in self._open_calls

    def list_open_calls(self) -> tuple[ToolCallPart, ...]:
        return tuple(call.to_part() for call in self._open_calls.values())

    def make_parts(self, message_id: str) -> JsonParts:
        """Return the parts that a message has for its calls and their results, in order."""
        return tuple(
            msgspec.to_builtins(entry.to_part()) if isinstance(entry, RecordedCall) else _to_result_part(entry)
            for entry in self._entries.get(message_id, ())
        )

    def choose_reason(self, reason: FinishReason) -> FinishReason:
        """Return why the answer ended: for its tool calls, if it did not end early and the client has calls to run."""
        has_client_calls = any(call.start.toolCallName in self.client_tools for call in self._open_calls.values())
        return "tool_calls" if reason == "end_turn" and has_client_calls else reason


def _to_result_part(result: ToolCallResult) -> dict[str, Any]:
    """Return the part of a result; that of a large result has the file's id, and only the beginning of the text."""
    fields = attrs.asdict(result, filter=lambda _, value: value is not None)
    return {"type": "tool_result"} | fields
