"""JSON Schema of the classes that check what comes in, and shape what goes out."""

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


# What the hub's limits say of a field: the class and the field, the keyword of JSON Schema, and the limit.
FIELD_LIMITS = (
    ("Chat", "parts", "maxItems", "message_parts"),
    ("Edit", "parts", "maxItems", "message_parts"),
    ("LabelBody", "title", "maxLength", "title_length"),
    ("SessionListQuery", "limit", "maximum", "list_size"),
    ("PageQuery", "limit", "maximum", "list_size"),
    ("UploadQuery", "name", "maxLength", "file_name_length"),
)


def build_schemas(kinds: Iterable[Any], typed: bool, limits: Limits) -> tuple[list[Schema], dict[str, Schema]]:
    """Return what refers to each of *kinds*, and all components that these refer to, with the maxima of *limits*.

    Commands are *typed* where their frame names them; over HTTP their route does.
    """
    kinds = list(kinds)
    refs, components = msgspec.json.schema_components([*kinds, *SHARED_KINDS], ref_template=SCHEMA_PREFIX + "{name}")
    # Event first: what it has is put into each of its bodies.
    for kind in dict.fromkeys(part for one in (*SHARED_KINDS, *kinds) for part in (one, *get_args(one)) if _ours(part)):
        schema = components[kind.__name__]
        _without_null(schema)
        if issubclass(kind, (Body, Notice)) or (typed and issubclass(kind, Command)):
            _add(schema, {"type": {"const": kind.type}})
        if issubclass(kind, Body):
            _place(schema, kind, components["Event"])
        if kind in CONTINUED:
            schema["properties"]["more"] = {"const": True, "description": "the next frame continues this one"}
    components["Event"] = {
        "title": "Event",
        "description": components["Event"]["description"],
        "oneOf": [schema_ref(kind.__name__) for kind in BODIES.values()],
    }
    del components["Body"]
    _tidy(components)
    for name, field, keyword, limit in FIELD_LIMITS:
        if name in components:
            _bounded(components[name]["properties"][field])[keyword] = getattr(limits, limit)
    return list(refs[: len(kinds)]), components


def _bounded(schema: Schema) -> Schema:
    """Return the part of a field's schema that is no null."""
    return next((choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}), schema)


def _ours(kind: Any) -> bool:
    return attrs.has(kind) or (isinstance(kind, type) and issubclass(kind, (Command, Event)))


def used_components(document: Any, components: dict[str, Schema]) -> dict[str, Schema]:
    """Return the components that *document* refers to, also through each other."""
    found: dict[str, Schema] = {}
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix(SCHEMA_PREFIX)
            if name in components and name not in found:
                found[name] = components[name]
                waiting.append(components[name])
            value = list(value.values())
        if isinstance(value, list):
            waiting += value
    return dict(sorted(found.items()))


def _without_null(schema: Schema) -> None:
    """Say of a class of the hub's own that what is None is left out."""
    for name, field in schema["properties"].items():
        bare = {key: value for key, value in field.items() if key != "default" or value is not None}
        if {"type": "null"} in bare.get("anyOf", ()):
            rest = [one for one in bare.pop("anyOf") if one != {"type": "null"}]
            bare |= rest[0] if len(rest) == 1 else {"anyOf": rest}
        elif bare:
            continue  # neither null nor anything at all
        schema["properties"][name] = bare
        schema["required"] = [one for one in schema["required"] if one != name]


def _add(schema: Schema, fields: Schema) -> None:
    """Put required fields before those of a schema."""
    schema["properties"] = fields | schema["properties"]
    schema["required"] = [*fields, *schema["required"]]


def _place(schema: Schema, kind: type[Body], event: Schema) -> None:
    """Give an event what all have: where it stands in the log."""
    place = {
        name: {key: fact for key, fact in field.items() if key != "default"}
        for name, field in event["properties"].items()
    }
    del place["body"]
    optional = {"agentId", "runId"}
    if kind in STREAMED or kind in CONTINUED:
        optional.add("seq")  # if an event has several frames, only the last has it; a whole message has none
    schema["properties"] |= place
    schema["required"] += [name for name in place if name not in optional]


def _tidy(value: Any) -> None:
    """Leave out what only Python's regular expressions need: elsewhere `$` lets no newline through.

    And what OpenAPI and AsyncAPI write differently: a union's kinds are told apart by the const in each, too.
    """
    if isinstance(value, dict):
        value.pop("discriminator", None)
        if isinstance(value.get("pattern"), str):
            value["pattern"] = value["pattern"].removesuffix(r"(?!\n)")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _tidy(item)
