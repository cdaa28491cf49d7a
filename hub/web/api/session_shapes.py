"""What is asked of sessions over HTTP, and answered: the shapes by which queries and bodies are checked."""

from typing import Annotated, Any, ClassVar, Generic, TypeVar

from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from hub.commands.history import FAR
from hub.errors import BadQuery
from hub.messages import Id, Order, Page, PageRequest
from hub.web.routes import json_fields, limits_of
from hub.web.sse import LastEventId

DEFAULT_PAGE_SIZE = 20
PageLimit = Annotated[
    int, Meta(ge=1, description=f"how many rows at most; {DEFAULT_PAGE_SIZE} by default, or the most if that is less")
]
PageCursor = Annotated[str, Meta(description="`next` of the answer before: what follows there is wanted")]
AfterSeq = Annotated[int, Meta(ge=0, le=FAR, description="a seq: what comes after it is wanted")]
UnixMs = Annotated[int, Meta(ge=0, le=FAR, description="milliseconds since 1970, of the last message")]
T = TypeVar("T")


class SessionListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which sessions are wanted."""

    limit: PageLimit | None = None
    after: PageCursor | None = None
    order: Order = "desc"
    agentId: Annotated[Id, Meta(description="those in which this agent answered")] | None = None
    since: UnixMs = 0
    until: UnixMs = FAR


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which slice of a list is wanted."""

    limit: PageLimit | None = None
    after: PageCursor | None = None
    order: Order = "asc"


class EventsQuery(Struct, frozen=True):
    """From where on events are wanted; a stream may begin at the last event it had."""

    afterSeq: AfterSeq | None = None
    lastEventId: LastEventId | None = None


class ChatQuery(Struct, frozen=True):
    """Whether the answer is waited for."""

    wait: Annotated[bool, Meta(description="true: answer when the run has ended, with what it said")] = False


class NewSessionBody(Struct, frozen=True):
    """The id of a session to make; without it the hub chooses one."""

    example: ClassVar[str] = '{"sessionId":"s1"}'
    sessionId: Id | None = None


class LabelBody(Struct, frozen=True):
    """What to call a session from now on; what is left out stays."""

    example: ClassVar[str] = '{"title":"Plans","metadata":{"colour":"green"}}'
    title: str | None | UnsetType = UNSET
    metadata: dict[str, Any] | None | UnsetType = UNSET


class ClearBody(Struct, frozen=True):
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


def page_request(request: web.Request, want: SessionListQuery | PageQuery) -> PageRequest:
    """Return which slice of a list is wanted; raises BadQuery past `list_size`."""
    most = limits_of(request).list_size
    limit = min(DEFAULT_PAGE_SIZE, most) if want.limit is None else want.limit
    if limit > most:
        raise BadQuery(f"?limit= is wrong: Expected `int` <= {most}")
    return PageRequest(limit, want.after, want.order)


def page_response(some: Page[Any]) -> web.Response:
    """Answer with a slice of a list."""
    place = {"more": False} if some.next_cursor is None else {"more": True, "next": some.next_cursor}
    return web.json_response({"data": [json_fields(row) for row in some.rows], **place})
