"""Questions of agents as text, and input lines as answers that fit the question's schema."""

import json
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import orjson

from hub.cli.text import to_printable
from hub.messages import Event, Interrupt, InterruptResolved
from hub.messages.numbers import read_float, read_integer

YES_OR_NO = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}
NUMBER_TYPES = ("number", "integer")
TEXT_TYPES = ("string", None)  # a schema without a type allows any text
PYTHON_TYPES = {"string": str, "boolean": bool, "array": list, "object": dict}

# Each keyword of JSON Schema has a text for people, and a function that checks a value.
Rules = dict[str, tuple[str, Callable[[Any, Any], bool]]]
NUMBER_RULES: Rules = {
    "minimum": ("at least {}", operator.ge),
    "exclusiveMinimum": ("more than {}", operator.gt),
    "maximum": ("at most {}", operator.le),
    "exclusiveMaximum": ("less than {}", operator.lt),
    "multipleOf": ("a multiple of {}", lambda value, unit: Fraction(str(value)) % Fraction(str(unit)) == 0),
}
TEXT_RULES: Rules = {
    "minLength": ("length at least {}", lambda value, minimum: len(value) >= minimum),
    "maxLength": ("length at most {}", lambda value, maximum: len(value) <= maximum),
    "pattern": ("matching {}", lambda value, pattern: re.search(pattern, value) is not None),
}


def question_text(event: Event, question: Interrupt) -> str:
    return f"{to_printable(event.agentId or '')} asks: {to_printable(question.message or question.reason)}"


def reply_text(reply: InterruptResolved) -> str:
    if reply.resolvedBy is None:
        return "the question was withdrawn"
    if reply.status == "cancelled":
        return f"{to_printable(reply.resolvedBy.name)} declined"
    return f"{to_printable(reply.resolvedBy.name)} answered: {to_printable(_to_text(reply.payload))}"


def describe_answers(schema: dict[str, Any] | None) -> str:
    """Describe the answers that a schema allows; return "" if the schema allows any text."""
    kind, choices = _type_and_choices(schema)
    if choices:
        return f"one of: {to_printable(', '.join(map(_to_text, choices)))}"
    if kind == "boolean":
        return "yes or no"
    if kind in NUMBER_TYPES:
        return _describe_rules("a whole number" if kind == "integer" else "a number", NUMBER_RULES, schema)
    if kind in TEXT_TYPES:
        text = _describe_rules("a text", TEXT_RULES, schema)
        return text if text != "a text" else ""
    return f"as JSON, by the schema {to_printable(_to_text(schema))}"


def _describe_rules(kind: str, rules: Rules, schema: dict[str, Any] | None) -> str:
    schema = schema or {}
    conditions = [words.format(_to_text(schema[name])) for name, (words, _) in rules.items() if name in schema]
    return to_printable(", ".join([kind, *conditions]))


def parse_answer(schema: dict[str, Any] | None, text: str) -> Any:
    """Convert an input line to a value that the schema allows. Raises ValueError with a line for the user."""
    kind, choices = _type_and_choices(schema)
    text = text.strip()
    if not text:
        raise ValueError("write an answer")
    values: list[Any] = []
    if choices:
        values = [choice for choice in choices if _to_text(choice) == text][:1]
    elif kind == "boolean":
        values = [YES_OR_NO[text.lower()]] if text.lower() in YES_OR_NO else []
    elif kind in TEXT_TYPES:
        values = [text]
    else:
        try:
            orjson.dumps({"payload": orjson.loads(text)})
        except (ValueError, orjson.JSONEncodeError):  # JSONEncodeError: too many levels to be sent
            pass
        else:
            # orjson has checked the syntax. read_integer and read_float refuse a number that Python would change.
            values = [json.loads(text, parse_int=read_integer, parse_float=read_float)]
    if values and _is_allowed(schema, values[0]):
        return values[0]
    raise ValueError(f"this is not a valid answer; expected: {describe_answers(schema)}")


def _is_allowed(schema: Any, value: Any) -> bool:
    """Return whether a schema allows a value. An invalid schema allows every value.

    The function checks the same keywords as the console.
    """
    try:
        kind, choices = _type_and_choices(schema)
        if choices:
            return value in choices
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind in NUMBER_TYPES and not is_number or kind == "integer" and value % 1:
            return False
        # A tuple, because the type in an invalid schema may be unhashable.
        if kind in (*PYTHON_TYPES,) and not isinstance(value, PYTHON_TYPES[kind]):
            return False
        if isinstance(value, dict):
            fields = schema.get("properties", {}).items()
            missing = set(schema.get("required", ())) - set(value)
            return not missing and all(_is_allowed(field, value[name]) for name, field in fields if name in value)
        rules = NUMBER_RULES if is_number else TEXT_RULES if isinstance(value, str) else {}
        return all(fits(value, schema[name]) for name, (_, fits) in rules.items() if name in (schema or {}))
    except (TypeError, ValueError, AttributeError, ArithmeticError, re.error):
        return True


def _type_and_choices(schema: dict[str, Any] | None) -> tuple[Any, list[Any]]:
    """Return the type of a schema, and the values that its `enum` lists."""
    schema = schema or {}
    choices = schema.get("enum")
    return schema.get("type"), choices if isinstance(choices, list) else []


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
