"""Notices: messages of the hub that are not in the log, such as answers to commands."""

from typing import Any, ClassVar, Literal

import attrs

from hub.messages.words import Author


@attrs.frozen(kw_only=True)
class Notice:
    """A message of the hub that is not an event: the hub sends it once, and does not store it."""

    type: ClassVar[str]


@attrs.frozen(kw_only=True)
class Pong(Notice):
    """The answer to `ping`: `{"type":"pong"}`, and the `ref` of the ping if it has one."""

    type = "pong"
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Error(Notice):
    """A command was refused or failed, or a subscription failed. `code` is stable, `message` is for people.

    With the code `quota_exceeded`, `limit` is the quota, and `used` is what counts for it now; `renewsAt` (ms) is the
    end of the day if the quota is for a day.
    """

    type = "error"
    code: str
    message: str
    sessionId: str | None = None
    agentId: str | None = None
    runId: str | None = None
    clientMsgId: str | None = None
    ref: str | int | None = None
    retryAfterMs: int | None = None
    limit: int | None = None
    used: int | None = None
    renewsAt: int | None = None


@attrs.frozen(kw_only=True)
class Welcome(Notice):
    """The answer to `hello`, and the first frame under the subprotocol `hubbub.v1`."""

    type = "welcome"
    protocol: str
    hub: dict[str, str]
    connectionId: str
    principal: Author
    agents: tuple[dict[str, Any], ...]
    limits: dict[str, int]
    heartbeatMs: int
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Accepted(Notice):
    """A command is stored at `seq` in the log. Its run has started, or waits at `position` (from 1) in the queue."""

    type = "accepted"
    sessionId: str
    messageId: str
    runId: str
    seq: int
    status: Literal["started", "queued", "duplicate"]
    position: int
    clientMsgId: str | None = None
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Subscribed(Notice):
    """The answer to `subscribe`. For a session, it has the head of the log, the members and the active runs.

    While sign-in is on, it also has the role of the principal in the session.
    """

    type = "subscribed"
    sessionId: str | None = None
    agentId: str | None = None
    epoch: str | None = None
    seq: int | None = None
    agents: tuple[str, ...] | None = None
    members: tuple[Author, ...] | None = None
    active: tuple[dict[str, str], ...] | None = None
    history: tuple[dict[str, Any], ...] | None = None
    role: Literal["owner", "member", "viewer"] | None = None
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Ok(Notice):
    """The answer to a command that succeeded and has no result."""

    type = "ok"
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Cancelling(Notice):
    """These runs are being stopped; a `run_finished` follows for each."""

    type = "cancelling"
    sessionId: str
    runIds: tuple[str, ...]
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Presence(Notice):
    """The members of a session, and their number. With more than `presence_members`, only the number is sent."""

    type = "presence"
    sessionId: str
    count: int
    members: tuple[Author, ...] | None = None


@attrs.frozen(kw_only=True)
class TypingNotice(Notice):
    """A member of the session is typing."""

    type = "typing"
    sessionId: str
    author: Author


@attrs.frozen(kw_only=True)
class RoleNotice(Notice):
    """The role of the principal in a session has changed."""

    type = "role"
    sessionId: str
    role: Literal["owner", "member", "viewer"]


@attrs.frozen(kw_only=True)
class State(Notice):
    """The state of a session: its active runs, its queue in order, and its open questions."""

    type = "state"
    sessionId: str
    state: Literal["running", "idle", "queued", "requires_action"]
    active: tuple[dict[str, str], ...]
    queue: tuple[dict[str, str], ...]
    interrupts: tuple[dict[str, str], ...] | None = None


@attrs.frozen(kw_only=True)
class DrainingNotice(Notice):
    """The hub shuts down; it closes the connection with 1012 within `withinMs` milliseconds."""

    type = "draining"
    withinMs: int


@attrs.frozen(kw_only=True)
class Reset(Notice):
    """The cursor is no longer valid: discard the session, show `messages`, and continue with the events that follow."""

    type = "reset"
    sessionId: str
    reason: Literal["epoch_changed", "too_old", "past_head"]
    epoch: str | None = None
    messages: tuple[dict[str, Any], ...]


NOTICES: dict[str, type[Notice]] = {
    kind.type: kind
    for kind in (
        Pong,
        Error,
        Welcome,
        Accepted,
        Subscribed,
        Ok,
        Cancelling,
        Presence,
        TypingNotice,
        RoleNotice,
        State,
        DrainingNotice,
        Reset,
    )
}
