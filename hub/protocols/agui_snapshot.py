"""The messages of a session in AG-UI's form, with the same ids as in the events of its runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hub.messages.parts import TOOL_PARTS
from hub.protocols.agui_request import IDS_KEY, make_call_id, make_result_id


def make_snapshot(history: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return AG-UI's messages for messages of the hub. If two have one id, the second one gets another id."""
    messages: dict[str, dict[str, Any]] = {}
    call_ids: dict[str, str] = {}
    for row in history:
        is_user = row["role"] == "user"
        new_messages = make_user_messages(row, call_ids) if is_user else _make_answer(row, call_ids)
        for number, message in enumerate(new_messages):
            id = f"{row['messageId']}-{number}" if message["id"] in messages else message["id"]
            messages[id] = {**message, "id": id}
    return list(messages.values())


def make_user_messages(row: Mapping[str, Any], call_ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a message for each result in a user's message, and one for its text.

    *call_ids* are the ids of tool calls for clients, by the agent's ids.
    """
    parts = row.get("parts") or ()
    messages = []
    for part in parts:
        if part["type"] == "tool_result":
            messages.append(_make_result(part, call_ids.get(part["toolCallId"], part["toolCallId"])))
    content = _make_content(row["content"], [part for part in parts if part["type"] not in TOOL_PARTS])
    if content or not messages:
        messages.append({"role": "user", "content": content})
    ids = (row.get("metadata") or {}).get(IDS_KEY)
    if not isinstance(ids, list) or len(ids) != len(messages) or not all(isinstance(id, str) for id in ids):
        ids = [f"{row['messageId']}-{number}" if number else row["messageId"] for number in range(len(messages))]
    return [{"id": id, **message} for id, message in zip(ids, messages, strict=True)]


def _make_content(text: str, parts: Sequence[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
    if not parts:
        return text
    has_text = not text or any(part["type"] == "text" for part in parts)
    return [*([] if has_text else [{"type": "text", "text": text}]), *map(_convert_binary, parts)]


def _convert_binary(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part in the form of AG-UI 1.0, which has no type `binary`."""
    for kind, name in (("data", "data"), ("url", "url"), ("file", "id")):
        if part["type"] == "binary" and part.get(name):
            return {"type": "document", "source": {"type": kind, "value": part[name], "mimeType": part["mimeType"]}}
    return part


def _make_answer(row: Mapping[str, Any], call_ids: dict[str, str]) -> list[dict[str, Any]]:
    """Return an agent's message, and one for each of its tool calls and results. Add the ids of the calls."""
    parts, run_id = row.get("parts") or (), row.get("runId") or ""
    messages: list[dict[str, Any]] = []
    answer_parts = [part for part in parts if part["type"] not in TOOL_PARTS]
    if row["content"] or answer_parts:
        metadata = {"metadata": {"parts": answer_parts}} if answer_parts else {}
        messages.append({"id": row["messageId"], "role": "assistant", "content": row["content"]} | metadata)
    for part in parts:
        if part["type"] == "tool_call":
            call_id = call_ids[part["toolCallId"]] = make_call_id(part["toolCallId"], run_id)
            function = {"name": part["toolCallName"], "arguments": part["arguments"]}
            call = {"id": call_id, "type": "function", "function": function}
            messages.append({"id": call_id, "role": "assistant", "toolCalls": [call]})
        elif part["type"] == "tool_result":
            call_id = make_call_id(part["toolCallId"], run_id)
            messages.append({"id": make_result_id(call_id), **_make_result(part, call_id)})
    return messages


def _make_result(part: Mapping[str, Any], call_id: str) -> dict[str, Any]:
    error = {"error": part["content"]} if part.get("isError") else {}
    return {"role": "tool", "toolCallId": call_id, "content": part["content"]} | error
