"""What an agent asks, in words; and what somebody writes to that, as the answer that was wanted."""

import json
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import orjson

from hub.cli.text import safe
from hub.messages import Event, Interrupt, InterruptResolved
from hub.messages.numbers import read_float, read_integer

YES_OR_NO = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}
NUMBERS = ("number", "integer")
TEXTS = ("string", None)  # without a type, what is written is a text
TYPES = {"string": str, "boolean": bool, "array": list, "object": dict}

# What a schema may want beside a type: in words, and how it is checked.
Rules = dict[str, tuple[str, Callable[[Any, Any], bool]]]
NUMBER_RULES: Rules = {
    "minimum": ("at least {}", operator.ge),
    "exclusiveMinimum": ("more than {}", operator.gt),
    "maximum": ("at most {}", operator.le),
    "exclusiveMaximum": ("less than {}", operator.lt),
    "multipleOf": ("a multiple of {}", lambda value, unit: Fraction(str(value)) % Fraction(str(unit)) == 0),
}
TEXT_RULES: Rules = {
    "minLength": ("length at least {}", lambda value, least: len(value) >= least),
    "maxLength": ("length at most {}", lambda value, most: len(value) <= most),
    "pattern": ("matching {}", lambda value, pattern: re.search(pattern, value) is not None),
}


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
        return _listed("a whole number" if kind == "integer" else "a number", NUMBER_RULES, schema)
    if kind in TEXTS:
        said = _listed("a text", TEXT_RULES, schema)
        return said if said != "a text" else ""
    return f"as JSON, by the schema {safe(_said(schema))}"


def _listed(what: str, rules: Rules, schema: dict[str, Any] | None) -> str:
    given = schema or {}
    more = [words.format(_said(given[name])) for name, (words, _) in rules.items() if name in given]
    return safe(", ".join([what, *more]))


def payload(schema: dict[str, Any] | None, text: str) -> Any:
    """Return what was written as the schema wants it; raises ValueError with what to do."""
    kind, choices = _kind(schema)
    text = text.strip()
    if not text:
        raise ValueError("write an answer")
    found: list[Any] = []
    if choices:
        found = [one for one in choices if _said(one) == text][:1]
    elif kind == "boolean":
        found = [YES_OR_NO[text.lower()]] if text.lower() in YES_OR_NO else []
    elif kind in TEXTS:
        found = [text]
    else:
        try:
            orjson.loads(text)
        except ValueError:
            pass
        else:
            # These two refuse a number that would become another one.
            found = [json.loads(text, parse_int=read_integer, parse_float=read_float)]
    if found and _fits(schema, found[0]):
        return found[0]
    raise ValueError(f"that is no answer; wanted: {wanted(schema)}")


def _fits(schema: Any, value: Any) -> bool:
    """Tell whether a schema allows a value, by what the console checks of it. An invalid schema allows all."""
    try:
        kind, choices = _kind(schema)
        if choices:
            return value in choices
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind in NUMBERS and not is_number or kind == "integer" and value % 1:
            return False
        if kind in (*TYPES,) and not isinstance(value, TYPES[kind]):
            return False
        if isinstance(value, dict):
            fields = schema.get("properties", {}).items()
            lacking = set(schema.get("required", ())) - set(value)
            return not lacking and all(_fits(one, value[name]) for name, one in fields if name in value)
        rules = NUMBER_RULES if is_number else TEXT_RULES if isinstance(value, str) else {}
        return all(fits(value, schema[name]) for name, (_, fits) in rules.items() if name in (schema or {}))
    except (TypeError, ValueError, AttributeError, ArithmeticError, re.error):
        return True


def _kind(schema: dict[str, Any] | None) -> tuple[Any, list[Any]]:
    """Return the type that a schema names, and the values, where it lists them."""
    schema = schema or {}
    choices = schema.get("enum")
    return schema.get("type"), choices if isinstance(choices, list) else []


def _said(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
