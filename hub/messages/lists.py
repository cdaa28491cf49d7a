"""Lists, which are asked for and answered slice by slice."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import attrs
import msgspec

from hub.errors import BadQuery

T = TypeVar("T")
Place = TypeVar("Place")
Order = Literal["asc", "desc"]


@attrs.frozen
class Span:
    """Which slice of a list is wanted: *limit* rows in *order*, after the place that another slice gave as *next*."""

    limit: int
    after: str | None = None
    order: Order = "asc"


@attrs.frozen
class Slice(Generic[T]):
    """Some rows of a list in order; *next* is the place after which the others follow, None where there are none."""

    rows: Sequence[T]
    next: str | None = None


def write_place(*place: Any) -> str:
    """Return a place in a list as clients hand it back: opaque to them."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_place(text: str, kind: type[Place]) -> Place:
    """Return a place of the *kind* that write_place() was given; raises BadQuery for what no list gave."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise BadQuery("?after= is no place in this list: pass the `next` of the previous answer") from None
