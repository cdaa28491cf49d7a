"""Write hub/client_js/client.d.ts: the types of hub.messages, between those of api.d.ts.

With `--check`, write nothing, and fail if the file is stale.
"""

import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec

from hub.messages import BODIES, NOTICES, words
from hub.messages.answers import HostedAgent, StoredFile
from hub.messages.history import HistoryMessage
from hub.messages.parts import AnswerPart, DataSource, FileSource, ToolCallPart, ToolResultPart, UrlSource

API_FILE = Path(__file__).with_name("api.d.ts")
TYPES_FILE = Path(__file__).parents[2] / "hub" / "client_js" / "client.d.ts"
MARK = "// --- wire ---\n"

SIMPLE_TYPES = {str: "string", bytes: "string", int: "number", float: "number", bool: "boolean", Any: "unknown"}
# The named enumerations, by their values.
ALIASES = {get_args(getattr(words, name)): name for name in ("StopReason", "IfBusy", "ReplyStatus", "RemovalReason")}
ALIASES[("owner", "member", "viewer")] = "SessionRole"
# Classes whose name in TypeScript is another one, because `Error` and `State` are names of api.d.ts or of JavaScript.
NAMES: dict[type, str] = {HistoryMessage: "Message", HostedAgent: "Agent", words.Fault: "Failure"}
# The frames that listeners of a session or a hub get.
HEARD_NOTICES = ("state", "presence", "typing", "role", "error", "draining")
RESULT_NOTICES = ("welcome", "subscribed", "accepted", "cancelling", "reset")
PARTS = (*get_args(AnswerPart), ToolCallPart, ToolResultPart)
# Fields whose class in Python is a dictionary.
FIELD_TYPES = {
    "Welcome.hub": "{ name: string; version: string }",
    "Welcome.agents": "Agent[]",
    "Welcome.limits": "Limits",
    "Subscribed.active": "Run[]",
    "Subscribed.history": "Message[]",
    "StateNotice.active": "Run[]",
    "StateNotice.queue": "Run[]",
    "StateNotice.interrupts": "OpenQuestion[]",
    "Reset.messages": "Message[]",
}
# Fields that are never missing in what the client gives to a program, and one that may be.
REQUIRED = {"Subscribed.sessionId", "Subscribed.seq", "Subscribed.agents", "Subscribed.active", "Accepted.clientMsgId"}
OPTIONAL = {"Message.seq"}
# Events that belong to no run, and those that may belong to none.
SESSION_EVENTS, LOOSE_EVENTS = {"user_message"}, {"message", "message_removed"}


def write_types() -> str:
    """Return the text of client.d.ts."""
    head, tail = API_FILE.read_text(encoding="utf-8").split(MARK)
    begin = "// --- scripts/client_types/write.py has written these types, from hub/messages ---\n\n"
    return head + begin + "\n".join(_write_wire()) + "\n// --- end of the written types ---\n" + tail


def _write_wire() -> Iterator[str]:
    for name in ("StopReason", "IfBusy", "ReplyStatus", "RemovalReason"):
        yield f"export type {name} = {_union(get_args(getattr(words, name)))}\n"
    for record in (words.Author, words.Usage, words.Fault, HostedAgent, StoredFile):
        yield _interface(record)
    for record in (DataSource, UrlSource, FileSource, *PARTS):
        yield _interface(record)
    yield f"/** A piece of a message besides its text. */\nexport type Part = {_join(PARTS)}\n"
    yield _interface(HistoryMessage)
    for body in BODIES.values():
        NAMES[body] = f"{body.__name__}Event"
        yield _interface(body)
    yield "/** An event of a session's log; `seq` numbers the events of a session. */"
    yield f"{_type_union('Event', BODIES.values())}\n"
    heard = [NOTICES[name] for name in HEARD_NOTICES]
    for notice in heard:
        NAMES[notice] = notice.__name__.removesuffix("Notice") + "Notice"
    for notice in (*heard, *(NOTICES[name] for name in RESULT_NOTICES)):
        yield _interface(notice)
    yield "/** A message of the hub that is not in the log, and has no number. */"
    yield f"{_type_union('Notice', heard)}\n"


def _interface(record: type[Any]) -> str:
    name = _name(record)
    lines = [_comment(record), f"export interface {name}{_parent(record)} {{"]
    tag = getattr(record, "type", None) if attrs.has(record) else record.__struct_config__.tag
    if isinstance(tag, str):
        lines.append(f"  type: '{tag}'")
    if tag in LOOSE_EVENTS and record in BODIES.values():
        lines += ["  agentId?: string", "  runId?: string"]
    for field, is_optional, hint in _fields(record):
        place = f"{name}.{field}"
        mark = "?" if (is_optional and place not in REQUIRED) or place in OPTIONAL else ""
        lines.append(f"  {field}{mark}: {_field_type(place, hint)}")
    return "\n".join([*lines, "}\n"])


def _fields(record: type[Any]) -> Iterator[tuple[str, bool, Any]]:
    """Yield the name of each field, whether it may be missing on the wire, and its type. None is never sent."""
    hints = get_type_hints(record, include_extras=False)
    fields = attrs.fields(record) if attrs.has(record) else msgspec.structs.fields(record)
    for field in fields:
        if field.name != "ref":
            is_optional = field.default is None or type(None) in get_args(hints[field.name])
            yield field.name, is_optional, hints[field.name]


def _parent(record: type[Any]) -> str:
    if record not in BODIES.values():
        return ""
    tag = record.type
    return f" extends {'SessionEvent' if tag in SESSION_EVENTS | LOOSE_EVENTS else 'RunEvent'}"


def _field_type(place: str, hint: Any) -> str:
    if place in FIELD_TYPES:
        return FIELD_TYPES[place]
    return "Part[]" if place.endswith(".parts") else _type(hint)


def _type(hint: Any) -> str:
    """Return a type of Python in TypeScript, without None."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in SIMPLE_TYPES:
        return SIMPLE_TYPES[hint]
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ALIASES.get(arguments, _union(arguments))
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(_type(argument) for argument in arguments if argument is not type(None)))
    if origin in (tuple, list):
        return f"{_type(arguments[0])}[]"
    if origin is dict:
        return f"Record<string, {_type(arguments[1])}>"
    return _name(hint)


def _name(record: type[Any]) -> str:
    return NAMES.get(record, record.__name__)


def _union(values: tuple[str, ...]) -> str:
    return " | ".join(f"'{value}'" for value in values)


def _join(records: Any) -> str:
    return " | ".join(map(_name, records))


def _type_union(name: str, records: Any) -> str:
    return f"export type {name} =\n" + "\n".join(f"  | {_name(record)}" for record in records)


def _comment(record: type[Any]) -> str:
    """Return the docstring as a comment, with the names of fields in backticks."""
    text = re.sub(r"\*(\w+)\*", r"`\1`", inspect.getdoc(record) or "").replace("is None", "is missing")
    lines = text.splitlines()
    if len(lines) == 1:
        return f"/** {lines[0]} */"
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */"])


def main() -> int:
    text = write_types()
    if "--check" in sys.argv:
        if TYPES_FILE.read_text(encoding="utf-8") == text:
            return 0
        print("hub/client_js/client.d.ts is stale: run make client-types", file=sys.stderr)
        return 1
    TYPES_FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
