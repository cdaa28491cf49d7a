"""What the hub answers over HTTP, beside events and notices; most of it is read from the log."""

from typing import Any, Literal

import attrs
from msgspec import Struct

from hub.messages.events import Event
from hub.messages.words import Fault, StopReason, Usage


@attrs.frozen
class Hosted:
    """An agent that the hub hosts; a broken one with its error."""

    agentId: str
    description: str
    status: Literal["ok", "broken"]
    error: str | None = None


@attrs.frozen
class Told:
    """Where a broadcast is kept; *seq* is its message's."""

    sessionId: str
    runId: str
    messageId: str
    seq: int


@attrs.frozen(kw_only=True)
class Listed:
    """A session as a list shows it: its messages are counted, and *ts* is the last one's; 0 where there is none."""

    sessionId: str
    epoch: str
    messages: int
    ts: int
    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
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


class EventPage(Struct, frozen=True, kw_only=True):
    """Events of a session in their order; its log stands at *seq*, and *floor* or lower is no longer kept.

    *more* says that others follow the last of them.
    """

    data: list[Event]
    epoch: str
    seq: int
    floor: int
    more: bool


@attrs.frozen(kw_only=True)
class Outcome:
    """What a run said, and how it ended."""

    sessionId: str
    runId: str
    messageId: str
    content: str
    stopReason: StopReason | None = None
    usage: Usage | None = None
    error: Fault | None = None


@attrs.frozen(kw_only=True)
class Kept:
    """A file that is kept, by the id under which it is fetched."""

    fileId: str
    sessionId: str
    name: str
    type: str
    size: int


class Cleared(Struct, frozen=True):
    """How many sessions were deleted."""

    deleted: int
