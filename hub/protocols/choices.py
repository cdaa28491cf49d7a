"""List the values that a field of a class may have, for the error about another value."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from msgspec import inspect

type_info = cache(inspect.type_info)


def allowed_values(kind: Any, field: str) -> list[str]:
    """Return the values that the type of *field* allows, or [] if any value; *field* is a path, as `parts[0].type`."""
    types = list(_each([type_info(kind)]))
    for name in re.findall(r"\w+|\[", re.sub(r"\[.*?\]", "[", field)):
        types = list(_each(below for one in types for below in _below(one, name)))
    values = [str(value) for one in types if isinstance(one, inspect.LiteralType) for value in one.values]
    return list(dict.fromkeys(values))


def _each(types: Iterable[inspect.Type]) -> Iterator[inspect.Type]:
    """Yield the types, with each union and each annotated type replaced by its members."""
    for one in types:
        if isinstance(one, inspect.UnionType):
            yield from _each(one.types)
        elif isinstance(one, inspect.Metadata):
            yield from _each([one.type])
        else:
            yield one


def _below(one: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """Yield the type of the field *name*, or of an item if *name* is `[`."""
    if isinstance(one, inspect.StructType):
        yield from (field.type for field in one.fields if field.encode_name == name)
        if one.tag_field == name:
            yield inspect.LiteralType((str(one.tag),))
    elif name == "[" and isinstance(one, (inspect.ListType, inspect.VarTupleType)):
        yield one.item_type
