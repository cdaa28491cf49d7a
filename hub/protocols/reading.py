"""Validate JSON from clients and convert it to commands; most errors name the field and show a valid example.

WebSocket frames and HTTP bodies pass the same checks.
"""

import json
import re
from typing import Any, TypeVar, get_args

import attrs
import msgspec
import orjson

from hub.days import Day
from hub.errors import BadFrame, BadId, UnknownType
from hub.ids import ID_RULE, describe_bad_id, is_id, quote
from hub.limits import Limits, format_size
from hub.messages import COMMANDS, Chat, Command, Id, Request
from hub.messages.numbers import read_float
from hub.messages.parts import MimeType
from hub.protocols.choices import allowed_values
from hub.text import cut

# Finds numbers of which a float may not hold all digits. A float holds all digits of a number that has up to 15 digits
# and no exponent.
LONG_NUMBER = re.compile(rb"[0-9.]{17}|[0-9][eE][-+]?[0-9]+\s*[],}]")
# Names of JSON's types for errors, by the class that orjson decodes them to.
JSON_TYPES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
ID_FIELDS = ("agentId", "sessionId", "runId", "clientMsgId", "interruptId", "epoch", "messageId", "newSessionId")
ID_FORM = f"an id: {ID_RULE}"
# What errors say instead of a regular expression.
TEXT_FORMS = {
    get_args(kind)[1].pattern: form
    for kind, form in ((Id, ID_FORM), (Day, "a day such as 2026-11-30"), (MimeType, "a media type such as image/png"))
}
MAX_SEED = 2**64 - 1  # the largest 64-bit integer without a sign


T = TypeVar("T")


def read_command(data: bytes, limits: Limits) -> Command:
    """Return the command in a frame; unknown fields are ignored. Raises BadFrame, UnknownType or BadId."""
    frame = read_object(data, limits)
    kind = frame.get("type")
    if not isinstance(kind, str):
        raise BadFrame(
            f'the frame needs a "type", a string; send for example {Chat.example}', **_select_error_fields(frame)
        )
    command = COMMANDS.get(kind)
    if command is None:
        raise UnknownType(
            f"unknown type {quote(kind)}: use one of {', '.join(COMMANDS)}", **_select_error_fields(frame)
        )
    return convert(frame, command, limits)


def convert(fields: dict[str, Any], kind: type[T], limits: Limits, name: str | None = None) -> T:
    """Convert decoded fields to *kind*; raises BadId, or BadFrame with the example of *kind*.

    *name* is the name of the object in errors; the default is the type of the command, or "body".
    """
    name, example = name or getattr(kind, "type", "body"), getattr(kind, "example")
    try:
        check_parts(fields.get("parts"), limits)
        value = msgspec.convert(fields, kind)
        _check_metadata(value, limits)
    except ValueError as error:  # msgspec.ValidationError is a subclass
        problem, field = split_error(error, kind)
        if field in ID_FIELDS and isinstance(fields.get(field), str):
            raise BadId(describe_bad_id(field, fields[field]), **_select_error_fields(fields)) from None
        location = f" - at `$.{field}`" if field else ""
        raise BadFrame(
            f"bad {name}: {problem}{location}; send for example {example}", **_select_error_fields(fields)
        ) from None
    return value


def split_error(error: Exception, kind: Any) -> tuple[str, str]:
    """Return the problem that an error of msgspec describes, and the path of the field.

    If *kind* allows only some values in the field, the problem lists them. A form of a text has its name there.
    """
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", str(error), re.DOTALL)
    problem, field = match.groups() if match else (str(error), "")
    for pattern, form in TEXT_FORMS.items():
        problem = problem.replace(f"`str` matching regex {pattern!r}", form)
    values = allowed_values(kind, field)
    hint = f", use one of {', '.join(values)}" if values else ""
    return cut(problem, 200, "…") + hint, field


def _check_metadata(value: Any, limits: Limits) -> None:
    metadata = getattr(value, "metadata", None)
    if isinstance(value, Command) and metadata is not None and len(orjson.dumps(metadata)) > limits.metadata_bytes:
        raise ValueError(f"metadata is larger than {format_size(limits.metadata_bytes)}, which is the limit")


