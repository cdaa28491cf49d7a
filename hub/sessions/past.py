"""Read the history that an agent sees: the newest messages of its session, within limits."""

from collections.abc import Collection, Sequence
from typing import Any

import attrs
import orjson

from hub.ids import Key
from hub.limits import Limits
from hub.messages import HistoryMessage, Past, ToolCall
from hub.messages.parts import TOOL_PARTS, JsonParts
from hub.sessions.tool_results import PairedCall, pair_calls
from hub.storage.log import SessionStore
from hub.storage.records import RunRecord


async def read_past(
    store: SessionStore, key: Key, open_runs: Collection[RunRecord], limits: Limits, takes_tools: bool
) -> Sequence[Past]:
    """Return the newest finished messages of a session within *limits*, oldest first.

    The messages that *open_runs* answer are left out. An answer that has a stop reason, but no text and no parts, is
    left out, too, because models refuse an empty message. Only with *takes_tools*, the result has tool calls, and after
    each message with calls the results of these calls. Raises StorageUnavailable.
    """
    open_ids = {record.userMessageId for record in open_runs}
    open_bytes = sum(_count_bytes(record.message, record.parts) for record in open_runs)
    count = limits.history_messages + len(open_runs)
    messages = await store.read_last_messages(key, count, limits.history_bytes + open_bytes)
    newest: list[HistoryMessage] = []
    size = 0
    for message in reversed([message for message in messages if message.messageId not in open_ids]):
        size += _count_bytes(message.content, message.parts)
        if len(newest) == limits.history_messages or size > limits.history_bytes:
            break
        if message.content or message.parts or message.stopReason is None:
            newest.append(message)
    newest.reverse()
    return _to_past_with_tools(newest) if takes_tools else _to_past(newest)


def _to_past(messages: Sequence[HistoryMessage]) -> list[Past]:
    """Return messages without their parts for tools. A message that has nothing else is left out."""
    return [_make_past(message) for message in messages if _is_about_more_than_tools(message)]


def _to_past_with_tools(messages: Sequence[HistoryMessage]) -> list[Past]:
    """Return messages with their tool calls, and the results after the calls, whenever the results came.

    A result without its call is left out.
    """
    calls: dict[str, list[PairedCall]] = {}  # by message id
    for paired_calls in pair_calls(messages).calls.values():
        for call in paired_calls:
            calls.setdefault(call.message.messageId, []).append(call)
    past: list[Past] = []
    for message in messages:
        if message.messageId in calls:
            past += _make_call_past(message, calls[message.messageId])
        elif _is_about_more_than_tools(message):
            past.append(_make_past(message))
    return past


def _make_call_past(message: HistoryMessage, calls: list[PairedCall]) -> list[Past]:
    """Return a message with tool calls, and the results of the calls.

    Calls that come after results in the message have a message of their own, without text.
    """
    past, by_part = list[Past](), {id(call.part): call for call in calls}
    group: list[PairedCall] = []
    for part in (*(message.parts or ()), {"type": ""}):
        if part["type"] == "tool_call":
            group.append(by_part[id(part)])
        elif group and (part["type"] in TOOL_PARTS or not part["type"]):
            tool_calls = tuple(
                ToolCall(call.part["toolCallId"], call.part["toolCallName"], call.part["arguments"]) for call in group
            )
            base = attrs.evolve(_make_past(message), content="", parts=()) if past else _make_past(message)
            past.append(attrs.evolve(base, tool_calls=tool_calls))
            past += [_make_result(call.result) for call in group if call.result is not None]
            group = []
    return past


def _make_result(part: dict[str, Any]) -> Past:
    is_error = part.get("isError") is True
    return Past("tool", part["content"], tool_call_id=part["toolCallId"], is_error=is_error)


def _make_past(message: HistoryMessage) -> Past:
    parts = _select_other_parts(message.parts)
    return Past(message.role, message.content, message.agentId, parts, stop_reason=message.stopReason)


def _select_other_parts(parts: JsonParts | None) -> JsonParts:
    return tuple(part for part in parts or () if part["type"] not in TOOL_PARTS)


def _is_about_more_than_tools(message: HistoryMessage) -> bool:
    return bool(message.content or not message.parts or _select_other_parts(message.parts))


def _count_bytes(text: str, parts: object) -> int:
    """Return the bytes of a message, as the log counts them."""
    return len(text.encode()) + (len(orjson.dumps(parts)) if parts is not None else 0)
