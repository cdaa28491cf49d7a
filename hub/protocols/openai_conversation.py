"""Read the messages of a request in OpenAI's form: the history, and what is new."""

from collections.abc import Sequence
from typing import Any

import attrs
import orjson

from hub.ids import quote
from hub.messages import Past, ToolCall
from hub.messages.parts import JsonParts
from hub.protocols.openai_errors import bad_request_error
from hub.protocols.openai_parts import read_content
from hub.protocols.openai_request import OPENAI_ROLES, ConversationMessage

RESULT_ROLES = ("tool", "function")


@attrs.frozen(kw_only=True)
class Prompt:
    """What an agent answers, after *history*: a text with its *parts*, or the *results* of tool calls.

    *late_results* are the results at the end of the history: the text came before an answer to them. With
    *is_continuation*, the last message is an assistant's, so nothing is new. *text_bytes* is the size of all texts,
    with the names and the arguments of tool calls.
    """

    history: Sequence[Past]
    message: str = ""
    parts: JsonParts = ()
    results: JsonParts = ()
    late_results: JsonParts = ()
    is_continuation: bool = False
    text_bytes: int = 0


def read_conversation(messages: Sequence[ConversationMessage]) -> Prompt:
    """Return the history, and what is new after it.

    New are the results at the end, or else the last message if it is no assistant's. Raises OpenAIError for a role or
    content that is not supported, and if there are no messages.
    """
    if not messages:
        raise bad_request_error("the request has no message: send at least one", "messages")
    history = [_read_message(message, index) for index, message in enumerate(messages)]
    text_bytes = sum(map(_count_text_bytes, history))
    end = _skip_results(history, len(history))
    if end < len(history):
        return Prompt(history=history[:end], results=_to_results(history[end:]), text_bytes=text_bytes)
    last = history[-1]
    if last.role == "assistant":
        return Prompt(history=history, is_continuation=True, text_bytes=text_bytes)
    earlier = history[:-1]
    late_results = _to_results(earlier[_skip_results(earlier, len(earlier)) :])
    return Prompt(
        history=earlier,
        message=last.content,
        parts=tuple(dict(part) for part in last.parts),
        late_results=late_results,
        text_bytes=text_bytes,
    )


def _count_text_bytes(past: Past) -> int:
    return sum(len(text.encode()) for text in (past.content, *(call.name + call.arguments for call in past.tool_calls)))


def _skip_results(history: Sequence[Past], end: int) -> int:
    """Return the index of the first of the results just before *end*, or *end* if there are none."""
    while end > 0 and history[end - 1].role == "tool":
        end -= 1
    return end


def _to_results(history: Sequence[Past]) -> JsonParts:
    return tuple({"type": "tool_result", "toolCallId": past.tool_call_id, "content": past.content} for past in history)


def _read_message(message: ConversationMessage, index: int) -> Past:
    param = f"messages[{index}]"
    if message.role not in OPENAI_ROLES:
        text = f"the hub does not support the role {quote(message.role)}: use one of {', '.join(OPENAI_ROLES)}"
        raise bad_request_error(text, f"{param}.role")
    text, parts = read_content(message.content, f"{param}.content")
    if message.role in RESULT_ROLES:
        call_id = message.tool_call_id or (message.name if message.role == "function" else None)
        if call_id is None:
            raise bad_request_error("the result of a tool call needs the id of the call", f"{param}.tool_call_id")
        return Past("tool", text, tool_call_id=call_id)
    if message.role == "assistant":
        return Past("assistant", text or message.refusal or "", tool_calls=_read_calls(message))
    return Past("user", text, parts=parts) if message.role == "user" else Past("system", text)


def _read_calls(message: ConversationMessage) -> tuple[ToolCall, ...]:
    calls = [(call.id, call.function) for call in message.tool_calls or ()]
    if message.function_call is not None:  # the result names the function, because the call has no id
        calls.append((message.function_call.name, message.function_call))
    return tuple(ToolCall(call_id, function.name, _to_text(function.arguments)) for call_id, function in calls)


def _to_text(arguments: str | dict[str, Any] | None) -> str:
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
