"""Convert the tool calls of a stream to events of the hub."""

import json
from collections.abc import Iterator
from typing import Any

import attrs

from hub.adapters.chat_surrogates import SurrogateJoiner, join_surrogates
from hub.hosting.contract import AgentOutput
from hub.messages import ToolCallArgs, ToolCallEnd, ToolCallStart


def calls_of(delta: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the tool calls of a delta or message.

    An endpoint sends a list, a single object (TGI), or the `function_call` of older models.
    """
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else [calls]:
        if isinstance(call, dict):
            yield call
    if isinstance(delta.get("function_call"), dict):
        yield {"function": delta["function_call"]}


@attrs.define(kw_only=True)
class ToolCalls:
    """The tool calls of one answer. The endpoint names a call by an index; the events of the hub name it by an id.

    Gemini's endpoint sends no index, or 0 for each call: a new id then means a new call. Some endpoints send no id, or
    use an id again in the next answer. In the hub's events each id is unique: *used_ids* are those of earlier answers.
    """

    run_id: str
    used_ids: set[str]
    _ids_by_index: dict[Any, tuple[str, str]] = attrs.Factory(dict)  # the endpoint's id, and the id of the hub's events
    _last_index: Any = None
    _joiner: SurrogateJoiner = attrs.Factory(SurrogateJoiner)
    ids: list[str] = attrs.Factory(list)  # the ids in the hub's events, in the order of their starts

    def add(self, call: dict[str, Any]) -> Iterator[AgentOutput]:
        """Yield the start of the call if it is new, then the next part of its arguments."""
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        endpoint_id = _string(call.get("id"))
        index = call["index"] if isinstance(call.get("index"), int) else endpoint_id or self._last_index
        self._last_index = index
        known_id = self._ids_by_index[index][0] if index in self._ids_by_index else None
        if known_id is None or (endpoint_id and known_id and known_id != endpoint_id):
            call_id = join_surrogates(endpoint_id) or "call"
            if not endpoint_id or call_id in self.used_ids:
                call_id = f"{call_id}-{self.run_id}-{len(self.ids) + 1}"
            self.used_ids.add(call_id)
            self._ids_by_index[index] = endpoint_id, call_id
            self.ids.append(call_id)
            yield ToolCallStart(call_id, join_surrogates(_string(function.get("name"))))
        call_id = self._ids_by_index[index][1]
        if arguments := self._joiner.join(call_id, _json_text(function.get("arguments"))):
            yield ToolCallArgs(call_id, arguments)

    def end(self) -> Iterator[AgentOutput]:
        """Yield the text that the joiner held back, then the end of each call."""
        for call_id, rest in self._joiner.flush().items():
            yield ToolCallArgs(call_id, rest)
        yield from map(ToolCallEnd, self.ids)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _json_text(arguments: Any) -> str:
    """Return arguments as JSON text: some endpoints send an object instead of text."""
    is_text = arguments is None or isinstance(arguments, str)
    return _string(arguments) if is_text else json.dumps(arguments, ensure_ascii=False)
