"""Convert the output of an agent to OpenAI's form: deltas of a stream, and the message of a whole answer."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from hub.messages import Body, Chunk, Reasoning, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart, WholeMessage
from hub.messages.parts import ToolCallPart

NO_ARGUMENTS = "{}"  # clients parse the arguments as JSON


@attrs.define(kw_only=True)
class DeltaMaker:
    """Makes the deltas of one answer. Only calls of the client's tools, *tool_names*, are in them.

    The same output always gives the same delta: the index of a call depends on its id.
    """

    tool_names: frozenset[str]
    _indexes: dict[str, int] = attrs.Factory(dict)  # of the calls, by their ids
    _ids_with_arguments: set[str] = attrs.Factory(set)

    def make(self, output: str | Body) -> dict[str, Any] | None:
        """Return the delta for a text or an event, or None if there is none."""
        if isinstance(output, str):
            return {"content": output}
        if isinstance(output, (Chunk, WholeMessage)):
            return {"content": output.content}
        if isinstance(output, Reasoning):
            return {"reasoning_content": output.delta}
        if isinstance(output, ToolCallStart) and output.toolCallName in self.tool_names:
            index = self._indexes.setdefault(output.toolCallId, len(self._indexes))
            return {"tool_calls": [{"index": index, **_make_call(output.toolCallId, output.toolCallName, "")}]}
        if isinstance(output, ToolCallArgs) and output.delta:
            self._ids_with_arguments.add(output.toolCallId)
            return self._make_arguments(output.toolCallId, output.delta)
        if isinstance(output, ToolCallEnd) and output.toolCallId not in self._ids_with_arguments:
            return self._make_arguments(output.toolCallId, NO_ARGUMENTS)
        return None

    def _make_arguments(self, call_id: str, delta: str) -> dict[str, Any] | None:
        index = self._indexes.get(call_id)
        return None if index is None else {"tool_calls": [{"index": index, "function": {"arguments": delta}}]}


@attrs.define(kw_only=True)
class AnswerCollector:
    """Collects the output of an agent to a whole answer."""

    tool_names: frozenset[str]
    _texts: list[str] = attrs.Factory(list)
    _thoughts: list[str] = attrs.Factory(list)
    _calls: dict[str, tuple[str, list[str]]] = attrs.Factory(dict)  # the name and the arguments of each call, by its id

    def add(self, output: str | Body) -> None:
        if isinstance(output, str):
            self._texts.append(output)
        elif isinstance(output, Reasoning):
            self._thoughts.append(output.delta)
        elif isinstance(output, ToolCallStart) and output.toolCallName in self.tool_names:
            self._calls[output.toolCallId] = output.toolCallName, []
        elif isinstance(output, ToolCallArgs) and output.toolCallId in self._calls:
            self._calls[output.toolCallId][1].append(output.delta)
        elif isinstance(output, ToolCallResult):  # the agent ran the tool itself
            self._calls.pop(output.toolCallId, None)

    def make_message(self) -> dict[str, Any]:
        calls = [ToolCallPart(call_id, name, "".join(pieces)) for call_id, (name, pieces) in self._calls.items()]
        return answer_message("".join(self._texts), "".join(self._thoughts), calls)


def answer_message(text: str, reasoning: str, calls: Iterable[ToolCallPart]) -> dict[str, Any]:
    """Return the message of a whole answer. Its content is null if it has tool calls and no text."""
    tool_calls = [_make_call(call.toolCallId, call.toolCallName, call.arguments or NO_ARGUMENTS) for call in calls]
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    return message | {"content": text or None, "tool_calls": tool_calls} if tool_calls else message


def count_message_bytes(message: Mapping[str, Any]) -> int:
    """Return the size of the text and the tool calls of a message, or of a delta."""
    functions = [call["function"] for call in message.get("tool_calls", ())]
    texts = [text for function in functions for text in (function.get("name", ""), function["arguments"])]
    return sum(len(text.encode()) for text in (message.get("content") or "", *texts))


def _make_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
