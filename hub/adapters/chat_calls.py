"""The calls of tools in a stream, as the hub's events."""

import json
from collections.abc import Iterator
from typing import Any

import attrs

from hub.adapters.chat_halves import Halves, repair
from hub.hosting.contract import AgentOutput
from hub.messages import ToolCallArgs, ToolCallEnd, ToolCallStart


def calls_of(turn: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the calls of a delta or message: a list, TGI's single object, or the `function_call` of older models."""
    calls = turn.get("tool_calls")
    for call in calls if isinstance(calls, list) else [calls]:
        if isinstance(call, dict):
            yield call
    if isinstance(turn.get("function_call"), dict):
        yield {"function": turn["function_call"]}


@attrs.define
class Calls:
    """The calls that have begun, with their ids by the endpoint's index.

    Gemini's endpoint gives no index, or 0 for each call: another id is another call.
    """

    _open: dict[Any, tuple[str, str]] = attrs.Factory(dict)  # by index: the endpoint's id, and ours
    _last: Any = None
    _halves: Halves = attrs.Factory(Halves)
    ids: list[str] = attrs.Factory(list)  # in the order of their starts

    def take(self, call: dict[str, Any]) -> Iterator[AgentOutput]:
        """Yield the start of a call that is new, and a piece of its arguments."""
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        endpoint_id = _string(call.get("id"))
        index = call["index"] if isinstance(call.get("index"), int) else endpoint_id or self._last
        self._last = index
        if index not in self._open or (endpoint_id and self._open[index][0] not in ("", endpoint_id)):
            call_id = repair(endpoint_id) or f"call-{len(self.ids) + 1}"
            self._open[index] = endpoint_id, call_id
            self.ids.append(call_id)
            yield ToolCallStart(call_id, repair(_string(function.get("name"))))
        call_id = self._open[index][1]
        if arguments := self._halves.join(call_id, _text(function.get("arguments"))):
            yield ToolCallArgs(call_id, arguments)

    def end(self) -> Iterator[AgentOutput]:
        """Yield the ends of all calls."""
        for at, rest in self._halves.rest().items():
            yield ToolCallArgs(at, rest)
        yield from map(ToolCallEnd, self.ids)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text(arguments: Any) -> str:
    """Return arguments as JSON text: some endpoints give the object itself."""
    is_text = arguments is None or isinstance(arguments, str)
    return _string(arguments) if is_text else json.dumps(arguments, ensure_ascii=False)
