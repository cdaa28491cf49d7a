"""JSON Schema of the classes of requests, responses, commands, events and notices."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, get_args

import attrs
import msgspec

from hub.limits import Limits
from hub.messages import BODIES, NOTICES, Author, Body, Command, Event, Notice, Usage
from hub.protocols.splitting import SPLITTABLE_BODIES, TYPES_WITH_MORE

Schema = dict[str, Any]
SCHEMA_PREFIX = "#/components/schemas/"
SHARED_KINDS: tuple[type[Any], ...] = (Event, *BODIES.values(), *NOTICES.values(), Author, Usage)


def schema_ref(name: str) -> Schema:
    return {"$ref": SCHEMA_PREFIX + name}


class FieldLimit(NamedTuple):
    """A field whose maximum is a limit of the settings. *keyword* is JSON Schema's keyword for the maximum."""

    class_name: str
    field: str
    keyword: str
    limit: str


FIELD_LIMITS = (
    FieldLimit("Chat", "parts", "maxItems", "message_parts"),
    FieldLimit("Edit", "parts", "maxItems", "message_parts"),
    FieldLimit("LabelBody", "title", "maxLength", "title_length"),
    FieldLimit("SessionListQuery", "limit", "maximum", "list_size"),
    FieldLimit("PageQuery", "limit", "maximum", "list_size"),
    FieldLimit("UploadQuery", "name", "maxLength", "file_name_length"),
)


def build_schemas(kinds: Iterable[Any], has_types: bool, limits: Limits) -> tuple[list[Schema], dict[str, Schema]]:
    """Return a reference to each of *kinds*, and the components of *kinds* and of SHARED_KINDS.

    The components contain the maxima of *limits*. With *has_types*, commands have the field `type`. Over HTTP, commands
    have no `type`, because each route is for one command.
    """
    kinds = list(kinds)
    refs, components = msgspec.json.schema_components([*kinds, *SHARED_KINDS], ref_template=SCHEMA_PREFIX + "{name}")
    # Event comes first: _add_location() copies the fields of its finished schema to each body.
    for kind in dict.fromkeys(
        part for kind in (*SHARED_KINDS, *kinds) for part in (kind, *get_args(kind)) if _is_hub_class(part)
    ):
        schema = components[kind.__name__]
        _make_optional(schema)
        if issubclass(kind, (Body, Notice)) or (has_types and issubclass(kind, Command)):
            _add_fields(schema, {"type": {"const": kind.type}})
        if issubclass(kind, Body):
            _add_location(schema, kind, components["Event"])
        if kind in TYPES_WITH_MORE:
            schema["properties"]["more"] = {
                "type": "boolean",
                "description": "true: the next frame continues this one.",
            }
    components["Event"] = {
        "title": "Event",
        "description": components["Event"]["description"],
        "oneOf": [schema_ref(kind.__name__) for kind in BODIES.values()],
    }
    del components["Body"]
    simplify_schema([*refs, components])
    names = {name: _name_component(name) for name in components}
    components = {names[name]: schema | {"title": names[name]} for name, schema in components.items()}
    for name, field, keyword, limit in FIELD_LIMITS:
        if name in components:
            _non_null_part(components[name]["properties"][field])[keyword] = getattr(limits, limit)
    return list(refs[: len(kinds)]), components


def _non_null_part(schema: Schema) -> Schema:
    """Return the part of a field's schema that is not null."""
    return next((choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}), schema)


def _is_hub_class(kind: Any) -> bool:
    return attrs.has(kind) or (isinstance(kind, type) and issubclass(kind, (Command, Event)))


def used_components(document: Any, components: dict[str, Schema]) -> dict[str, Schema]:
    """Return the components that *document* needs, directly or through other components."""
    reachable: dict[str, Schema] = {}
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix(SCHEMA_PREFIX)
            if name in components and name not in reachable:
                reachable[name] = components[name]
                pending.append(components[name])
            value = list(value.values())
        if isinstance(value, list):
            pending += value
    return dict(sorted(reachable.items()))


def _make_optional(schema: Schema) -> None:
    """Make nullable fields optional, and not nullable: the hub omits a field that is None."""
    for name, field in schema["properties"].items():
        non_null = {key: value for key, value in field.items() if key != "default" or value is not None}
        if {"type": "null"} in non_null.get("anyOf", ()):
            choices = [choice for choice in non_null.pop("anyOf") if choice != {"type": "null"}]
            non_null |= choices[0] if len(choices) == 1 else {"anyOf": choices}
        elif non_null:
            continue  # the field is never None
        schema["properties"][name] = non_null
        schema["required"] = [field for field in schema["required"] if field != name]


def _add_fields(schema: Schema, fields: Schema) -> None:
    """Add required fields at the front of a schema."""
    schema["properties"] = fields | schema["properties"]
    schema["required"] = [*fields, *schema["required"]]


def _add_location(schema: Schema, kind: type[Body], event: Schema) -> None:
    """Add the fields of the location in the log, which all events have."""
    location = {
        name: {key: value for key, value in field.items() if key != "default"}
        for name, field in event["properties"].items()
    }
    del location["body"]
    optional = {"agentId", "runId"}
    if kind in SPLITTABLE_BODIES or kind in TYPES_WITH_MORE:
        optional.add("seq")  # only the last frame of an event has a seq; a WholeMessage in place of chunks has none
    schema["properties"] |= location
    schema["required"] += [name for name in location if name not in optional]


def _name_component(name: str) -> str:
    """Return the name of a schema: `HistoryMessagePage` instead of `PageBody_HistoryMessage_`."""
    return re.sub(r"\bPageBody_(\w+)_$", r"\1Page", name)


def simplify_schema(value: Any) -> None:
    """Replace what generators of clients do not understand, in place and at every depth. Rename references to pages."""
    if isinstance(value, dict):
        _simplify_object(value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            simplify_schema(item)


def _simplify_object(schema: Schema) -> None:
    # OpenAPI and AsyncAPI write a discriminator differently, and need none: each class has a const.
    schema.pop("discriminator", None)
    if isinstance(schema.get("pattern"), str):
        # In JSON Schema, `$` never matches before a newline, so a pattern needs no guard.
        schema["pattern"] = schema["pattern"].removesuffix(r"(?!\n)")
    if isinstance(schema.get("$ref"), str):
        schema["$ref"] = _name_component(schema["$ref"])
    if schema.get("default", 0) is None:
        del schema["default"]
    match schema.get("enum"):
        case [bool()]:  # openapi-python-client makes invalid code of an enum or a const of booleans
            schema["type"] = "boolean"
            del schema["enum"]
        case [value]:
            schema["const"] = value
            del schema["enum"]
    if schema.get("type") == "integer":
        schema["format"] = "int64"  # without a format, some generators take 32 bits: too few for a time in ms
