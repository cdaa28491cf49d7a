"""Reads a JSON frame into a command, strictly: what is wrong is said with an example of what is right."""

import re
from typing import Any

import msgspec
import orjson

from hub.errors import BadFrame, BadId, UnknownType
from hub.messages import COMMANDS, ID_PATTERN, Chat, Command
from hub.settings import Limits

LIMITS = Limits()
ID = re.compile(ID_PATTERN)
ID_FIELDS = ("agentId", "sessionId", "runId", "clientMsgId", "interruptId", "epoch", "messageId", "newSessionId")


def read_command(data: bytes) -> Command:
    """Return the command in *data*; raises BadFrame, UnknownType or BadId. Unknown fields are ignored."""
    frame = read_object(data)
    kind = frame.get("type")
    if not isinstance(kind, str):
        raise BadFrame(f'a frame needs a "type"; send for example {Chat.example}', **_about(frame))
    command = COMMANDS.get(kind)
    if command is None:
        raise UnknownType(f"unknown type {_short(kind)}; there are: {', '.join(COMMANDS)}", **_about(frame))
    return convert(frame, command)


def convert(frame: dict[str, Any], command: type[Command]) -> Command:
    """Check the fields of a decoded object against *command*."""
    try:
        return msgspec.convert(frame, command)
    except msgspec.ValidationError as wrong:
        field = str(wrong).rpartition("`$.")[2].rstrip("`")
        if field in ID_FIELDS and isinstance(frame.get(field), str):
            raise BadId(
                f"{field} {_short(frame[field])} is no id: 1 to 128 of A-Z a-z 0-9 . _ : @ -", **_about(frame)
            ) from None
        raise BadFrame(f"bad {command.type}: {wrong}; send for example {command.example}", **_about(frame)) from None


def read_object(data: bytes, example: str = Chat.example) -> dict[str, Any]:
    """Return the JSON object in *data*, whose depth, keys and integers are within bounds; raises BadFrame."""
    # orjson is strict where HARDENING asks for it: UTF-8, lone surrogates, NaN and Infinity.
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError as wrong:
        raise BadFrame(f"not JSON ({wrong}); send for example {example}") from None
    if not isinstance(frame, dict):
        raise BadFrame(f"a frame is one JSON object, not {type(frame).__name__}; send for example {example}")
    _check(frame, 1)
    return frame


def _check(value: Any, depth: int) -> None:
    if type(value) is int:
        if not -LIMITS.max_integer <= value <= LIMITS.max_integer:
            raise BadFrame("an integer past 2^53 is not exact everywhere: send it as a string")
    elif isinstance(value, (dict, list)):
        if depth > LIMITS.json_depth:
            raise BadFrame(f"nested deeper than {LIMITS.json_depth} levels: send something flatter")
        if isinstance(value, dict) and len(value) > LIMITS.object_keys:
            raise BadFrame(f"more than {LIMITS.object_keys} keys in one object: send fewer")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth + 1)


def _about(frame: dict[str, Any]) -> dict[str, Any]:
    """What the error concerns, as far as the frame can be trusted to say: its ref, and ids that are short text."""
    named = {key: frame.get(key) for key in ("ref", "sessionId", "clientMsgId")}
    about = {key: value for key, value in named.items() if isinstance(value, str) and len(value) <= 128}
    return about | ({"ref": frame["ref"]} if type(frame.get("ref")) is int else {})


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
