"""Build the AsyncAPI 3.0 document of the WebSocket from the tables of commands, events and notices."""

import re
from typing import Any, Literal

import attrs
import msgspec
import orjson

from hub import __version__
from hub.limits import Limits
from hub.messages import (
    BODIES,
    COMMANDS,
    NOTICES,
    Accepted,
    Cancelling,
    Command,
    Error,
    Ok,
    Pong,
    StopReason,
    Subscribed,
)
from hub.protocols.envelope import ENVELOPE_TYPES
from hub.settings import Settings
from hub.web.api.schemas import Schema, build_schemas, schema_ref, used_components
from hub.web.routes import API_PREFIX
from hub.web.websocket import SocketQuery

ASYNCAPI_DESCRIPTION = (
    "Clients send commands; the hub sends events and notices. The subprotocol `hubbub.v1` selects the extended "
    "protocol, and `hubbub.events` the event envelope; without a subprotocol, the hub speaks the plain protocol on the "
    "channel `socket`. In the plain protocol, `hello` as the first frame selects the extended protocol."
)
PLAIN_NOTICES = tuple(f"notice.{kind.type}" for kind in (Accepted, Cancelling, Error, Ok, Pong, Subscribed))
LOCATION_FIELDS = {name: {"type": "string"} for name in ("sessionId", "runId", "messageId", "epoch")}
PLAIN_MESSAGE_FIELDS = {
    "content": {"type": "string"},
    "done": {"type": "boolean"},
    "agentId": {"type": "string"},
    **LOCATION_FIELDS,
}
SEQ_FIELD = {"seq": {"type": "integer", "minimum": 1}}


def _object(description: str, fields: Schema, optional_fields: Schema) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": fields | optional_fields,
        "required": list(fields),
    }


# Frames without a class: see hub/protocols/plain.py and envelope.py.
PLAIN_FRAMES = {
    "stream": _object(
        "A part of an answer. With `done` true: the end of the answer.",
        {"type": {"const": "stream"}} | PLAIN_MESSAGE_FIELDS,
        SEQ_FIELD | {"stopReason": msgspec.json.schema(StopReason)},
    ),
    "message": _object(
        "A complete message in one frame.", {"type": {"const": "message"}} | PLAIN_MESSAGE_FIELDS, SEQ_FIELD
    ),
    "error": _object(
        "A run failed, or messages were removed (`messageIds`).",
        {"type": {"const": "error"}, "code": {"type": "string"}, "message": {"type": "string"}}
        | {name: LOCATION_FIELDS[name] for name in ("sessionId", "epoch")}
        | SEQ_FIELD,
        {
            "agentId": {"type": ["string", "null"]},
            "runId": {"type": ["string", "null"]},
            "retryAfterMs": {"type": "integer"},
            "messageIds": {"type": "array", "items": {"type": "string"}},
        },
    ),
}
ENVELOPE_SCHEMA = _object(
    "An event or a notice in the form of an envelope.",
    {
        "type": {"enum": sorted({*ENVELOPE_TYPES.values(), "status"})},
        "agentId": {"type": ["string", "null"]},
        "taskId": {"type": ["string", "null"]},
        "timestamp": {"type": "string", "format": "date-time"},
        "payload": {"type": "object"},
    },
    {"id": {"type": "string", "pattern": "^[^:]+:[0-9]+$"}},
)


def build_asyncapi(limits: Limits, base_path: str = "") -> Schema:
    """Return the document: two channels, and the messages of each wire protocol on them."""
    _, components = build_schemas([*COMMANDS.values(), SocketQuery], has_types=True, limits=limits)
    query = components["SocketQuery"]["properties"]
    agent_socket_messages = [name for name in ASYNCAPI_MESSAGES if not name.startswith("plain.")]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Hubbub", "version": __version__, "description": ASYNCAPI_DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {"hub": _server(base_path)},
        "channels": {
            "socket": _channel(API_PREFIX + "/ws", "The connection of one client.", list(ASYNCAPI_MESSAGES), query),
            "agentSocket": _channel(
                API_PREFIX + "/agents/{agentId}/ws",
                "The connection of one client to one agent. The default subprotocol is `hubbub.events`.",
                agent_socket_messages,
                query,
            ),
        },
        "operations": {name: operation.to_schema() for name, operation in ASYNCAPI_OPERATIONS.items()},
        "components": {"messages": ASYNCAPI_MESSAGES, "schemas": used_components(ASYNCAPI_MESSAGES, components)},
    }


