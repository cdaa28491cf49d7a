"""Notices: answers, and what the hub says beside the log; not numbered, not kept."""

from typing import Any, ClassVar, Literal

import attrs

from hub.messages.words import Author


@attrs.frozen(kw_only=True)
class Notice:
    """What the hub says beside the log."""

    type: ClassVar[str]


@attrs.frozen(kw_only=True)
class Pong(Notice):
    """The answer to `ping`: exactly `{"type":"pong"}`, and its `ref` where the ping had one."""

    type = "pong"
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Error(Notice):
    """Something was refused or failed; *code* is stable, *message* is for people."""

    type = "error"
    code: str
    message: str
    sessionId: str | None = None
    agentId: str | None = None
    runId: str | None = None
    clientMsgId: str | None = None
    ref: str | int | None = None
    retryAfterMs: int | None = None


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
    """A chat is kept: its message is in the log at *seq*, and its run has started or waits at *position* (from 1)."""

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
    """The answer to `subscribe`: where the session stands, who is there, what is being answered."""

    type = "subscribed"
    sessionId: str | None = None
    agentId: str | None = None
    epoch: str | None = None
    seq: int | None = None
    agents: tuple[str, ...] | None = None
    members: tuple[Author, ...] | None = None
    active: tuple[dict[str, str], ...] | None = None
    history: tuple[dict[str, Any], ...] | None = None
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Ok(Notice):
    """The answer where there is nothing to tell."""

    type = "ok"
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Cancelling(Notice):
    """These runs are being stopped; each one's end follows when it has."""

    type = "cancelling"
    sessionId: str
    runIds: tuple[str, ...]
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Presence(Notice):
    """Who is in a session; past 50 members only their number."""

    type = "presence"
    sessionId: str
    count: int
    members: tuple[Author, ...] | None = None


@attrs.frozen(kw_only=True)
class TypingNotice(Notice):
    """Somebody is writing."""

    type = "typing"
    sessionId: str
    author: Author


@attrs.frozen(kw_only=True)
class State(Notice):
    """What a session is doing, which runs wait, in order, and which questions are open; None is none."""

    type = "state"
    sessionId: str
    state: Literal["running", "idle", "queued", "requires_action"]
    active: tuple[dict[str, str], ...]
    queue: tuple[dict[str, str], ...]
    interrupts: tuple[dict[str, str], ...] | None = None


@attrs.frozen(kw_only=True)
class DrainingNotice(Notice):
    """The hub is going down; the socket closes with 1012 within *withinMs*."""

    type = "draining"
    withinMs: int


@attrs.frozen(kw_only=True)
class Reset(Notice):
    """The cursor means nothing here any more: forget the session, take *messages*, and go on from what follows."""

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
        State,
        DrainingNotice,
        Reset,
    )
}
