"""List the allowed values of a field, for errors about other values."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from msgspec import inspect

type_info = cache(inspect.type_info)


def allowed_values(kind: Any, field: str) -> list[str]:
    """Return the values that *field* of *kind* allows, or [] if they cannot be listed.

    *field* is a path, such as `parts[0].type`.
    """
    types = list(_flatten([type_info(kind)]))
    for name in re.findall(r"\w+|\[", re.sub(r"\[.*?\]", "[", field)):
        types = list(_flatten(child for parent in types for child in _children(parent, name)))
    values = [str(value) for item in types if isinstance(item, inspect.LiteralType) for value in item.values]
    return list(dict.fromkeys(values))


def _flatten(types: Iterable[inspect.Type]) -> Iterator[inspect.Type]:
    """Yield the types; replace each union or annotated type by its members."""
    for item in types:
        if isinstance(item, inspect.UnionType):
            yield from _flatten(item.types)
        elif isinstance(item, inspect.Metadata):
            yield from _flatten([item.type])
        else:
            yield item


def _children(parent: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """Yield the type of the field *name* of an object. If *name* is `[`, yield the type of the items of a list."""
    if isinstance(parent, inspect.StructType):
        yield from (field.type for field in parent.fields if field.encode_name == name)
        if parent.tag_field == name:
            yield inspect.LiteralType((str(parent.tag),))
    elif name == "[" and isinstance(parent, (inspect.ListType, inspect.VarTupleType)):
        yield parent.item_type
