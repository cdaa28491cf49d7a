"""What is asked of sessions over HTTP, and answered: the shapes by which queries and bodies are checked."""

from typing import Annotated, Any, ClassVar, Generic, TypeVar

from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from hub.commands.history import FAR
from hub.errors import BadQuery
from hub.messages import Id, Order, Page, PageRequest
from hub.web.routes import fields_of, limits_of
from hub.web.sse import LastEvent

SIZE = 20
Limit = Annotated[int, Meta(ge=1, description=f"how many rows at most; {SIZE} by default, or the most if that is less")]
After = Annotated[str, Meta(description="`next` of the answer before: what follows there is wanted")]
Place = Annotated[int, Meta(ge=0, le=FAR, description="a seq: what comes after it is wanted")]
Time = Annotated[int, Meta(ge=0, le=FAR, description="milliseconds since 1970, of the last message")]
T = TypeVar("T")


class Listing(Struct, frozen=True, forbid_unknown_fields=True):
    """Which sessions are wanted."""

    limit: Limit | None = None
    after: After | None = None
    order: Order = "desc"
    agentId: Annotated[Id, Meta(description="those in which this agent answered")] | None = None
    since: Time = 0
    until: Time = FAR


class Paging(Struct, frozen=True, forbid_unknown_fields=True):
    """Which slice of a list is wanted."""

    limit: Limit | None = None
    after: After | None = None
    order: Order = "asc"


class Cursor(Struct, frozen=True):
    """From where on events are wanted; a stream may begin at the last event it had."""

    afterSeq: Place | None = None
    lastEventId: LastEvent | None = None


class Waiting(Struct, frozen=True):
    """Whether the answer is waited for."""

    wait: Annotated[bool, Meta(description="true: answer when the run has ended, with what it said")] = False


class NewSession(Struct, frozen=True):
    """The id of a session to make; without it the hub chooses one."""

    example: ClassVar[str] = '{"sessionId":"s1"}'
    sessionId: Id | None = None


class Label(Struct, frozen=True):
    """What to call a session from now on; what is left out stays."""

    example: ClassVar[str] = '{"title":"Plans","metadata":{"colour":"green"}}'
    title: str | None | UnsetType = UNSET
    metadata: dict[str, Any] | None | UnsetType = UNSET


class Clearing(Struct, frozen=True):
    """Which sessions to delete, in one of three ways."""

    example: ClassVar[str] = '{"sessionIds":["s1"]} or {"before":1795433910819} or {"all":true}'
    sessionIds: list[Id] | None = None
    before: Annotated[int, Meta(ge=0)] | None = None
    all: bool | None = None


class PageBody(Struct, Generic[T], frozen=True):
    """A slice of a list; where there is *more*, *next* is the `after` with which it goes on."""

    data: list[T]
    more: bool
    next: str | None = None


def span_of(request: web.Request, want: Listing | Paging) -> PageRequest:
    """Return which slice of a list is wanted; raises BadQuery past `list_size`."""
    most = limits_of(request).list_size
    limit = min(SIZE, most) if want.limit is None else want.limit
    if limit > most:
        raise BadQuery(f"?limit= is wrong: Expected `int` <= {most}")
    return PageRequest(limit, want.after, want.order)


def listing(some: Page[Any]) -> web.Response:
    """Answer with a slice of a list."""
    place = {"more": False} if some.next_cursor is None else {"more": True, "next": some.next_cursor}
    return web.json_response({"data": [fields_of(row) for row in some.rows], **place})
