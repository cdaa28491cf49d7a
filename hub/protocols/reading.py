"""Read JSON into the classes of the wire, strictly: an error says what is wrong, with an example of what is right.

Frames and the bodies of requests go through the same checks, against the limits that they are given.
"""

import json
import re
from typing import Any, TypeVar

import msgspec
import orjson

from hub.errors import BadFrame, BadId, UnknownType
from hub.ids import describe_bad_id, is_id, quote
from hub.limits import Limits, size_text
from hub.messages import COMMANDS, Chat, Command
from hub.messages.numbers import read_float
from hub.protocols.choices import allowed_values
from hub.text import cut

# A number that a float may not hold exactly; a number of up to 15 digits without an exponent always fits.
DIGITS = re.compile(rb"[0-9.]{17}|[0-9][eE][-+]?[0-9]+\s*[],}]")
ID_FIELDS = ("agentId", "sessionId", "runId", "clientMsgId", "interruptId", "epoch", "messageId", "newSessionId")


T = TypeVar("T")


def read_command(data: bytes, limits: Limits) -> Command:
    """Return the command in *data*; raises BadFrame, UnknownType or BadId. Unknown fields are ignored."""
    frame = read_object(data, limits)
    kind = frame.get("type")
    if not isinstance(kind, str):
        raise BadFrame(f'a frame needs a "type"; send for example {Chat.example}', **_about(frame))
    command = COMMANDS.get(kind)
    if command is None:
        raise UnknownType(f"unknown type {quote(kind)}; there are: {', '.join(COMMANDS)}", **_about(frame))
    return convert(frame, command, limits)


def convert(fields: dict[str, Any], kind: type[T], limits: Limits, what: str | None = None) -> T:
    """Return decoded fields as *kind*; raises BadFrame, with the example of *kind*, or BadId.

    *what* names the thing in errors: the command's type where it is left out.
    """
    name, example = what or getattr(kind, "type", "body"), getattr(kind, "example")
    try:
        check_parts(fields.get("parts"), limits)
        value = msgspec.convert(fields, kind)
        _check_metadata(value, limits)
    except ValueError as wrong:  # msgspec raises a kind of it
        expected, field = split_error(wrong, kind)
        if field in ID_FIELDS and isinstance(fields.get(field), str):
            raise BadId(describe_bad_id(field, fields[field]), **_about(fields)) from None
        place = f" - at `$.{field}`" if field else ""
        raise BadFrame(f"bad {name}: {expected}{place}; send for example {example}", **_about(fields)) from None
    return value


def split_error(error: Exception, kind: Any) -> tuple[str, str]:
    """Return what msgspec expected of *kind*, with the values that are allowed, and the path of the field."""
    placed = re.fullmatch(r"(.*) - at `\$\.?(.*)`", str(error), re.DOTALL)
    expected, field = placed.groups() if placed else (str(error), "")
    values = allowed_values(kind, field)
    there_are = f"; there are: {', '.join(values)}" if values else ""
    return cut(expected, 200, "…") + there_are, field


def _check_metadata(value: Any, limits: Limits) -> None:
    metadata = getattr(value, "metadata", None)
    if isinstance(value, Command) and metadata is not None and len(orjson.dumps(metadata)) > limits.metadata_bytes:
        raise ValueError(f"metadata is larger than {size_text(limits.metadata_bytes)}")


def check_parts(parts: Any, limits: Limits) -> None:
    """Raise ValueError for more parts than a message may have, before they are read."""
    if isinstance(parts, list) and len(parts) > limits.message_parts:
        raise ValueError(f"more than {limits.message_parts} parts - at `$.parts`")


def check_id(name: str, value: str) -> str:
    """Return an id that is one; raises BadId. *name* says where it came from."""
    if not is_id(value):
        raise BadId(describe_bad_id(name))
    return value


def read_object(data: bytes, limits: Limits, example: str = Chat.example) -> dict[str, Any]:
    """Return the JSON object in *data*, whose depth, keys and integers are within bounds; raises BadFrame."""
    # orjson refuses what is no UTF-8, lone surrogates, NaN and Infinity.
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as wrong:
        raise BadFrame(f"not JSON ({wrong}); send for example {example}") from None
    if not isinstance(fields, dict):
        raise BadFrame(f"a frame is one JSON object, not {type(fields).__name__}; send for example {example}")
    _check(fields, limits, 1)
    if _has_float(fields) and DIGITS.search(data):
        try:  # slower, but sees all digits: orjson reads an integer of more than 64 bits as a float
            _check(json.loads(data, parse_float=read_float), limits, 1)
        except ValueError as wrong:
            raise BadFrame(str(wrong)) from None
    return fields


def _check(value: Any, limits: Limits, depth: int) -> None:
    if type(value) is int:
        if not -limits.max_integer <= value <= limits.max_integer:
            raise BadFrame(f"an integer past {_power(limits.max_integer)} is not exact everywhere: send it as a string")
    elif isinstance(value, (dict, list)):
        if depth > limits.json_depth:
            raise BadFrame(f"nested deeper than {limits.json_depth} levels: send something flatter")
        if isinstance(value, dict) and len(value) > limits.object_keys:
            raise BadFrame(f"more than {limits.object_keys} keys in one object: send fewer")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, limits, depth + 1)


def _has_float(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return any(map(_has_float, value.values() if isinstance(value, dict) else value))
    return type(value) is float


def _power(number: int) -> str:
    return "2^53" if number == 2**53 else str(number)


def _about(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what an error concerns, as far as the fields can be trusted: the ref, and ids that are short text."""
    named = {key: fields.get(key) for key in ("ref", "sessionId", "clientMsgId")}
    about = {key: value for key, value in named.items() if isinstance(value, str) and len(value) <= 128}
    return about | ({"ref": fields["ref"]} if type(fields.get("ref")) is int else {})
