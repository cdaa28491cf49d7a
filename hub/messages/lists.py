"""The pages of a list, and the cursors between them."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

import attrs
import msgspec

from hub.errors import BadQuery

T = TypeVar("T")
Order = Literal["asc", "desc"]


@attrs.frozen
class PageRequest:
    """A request for one page: at most *limit* rows in *order*.

    *after* is the `next_cursor` of the previous page, or None for the first page.
    """

    limit: int
    after: str | None = None
    order: Order = "asc"


@attrs.frozen
class Page(Generic[T]):
    """Consecutive rows of a list, in order; on the last page, *next_cursor* is None."""

    rows: Sequence[T]
    next_cursor: str | None = None


def make_page(rows: Sequence[T], limit: int, position: Callable[[T], tuple[Any, ...]]) -> Page[T]:
    """Return a page of the first *limit* rows. If there are more, *position* gives the position of its last row."""
    return Page(rows[:limit], write_cursor(*position(rows[limit - 1])) if len(rows) > limit else None)


def write_cursor(*position: Any) -> str:
    """Encode a position in a list as a cursor, which is opaque to clients."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def read_cursor(cursor: str, kind: type[T]) -> T:
    """Return the position that write_cursor() encoded, as *kind*; raises BadQuery if the cursor is malformed."""
    try:
        data = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(data, altchars=b"-_", validate=True), type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise BadQuery("?after= is not a cursor of this list: pass the `next` of the previous answer") from None
