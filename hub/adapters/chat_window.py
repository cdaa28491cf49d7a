"""Select the messages of a session that a model gets."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import attrs

from hub.adapters.chat_options import Options
from hub.adapters.chat_parts import join_contents, make_content
from hub.errors import AgentError
from hub.hosting.contract import Run
from hub.messages import Past

MESSAGE_BYTES = 16  # an estimate of what a model's template adds to a message
NO_RESULT = "(There is no result of this call.)"  # endpoints refuse a call without a result
CONTINUATION = "The results of your earlier tool calls have come."
RequestMessage = dict[str, Any]


@attrs.define
class Turn:
    """A message of the history, and the results of its tool calls."""

    past: Past
    results: dict[str, str] = attrs.Factory(dict)  # by the id of the call

    @property
    def size(self) -> int:
        calls = sum(len(call.name) + len(call.arguments.encode()) + MESSAGE_BYTES for call in self.past.tool_calls)
        results = sum(len(text.encode()) + MESSAGE_BYTES for text in self.results.values())
        return len(self.past.content.encode()) + MESSAGE_BYTES + calls + results


def window_messages(run: Run, options: Options, *, takes_parts: bool = True) -> list[RequestMessage]:
    """Return the `messages` of the request: the instructions, the newest earlier messages, and the question.

    The earlier messages are at most `history`, and as many as fit into `window_bytes` with the rest. The results of
    tool calls belong to the message with the calls. A question that is too long loses its beginning, and a result its
    end. Consecutive messages of one role are joined, and answers before the first question are dropped: the templates
    of many models accept no other order. Parts other than text do not count for `window_bytes`, and are left out unless
    *takes_parts* is set. Raises AgentError if the instructions leave less than the question needs, and less than a
    quarter of `window_bytes`.
    """
    instructions = [options.system, *(past.content for past in run.history if past.role == "system")]
    system = "\n\n".join(text for text in instructions if text)
    free_bytes = options.window_bytes - len(system.encode()) - 2 * MESSAGE_BYTES
    if free_bytes < min(len(run.message.encode()), options.window_bytes // 4):
        text = "The system messages are too long for the model: shorten them, or raise `window_bytes` of the agent."
        raise AgentError(text, "model_refused")
    question = run.message.encode()[-free_bytes:].decode(errors="ignore")
    free_bytes -= len(question.encode())
    new_results = _cut_results(run.parts, free_bytes)
    free_bytes -= sum(len(text.encode()) + MESSAGE_BYTES for text in new_results.values())
    turns = _select_turns(_make_turns(run.history, takes_parts), options.history, free_bytes)
    messages = [message for turn in turns for message in _make_messages(turn, new_results, takes_parts)]
    content = make_content(question, run.parts if takes_parts else ())
    rest = "\n\n".join(new_results.values())  # results whose calls are no longer in the window
    if content or rest or not messages or messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": join_contents([text for text in (rest, content) if text] or [""])})
        if not content and not rest and run.parts:
            messages[-1]["content"] = CONTINUATION
    return ([{"role": "system", "content": system}] if system else []) + list(_join_neighbours(messages))


def _cut_results(parts: Sequence[Mapping[str, Any]], free_bytes: int) -> dict[str, str]:
    """Return the results of tool calls in a message, by the id of the call. Each has a fair share of the space."""
    results = {part["toolCallId"]: part["content"] for part in parts if part["type"] == "tool_result"}
    if not results:
        return {}
    share = max(free_bytes // len(results) - MESSAGE_BYTES, 0)
    return {call_id: text.encode()[:share].decode(errors="ignore") for call_id, text in results.items()}


def _make_turns(history: Sequence[Past], takes_parts: bool) -> list[Turn]:
    """Return the messages of people and agents that are not empty, each with the results of its tool calls."""
    turns: list[Turn] = []
    for past in history:
        if past.role == "tool" and turns and past.tool_call_id is not None:
            turns[-1].results[past.tool_call_id] = past.content
        elif past.role in ("user", "assistant") and (past.content or past.tool_calls or (takes_parts and past.parts)):
            turns.append(Turn(past))
    return turns


def _select_turns(turns: list[Turn], count: int, free_bytes: int) -> list[Turn]:
    """Return the newest *count* turns that fit into the space, oldest first. The first one is a user's."""
    start = len(turns)
    while start > max(len(turns) - count, 0) and turns[start - 1].size <= free_bytes:
        start -= 1
        free_bytes -= turns[start].size
    while start < len(turns) and turns[start].past.role == "assistant":
        start += 1
    return turns[start:]


def _make_messages(turn: Turn, new_results: dict[str, str], takes_parts: bool) -> Iterator[RequestMessage]:
    """Yield the messages of a turn: its own, and one for each result. Take results from *new_results*."""
    past = turn.past
    content = make_content(past.content, past.parts if takes_parts and past.role == "user" else ())
    message: RequestMessage = {"role": past.role, "content": content}
    if past.tool_calls:
        message |= {"content": content or None, "tool_calls": [_make_call(call) for call in past.tool_calls]}
    if content or past.tool_calls:
        yield message
    for call in past.tool_calls:
        result = turn.results.get(call.id)
        text = new_results.pop(call.id, NO_RESULT) if result is None else result
        yield {"role": "tool", "tool_call_id": call.id, "content": text}


def _make_call(call: Any) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def _join_neighbours(messages: Sequence[RequestMessage]) -> Iterator[RequestMessage]:
    """Join consecutive messages of one role, except those about tools."""
    for key, group in groupby(enumerate(messages), key=lambda item: _group_key(*item)):
        neighbours = [message for _, message in group]
        contents = [message["content"] for message in neighbours]
        yield neighbours[0] if len(neighbours) == 1 else {"role": key[0], "content": join_contents(contents)}


def _group_key(index: int, message: RequestMessage) -> tuple[str, int]:
    is_about_tools = message["role"] == "tool" or "tool_calls" in message
    return message["role"], index if is_about_tools else -1
