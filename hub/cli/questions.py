"""What an agent asks, in words; and what somebody writes to that, as the answer that was wanted."""

import json
from typing import Any

import orjson

from hub.cli.text import safe
from hub.messages import Event, Interrupt, InterruptResolved
from hub.messages.numbers import read_float, read_integer

YES_OR_NO = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}
NUMBERS = ("number", "integer")
TEXTS = ("string", None)  # without a type, what is written is a text


def asks(event: Event, question: Interrupt) -> str:
    return f"{safe(event.agentId or '')} asks: {safe(question.message or question.reason)}"


def closed(reply: InterruptResolved) -> str:
    if reply.resolvedBy is None:
        return "nobody waits for an answer any more"
    if reply.status == "cancelled":
        return f"{safe(reply.resolvedBy.name)} declined"
    return f"{safe(reply.resolvedBy.name)} answered: {safe(_said(reply.payload))}"


def wanted(schema: dict[str, Any] | None) -> str:
    """Say what would be an answer; nothing where any text would."""
    kind, choices = _kind(schema)
    if choices:
        return f"one of: {safe(', '.join(map(_said, choices)))}"
    if kind == "boolean":
        return "yes or no"
    if kind in NUMBERS:
        return "a number"
    return "" if kind in TEXTS else f"as JSON, by the schema {safe(_said(schema))}"


def payload(schema: dict[str, Any] | None, text: str) -> Any:
    """Return what was written as the schema wants it; raises ValueError with what to do."""
    kind, choices = _kind(schema)
    text = text.strip()
    if not text:
        raise ValueError("write an answer")
    if choices:
        found: Any = [one for one in choices if _said(one) == text][:1]
        if found:
            return found[0]
    elif kind == "boolean":
        if text.lower() in YES_OR_NO:
            return YES_OR_NO[text.lower()]
    elif kind in TEXTS:
        return text
    else:
        try:
            orjson.loads(text)
        except ValueError:
            pass
        else:
            # These two refuse a number that would become another one.
            found = json.loads(text, parse_int=read_integer, parse_float=read_float)
            if kind not in NUMBERS or isinstance(found, (int, float)) and not isinstance(found, bool):
                return found
    raise ValueError(f"that is no answer; wanted: {wanted(schema)}")


def _kind(schema: dict[str, Any] | None) -> tuple[Any, list[Any]]:
    """Return the type that a schema names, and the values, where it lists them."""
    schema = schema or {}
    choices = schema.get("enum")
    return schema.get("type"), choices if isinstance(choices, list) else []


def _said(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
