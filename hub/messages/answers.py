"""The bodies of HTTP responses that are neither events nor notices."""

from typing import Any, Literal

import attrs
from msgspec import Struct

from hub.messages.events import Event, Interrupt
from hub.messages.parts import ToolCallPart
from hub.messages.words import Fault, StopReason, Usage


@attrs.frozen(kw_only=True)
class HostedAgent:
    """An agent of the hub. *error* says why the agent is broken; it is None if the status is `ok`.

    *tools* is true if the agent takes tools of clients; it is None if the agent takes none.
    """

    agentId: str
    description: str
    status: Literal["ok", "broken"]
    error: str | None = None
    tools: bool | None = None


@attrs.frozen
class BroadcastReceipt:
    """The location of a broadcast in the log; *seq* is the seq of its message."""

    sessionId: str
    runId: str
    messageId: str
    seq: int


@attrs.frozen(kw_only=True)
class SessionSummary:
    """A session in a list. *messages* is the number of its messages; *ts* is the time of the last one, or 0."""

    sessionId: str
    epoch: str
    messages: int
    ts: int
    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class OpenQuestion:
    """A question of a run that waits for a reply: the fields of its event `interrupt`, and its run."""

    id: str
    runId: str
    reason: str
    message: str | None = None
    toolCallId: str | None = None
    responseSchema: dict[str, Any] | None = None
    expiresAt: str | None = None


def make_open_question(run_id: str, interrupt: Interrupt) -> OpenQuestion:
    """Return the question of an event."""
    return OpenQuestion(runId=run_id, **attrs.asdict(interrupt, recurse=False))


@attrs.frozen(kw_only=True)
class SessionState:
    """The state of a session: the head of its log, its active runs, its queue in order, and its open questions.

    Events up to the seq *floor* are no longer stored.
    """

    sessionId: str
    epoch: str
    seq: int
    floor: int
    state: Literal["running", "idle", "queued", "requires_action"]
    active: tuple[dict[str, str], ...]
    queue: tuple[dict[str, str], ...]
    title: str | None = None
    metadata: dict[str, Any] | None = None
    interrupts: tuple[OpenQuestion, ...] | None = None


class EventPage(Struct, frozen=True, kw_only=True):
    """Events of a session in order. *seq* is the head of its log; *more* says whether the log has later events.

    Events up to the seq *floor* are no longer stored.
    """

    data: list[Event]
    epoch: str
    seq: int
    floor: int
    more: bool


@attrs.frozen(kw_only=True)
class RunOutcome:
    """What a run answered: its text, its stop reason, its token counts, and its error if it failed.

    With the stop reason `tool_calls`, *toolCalls* are the calls that the client has to run. *reasoning* is that of the
    model, if there is any. If the run waits for replies, *interrupts* are its open questions, and there is no stop
    reason.
    """

    sessionId: str
    runId: str
    messageId: str
    content: str
    stopReason: StopReason | None = None
    usage: Usage | None = None
    error: Fault | None = None
    toolCalls: tuple[ToolCallPart, ...] | None = None
    reasoning: str | None = None
    interrupts: tuple[OpenQuestion, ...] | None = None


@attrs.frozen(kw_only=True)
class StoredFile:
    """A stored file. `GET /files/{fileId}` returns its bytes. A list of files also has the time of the upload (ms)."""

    fileId: str
    sessionId: str
    name: str
    type: str
    size: int
    ts: int | None = None


class DeletionCount(Struct, frozen=True):
    """The number of deleted sessions."""

    deleted: int