def check_parts(parts: Any, limits: Limits) -> None:
    """Raise ValueError if a message has more parts than the limit. Call this before the parts are converted."""
    if isinstance(parts, list) and len(parts) > limits.message_parts:
        raise ValueError(f"more than {limits.message_parts} parts, which is the limit - at `$.parts`")


def check_request(request: Request, limits: Limits) -> None:
    """Raise BadFrame if a request is outside the limits, or if its choice of a tool does not fit its tools.

    It may have integers of 64 bits, such as a seed or a bound in the schema of a tool. Its sampling may have objects
    with many keys: those of `logit_bias`.
    """
    try:
        data = msgspec.json.encode(request)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadFrame(f"the request has a value that is not JSON ({error}): send another one") from None
    if len(data) > limits.request_bytes:
        size = format_size(limits.request_bytes)
        raise BadFrame(f"the tools, the state and the rest of the request are larger than {size}: send less")
    fields = msgspec.json.decode(data)  # orjson would read longer integers as floats
    sampling = fields.pop("sampling")
    limits = attrs.evolve(limits, max_integer=MAX_SEED)
    _check_value(fields, limits, 1)
    if sampling:
        _check_value(sampling, attrs.evolve(limits, object_keys=len(data)), 2)
    if len(request.tool_names) < len(request.tools):
        raise BadFrame("two tools of the request have the same name: give each tool a name of its own")
    choice = request.tool_choice
    if request.is_tool_required and not (choice in request.tool_names or (choice == "required" and request.tools)):
        raise BadFrame(
            f"the request has no tool for the tool choice {quote(choice or '')}: add this tool, or leave the choice out"
        )


def check_id(name: str, value: str) -> str:
    """Return *value* if it is a valid id, else raise BadId. *name* is the field or parameter that has it."""
    if not is_id(value):
        raise BadId(describe_bad_id(name))
    return value


def read_object(data: bytes, limits: Limits, example: str = Chat.example) -> dict[str, Any]:
    """Return the JSON object in *data*.

    Raises BadFrame if *data* is not a JSON object, or if its depth, keys or numbers are outside the limits.
    """
    # orjson refuses invalid UTF-8, lone surrogates, NaN and Infinity.
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadFrame(f"not JSON ({error}); send for example {example}") from None
    if not isinstance(fields, dict):
        raise BadFrame(f"expected one JSON object, got {JSON_TYPES[type(fields)]}; send for example {example}")
    _check_value(fields, limits, 1)
    if _has_float(fields) and LONG_NUMBER.search(data):
        try:  # json is slower, but keeps all digits: orjson reads an integer of more than 64 bits as a float
            _check_value(json.loads(data, parse_float=read_float), limits, 1)
        except ValueError as error:
            raise BadFrame(str(error)) from None
    return fields


def _check_value(value: Any, limits: Limits, depth: int) -> None:
    if type(value) is int:
        if not -limits.max_integer <= value <= limits.max_integer:
            raise BadFrame(f"an integer is beyond {_power(limits.max_integer)}: send it as a string")
    elif isinstance(value, (dict, list)):
        if depth > limits.json_depth:
            raise BadFrame(f"the JSON is nested deeper than {limits.json_depth} levels: send a flatter object")
        if isinstance(value, dict) and len(value) > limits.object_keys:
            raise BadFrame(f"a JSON object has more than {limits.object_keys} keys: send fewer keys")
        for item in value.values() if isinstance(value, dict) else value:
            _check_value(item, limits, depth + 1)


def _has_float(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return any(map(_has_float, value.values() if isinstance(value, dict) else value))
    return type(value) is float


def _power(number: int) -> str:
    return "2^53" if number == 2**53 else str(number)


def _select_error_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the ref, session id and clientMsgId of a command, for its error.

    Leave out those that are not text or are too long. A ref may also be an integer.
    """
    values = {key: fields.get(key) for key in ("ref", "sessionId", "clientMsgId")}
    about = {key: value for key, value in values.items() if isinstance(value, str) and len(value) <= 128}
    return about | ({"ref": fields["ref"]} if type(fields.get("ref")) is int else {})
