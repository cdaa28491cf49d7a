"""JSON Schema of the classes of requests, responses, commands, events and notices."""

from collections.abc import Iterable
from typing import Any, get_args

import attrs
import msgspec

from hub.limits import Limits
from hub.messages import BODIES, NOTICES, Author, Body, Command, Event, Notice, Usage
from hub.protocols.cutting import CONTINUED, STREAMED

Schema = dict[str, Any]
SCHEMA_PREFIX = "#/components/schemas/"
SHARED_KINDS: tuple[type[Any], ...] = (Event, *BODIES.values(), *NOTICES.values(), Author, Usage)


def schema_ref(name: str) -> Schema:
    return {"$ref": SCHEMA_PREFIX + name}


# Fields with a limit: class, field, keyword of JSON Schema, limit.
FIELD_LIMITS = (
    ("Chat", "parts", "maxItems", "message_parts"),
    ("Edit", "parts", "maxItems", "message_parts"),
    ("LabelBody", "title", "maxLength", "title_length"),
    ("SessionListQuery", "limit", "maximum", "list_size"),
    ("PageQuery", "limit", "maximum", "list_size"),
    ("UploadQuery", "name", "maxLength", "file_name_length"),
)


def build_schemas(kinds: Iterable[Any], has_types: bool, limits: Limits) -> tuple[list[Schema], dict[str, Schema]]:
    """Return a reference to each of *kinds*, and all components that these need, with the maxima of *limits*.

    If *has_types*, commands have the field `type`. Over HTTP they do not: the route says which command it is.
    """
    kinds = list(kinds)
    refs, components = msgspec.json.schema_components([*kinds, *SHARED_KINDS], ref_template=SCHEMA_PREFIX + "{name}")
    # Event first: its fields are added to each of its bodies.
    for kind in dict.fromkeys(
        part for kind in (*SHARED_KINDS, *kinds) for part in (kind, *get_args(kind)) if _ours(part)
    ):
        schema = components[kind.__name__]
        _without_null(schema)
        if issubclass(kind, (Body, Notice)) or (has_types and issubclass(kind, Command)):
            _add(schema, {"type": {"const": kind.type}})
        if issubclass(kind, Body):
            _place(schema, kind, components["Event"])
        if kind in CONTINUED:
            schema["properties"]["more"] = {"const": True, "description": "The next frame continues this one."}
    components["Event"] = {
        "title": "Event",
        "description": components["Event"]["description"],
        "oneOf": [schema_ref(kind.__name__) for kind in BODIES.values()],
    }
    del components["Body"]
    _tidy(components)
    for name, field, keyword, limit in FIELD_LIMITS:
        if name in components:
            _non_null_part(components[name]["properties"][field])[keyword] = getattr(limits, limit)
    return list(refs[: len(kinds)]), components


def _non_null_part(schema: Schema) -> Schema:
    """Return the part of a field's schema that is not null."""
    return next((choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}), schema)


def _ours(kind: Any) -> bool:
    return attrs.has(kind) or (isinstance(kind, type) and issubclass(kind, (Command, Event)))


def used_components(document: Any, components: dict[str, Schema]) -> dict[str, Schema]:
    """Return the components that *document* needs, directly or through other components."""
    used: dict[str, Schema] = {}
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix(SCHEMA_PREFIX)
            if name in components and name not in used:
                used[name] = components[name]
                waiting.append(components[name])
            value = list(value.values())
        if isinstance(value, list):
            waiting += value
    return dict(sorted(used.items()))


def _without_null(schema: Schema) -> None:
    """Make fields optional instead of nullable: the hub leaves out a field that is None."""
    for name, field in schema["properties"].items():
        bare = {key: value for key, value in field.items() if key != "default" or value is not None}
        if {"type": "null"} in bare.get("anyOf", ()):
            rest = [choice for choice in bare.pop("anyOf") if choice != {"type": "null"}]
            bare |= rest[0] if len(rest) == 1 else {"anyOf": rest}
        elif bare:
            continue  # a field that is never None
        schema["properties"][name] = bare
        schema["required"] = [field for field in schema["required"] if field != name]


def _add(schema: Schema, fields: Schema) -> None:
    """Add required fields at the front of a schema."""
    schema["properties"] = fields | schema["properties"]
    schema["required"] = [*fields, *schema["required"]]


def _place(schema: Schema, kind: type[Body], event: Schema) -> None:
    """Add the fields that all events have: their location in the log."""
    place = {
        name: {key: fact for key, fact in field.items() if key != "default"}
        for name, field in event["properties"].items()
    }
    del place["body"]
    optional = {"agentId", "runId"}
    if kind in STREAMED or kind in CONTINUED:
        optional.add("seq")  # only the last frame of an event has it; a WholeMessage has none
    schema["properties"] |= place
    schema["required"] += [name for name in place if name not in optional]


def _tidy(value: Any) -> None:
    """Remove what OpenAPI and AsyncAPI do not need.

    In JSON Schema `$` never matches before a newline, so the guard for Python's regular expressions goes. The
    discriminator of a union goes too: OpenAPI and AsyncAPI write it differently, and each class has its const.
    """
    if isinstance(value, dict):
        value.pop("discriminator", None)
        if isinstance(value.get("pattern"), str):
            value["pattern"] = value["pattern"].removesuffix(r"(?!\n)")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _tidy(item)