def _server(base_path: str) -> Schema:
    settings = Settings()
    host = {"default": f"{settings.host}:{settings.port}"}
    path = {"pathname": base_path} if base_path else {}
    return {"host": "{host}", "protocol": "ws", "variables": {"host": host}} | path


def _message(name: str, kind: type[Any]) -> Schema:
    return {"name": name, "summary": kind.__doc__, "payload": schema_ref(kind.__name__)}


def _command(kind: type[Command]) -> Schema:
    examples = [{"payload": orjson.loads(text)} for text in kind.example.split(" or ")]
    return _message(kind.type, kind) | {"examples": examples}


def _channel(address: str, description: str, messages: list[str], query: Schema) -> Schema:
    parameters = {name: schema for name, schema in query.items() if f"{{{name}}}" not in address}
    path_names = re.findall(r"\{(\w+)\}", address)
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "query": {"type": "object", "properties": parameters}}},
    } | ({"parameters": {name: {"description": "The id of the agent."} for name in path_names}} if path_names else {})


@attrs.frozen(kw_only=True)
class Operation:
    """An operation of the document: the hub sends or receives messages on *channel*.

    The messages of an operation have names that start with one of *prefixes*.
    """

    action: Literal["send", "receive"]
    summary: str
    channel: str
    prefixes: tuple[str, ...]

    def to_schema(self) -> Schema:
        messages = [name for name in ASYNCAPI_MESSAGES if name.startswith(self.prefixes)]
        return {
            "action": self.action,
            "summary": self.summary,
            "channel": {"$ref": f"#/channels/{self.channel}"},
            "messages": [{"$ref": f"#/channels/{self.channel}/messages/{name}"} for name in messages],
        }


ASYNCAPI_MESSAGES: dict[str, Schema] = {
    **{f"command.{name}": _command(kind) for name, kind in COMMANDS.items()},
    **{f"plain.{name}": {"name": name, "payload": schema} for name, schema in PLAIN_FRAMES.items()},
    **{f"notice.{name}": _message(name, kind) for name, kind in NOTICES.items()},
    **{f"event.{name}": _message(name, kind) for name, kind in BODIES.items()},
    "envelope": {"name": "envelope", "payload": ENVELOPE_SCHEMA},
}
ASYNCAPI_OPERATIONS: dict[str, Operation] = {
    "command": Operation(action="receive", summary="Commands of clients.", channel="socket", prefixes=("command.",)),
    "agentCommand": Operation(
        action="receive", summary="Commands of clients to one agent.", channel="agentSocket", prefixes=("command.",)
    ),
    "plain": Operation(
        action="send",
        summary="Frames for clients of the plain protocol.",
        channel="socket",
        prefixes=("plain.", *PLAIN_NOTICES),
    ),
    "extended": Operation(
        action="send",
        summary="Events and notices for clients of `hubbub.v1`.",
        channel="socket",
        prefixes=("notice.", "event."),
    ),
    "envelope": Operation(
        action="send", summary="Envelopes for clients of `hubbub.events`.", channel="socket", prefixes=("envelope",)
    ),
    "agentEnvelope": Operation(
        action="send", summary="Envelopes for clients of one agent.", channel="agentSocket", prefixes=("envelope",)
    ),
    "agentExtended": Operation(
        action="send",
        summary="Events and notices for clients of one agent that select `hubbub.v1`.",
        channel="agentSocket",
        prefixes=("notice.", "event."),
    ),
}
