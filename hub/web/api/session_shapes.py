"""What is asked of sessions over HTTP, and answered: the shapes by which queries and bodies are checked."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from hub.commands.history import FAR
from hub.errors import BadQuery
from hub.messages import Id
from hub.web.routes import fields_of, limits_of
from hub.web.sse import LastEvent

Pages = Annotated[int, Meta(ge=1, le=10**9, description="which page, from 1")]
SIZE = 20
Size = Annotated[int, Meta(ge=1, description=f"how many are on a page; {SIZE} by default, or the most if that is less")]
Place = Annotated[int, Meta(ge=0, le=FAR, description="a seq: what comes after it is wanted")]
Time = Annotated[int, Meta(ge=0, le=FAR, description="milliseconds since 1970, of the last message")]
T = TypeVar("T")


class Listing(Struct, frozen=True):
    """Which sessions are wanted."""

    page: Pages = 1
    size: Size | None = None
    agentId: Annotated[Id, Meta(description="those in which this agent answered")] | None = None
    since: Time = 0
    until: Time = FAR


class Paging(Struct, frozen=True):
    """Which page is wanted."""

    page: Pages = 1
    size: Size | None = None


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


class Page(Struct, Generic[T], frozen=True):
    """One page of a list."""

    data: list[T]
    total: int
    page: int
    size: int


def page_of(request: web.Request, page: int, size: int | None) -> tuple[int, int]:
    """Return how many rows of a list to skip, and how many to take; raises BadQuery past `list_size`."""
    most = limits_of(request).list_size
    if size is None:
        size = min(SIZE, most)
    if size > most:
        raise BadQuery(f"?size= is wrong: Expected `int` <= {most}")
    return (page - 1) * size, size


def listing(rows: Sequence[Any], total: int, page: int, size: int) -> web.Response:
    """Answer with one page of a list."""
    return web.json_response({"data": [fields_of(row) for row in rows], "total": total, "page": page, "size": size})
