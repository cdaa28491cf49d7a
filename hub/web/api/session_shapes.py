"""What is asked of sessions over HTTP, and answered: the shapes by which queries and bodies are checked."""

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import attrs
from msgspec import UNSET, Meta, Struct, UnsetType

from hub.messages import Event, Id, StopReason, Usage
from hub.web.sse import LastEvent

MOST = 100  # sessions or messages on one page
FAR = 10**15 - 1
Pages = Annotated[int, Meta(ge=1, le=10**9, description="which page, from 1")]
Size = Annotated[int, Meta(ge=1, le=MOST, description="how many are on a page")]
Place = Annotated[int, Meta(ge=0, le=FAR, description="a seq: what comes after it is wanted")]
Time = Annotated[int, Meta(ge=0, le=FAR, description="milliseconds since 1970, of the last message")]
T = TypeVar("T")


class Listing(Struct, frozen=True):
    """Which sessions are wanted."""

    page: Pages = 1
    size: Size = 20
    agentId: Annotated[Id, Meta(description="those in which this agent answered")] | None = None
    since: Time = 0
    until: Time = FAR


class Paging(Struct, frozen=True):
    """Which page is wanted."""

    page: Pages = 1
    size: Size = 20


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
    title: Annotated[str, Meta(max_length=200)] | None | UnsetType = UNSET
    metadata: dict[str, Any] | None | UnsetType = UNSET


class Clearing(Struct, frozen=True):
    """Which sessions to delete, in one of three ways."""

    example: ClassVar[str] = '{"sessionIds":["s1"]} or {"before":1795433910819} or {"all":true}'
    sessionIds: list[Id] | None = None
    before: Annotated[int, Meta(ge=0)] | None = None
    all: bool | None = None


class Cleared(Struct, frozen=True):
    """How many sessions were deleted."""

    deleted: int


class Page(Struct, Generic[T], frozen=True):
    """One page of a list."""

    data: list[T]
    total: int
    page: int
    size: int


@attrs.frozen
class SessionState:
    """Where a session stands, what is being answered, which runs wait, in order, and which questions are open."""

    sessionId: str
    epoch: str
    seq: int
    floor: int
    state: Literal["running", "idle", "queued", "requires_action"]
    active: tuple[dict[str, str], ...]
    queue: tuple[dict[str, str], ...]
    title: str | None = None
    metadata: dict[str, Any] | None = None
    interrupts: tuple[dict[str, str], ...] | None = None


class EventPage(Struct, frozen=True):
    """Events of a session in their order; its log stands at *seq*, and *floor* or lower is no longer kept."""

    data: list[Event]
    epoch: str
    seq: int
    floor: int


@attrs.frozen
class Fault:
    """Why a run failed."""

    code: str
    message: str


@attrs.frozen
class Outcome:
    """What a run said, and how it ended."""

    sessionId: str
    runId: str
    messageId: str
    content: str
    stopReason: StopReason | None = None
    usage: Usage | None = None
    error: Fault | None = None
