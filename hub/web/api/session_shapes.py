"""The classes of the queries, the request bodies and the list pages of the session routes."""

from typing import Annotated, Any, ClassVar, Generic, TypeVar

from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from hub.commands.history import END_OF_TIME
from hub.errors import BadQuery
from hub.messages import Id, Order, Page, PageRequest
from hub.protocols.reading import check_id
from hub.web.routes import json_fields, limits_of
from hub.web.sse import LastEventId

SESSIONS_TAG = "Sessions"
DEFAULT_PAGE_SIZE = 20
PageLimit = Annotated[
    int, Meta(ge=1, description=f"The page size: {DEFAULT_PAGE_SIZE} by default, or the maximum if that is smaller.")
]
PageCursor = Annotated[str, Meta(description="The cursor: `next` of the previous page.")]
AfterSeq = Annotated[int, Meta(ge=0, le=END_OF_TIME, description="A seq: return the events after it.")]
UnixMs = Annotated[
    int, Meta(ge=0, le=END_OF_TIME, description="The time of the last message, in milliseconds since 1970.")
]
T = TypeVar("T")


class SessionListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The filter and the page of a list of sessions."""

    limit: PageLimit | None = None
    after: PageCursor | None = None
    order: Order = "desc"
    agentId: Annotated[Id, Meta(description="Only sessions in which this agent answered.")] | None = None
    since: UnixMs = 0
    until: UnixMs = END_OF_TIME


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The requested page of a list."""

    limit: PageLimit | None = None
    after: PageCursor | None = None
    order: Order = "asc"


class EventsQuery(Struct, frozen=True):
    """The cursor from which to read events. A stream may also resume after the event with the id `lastEventId`."""

    afterSeq: AfterSeq | None = None
    lastEventId: LastEventId | None = None


class ChatQuery(Struct, frozen=True):
    """Whether the request waits for the answer."""

    wait: Annotated[
        bool, Meta(description="true: respond when the run has ended, with its text, or when it asks a question.")
    ] = False


class NewSessionBody(Struct, frozen=True):
    """The id of a new session. By default the hub chooses one."""

    example: ClassVar[str] = '{"sessionId":"s1"}'
    sessionId: Id | None = None


class LabelBody(Struct, frozen=True):
    """The new title and metadata of a session. If a field is missing, its value stays; null removes the value."""

    example: ClassVar[str] = '{"title":"Plans","metadata":{"colour":"green"}}'
    title: str | None | UnsetType = UNSET
    metadata: dict[str, Any] | None | UnsetType = UNSET


class ClearBody(Struct, frozen=True):
    """The sessions to delete. Send exactly one field.

    The field selects the sessions with *sessionIds*, the sessions whose last message is older than *before*
    (milliseconds since 1970), or *all* sessions.
    """

    example: ClassVar[str] = '{"sessionIds":["s1"]} or {"before":1795433910819} or {"all":true}'
    sessionIds: list[Id] | None = None
    before: Annotated[int, Meta(ge=0)] | None = None
    all: bool | None = None


class PageBody(Struct, Generic[T], frozen=True):
    """A page of a list. If *more* is true, send *next* as `after` to get the next page."""

    data: list[T]
    more: bool
    next: str | None = None


def read_session_id(request: web.Request) -> str:
    """Return the session id in the path. Raises BadId."""
    return check_id("the session", request.match_info["id"])


def read_page_request(request: web.Request, query: SessionListQuery | PageQuery) -> PageRequest:
    """Return the PageRequest of a query. Raises BadQuery if the page size is above the limit `list_size`."""
    return PageRequest(read_page_limit(request, query.limit, DEFAULT_PAGE_SIZE), query.after, query.order)


def read_page_limit(request: web.Request, limit: int | None, default: int) -> int:
    """Return the page size of a query. Raises BadQuery if it is above the limit `list_size`."""
    max_limit = limits_of(request).list_size
    if limit is not None and limit > max_limit:
        raise BadQuery(f"?limit= is wrong: Expected `int` <= {max_limit}")
    return min(default, max_limit) if limit is None else limit


def page_response(page: Page[Any]) -> web.Response:
    """Return the response with a page of a list."""
    continuation = {"more": False} if page.next_cursor is None else {"more": True, "next": page.next_cursor}
    return web.json_response({"data": [json_fields(row) for row in page.rows], **continuation})
