"""What clients send (commands) and what the hub says (events and answers), by the names of the wire.

Field names are camelCase because they are the wire's. A field that is None is left out of the frame.
"""

from typing import Annotated, Any, ClassVar, Literal

import attrs
import msgspec

from hub.parts import Parts, Plain, check_metadata

ID_PATTERN = r"[A-Za-z0-9._:@-]{1,128}"
# `$` alone would let a trailing newline through.
Id = Annotated[str, msgspec.Meta(pattern=rf"^{ID_PATTERN}$(?!\n)")]
IfBusy = Literal["enqueue", "reject", "replace", "rollback", "parallel"]
RemovalReason = Literal["restarted", "rollback", "edited"]
ReplyStatus = Literal["resolved", "cancelled"]
StopReason = Literal["end_turn", "max_tokens", "cancelled", "error", "timeout", "aborted"]

# --- commands -------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Command:
    """The part that all commands share: `ref` comes back in the answer or the error."""

    type: ClassVar[str]
    example: ClassVar[str]
    ref: str | int | None = None


@attrs.frozen(kw_only=True)
class Hello(Command):
    """Opt into the extended protocol; only as the first frame."""

    type = "hello"
    example = '{"type":"hello","client":"my-app/1.0"}'
    client: str | None = None


@attrs.frozen(kw_only=True)
class Chat(Command):
    """Send a message to an agent."""

    type = "chat"
    example = '{"type":"chat","agentId":"main","sessionId":"s1","message":"hello"}'
    message: str
    agentId: Id | None = None
    sessionId: Id | None = None
    stream: bool | None = None
    clientMsgId: Id | None = None
    ifBusy: IfBusy | None = None
    parts: Parts | None = None
    metadata: dict[str, Any] | None = attrs.field(default=None, validator=check_metadata)


@attrs.frozen(kw_only=True)
class Subscribe(Command):
    """Hear a session from a cursor on, or all runs of an agent."""

    type = "subscribe"
    example = '{"type":"subscribe","sessionId":"s1"} or {"type":"subscribe","agentId":"main"}'
    sessionId: Id | None = None
    agentId: Id | None = None
    afterSeq: Annotated[int, msgspec.Meta(ge=0)] | None = None
    epoch: Id | None = None
    history: Annotated[int, msgspec.Meta(ge=0)] | None = None


@attrs.frozen(kw_only=True)
class Unsubscribe(Command):
    """Stop hearing a session, or an agent's runs."""

    type = "unsubscribe"
    example = '{"type":"unsubscribe","sessionId":"s1"} or {"type":"unsubscribe","agentId":"main"}'
    sessionId: Id | None = None
    agentId: Id | None = None


@attrs.frozen(kw_only=True)
class Cancel(Command):
    """Stop one run, or all of a session: the queued first (unless `queued` is false), then the running."""

    type = "cancel"
    example = '{"type":"cancel","sessionId":"s1"}'
    sessionId: Id
    runId: Id | None = None
    queued: bool = True


@attrs.frozen(kw_only=True)
class Resume(Command):
    """Answer a question that a run asked (its `interrupt`); *payload* is any JSON."""

    type = "resume"
    example = '{"type":"resume","sessionId":"s1","interruptId":"i_1","status":"resolved","payload":true}'
    sessionId: Id
    interruptId: Id
    status: ReplyStatus
    payload: Any = None


@attrs.frozen(kw_only=True)
class Regenerate(Command):
    """Have a message answered anew: what came after it is taken back. Names the answer, or the message itself."""

    type = "regenerate"
    example = '{"type":"regenerate","sessionId":"s1","messageId":"m_2"}'
    sessionId: Id
    messageId: Id
    clientMsgId: Id | None = None
    agentId: Id | None = None


@attrs.frozen(kw_only=True)
class Edit(Command):
    """Say another message in a message's place: it, and what came after it, is taken back."""

    type = "edit"
    example = '{"type":"edit","sessionId":"s1","messageId":"m_1","message":"hello"}'
    sessionId: Id
    messageId: Id
    message: str
    clientMsgId: Id | None = None
    agentId: Id | None = None
    parts: Parts | None = None
    metadata: dict[str, Any] | None = attrs.field(default=None, validator=check_metadata)


@attrs.frozen(kw_only=True)
class Fork(Command):
    """Begin a session with another one's history, up to a message."""

    type = "fork"
    example = '{"type":"fork","sessionId":"s1","messageId":"m_2"}'
    sessionId: Id
    messageId: Id
    newSessionId: Id | None = None


@attrs.frozen(kw_only=True)
class Typing(Command):
    """Tell the others in a session that someone is writing; never logged, never answered."""

    type = "typing"
    example = '{"type":"typing","sessionId":"s1"}'
    sessionId: Id


@attrs.frozen(kw_only=True)
class Ping(Command):
    """Ask for a `pong`."""

    type = "ping"
    example = '{"type":"ping"}'


COMMANDS: dict[str, type[Command]] = {
    kind.type: kind
    for kind in (Hello, Chat, Subscribe, Unsubscribe, Cancel, Resume, Regenerate, Edit, Fork, Typing, Ping)
}

# --- events: numbered, kept in the log ------------------------------------------------------------------------------


@attrs.frozen
class Author:
    """Who wrote a message: the principal's id, and the name that people see."""

    id: str
    name: str


@attrs.frozen
class Usage:
    """Tokens that a model counted for one answer."""

    inputTokens: int
    outputTokens: int


# Chunk, Event, and in hub.logs Entry and Append are made for every token. Frozen classes take three times as long to
# make, 0.4 us against 0.12. Nobody changes these either.
@attrs.define
class Body:
    """What an event says, beside where it stands in the log."""

    type: ClassVar[str]


@attrs.frozen
class UserMessage(Body):
    """A message that somebody sent to an agent."""

    type = "user_message"
    messageId: str
    author: Author
    content: str
    clientMsgId: str | None = None
    parts: Plain | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class RunStarted(Body):
    """An answer begins; committed before the agent's code is called. Its first message will be *messageId*."""

    type = "run_started"
    messageId: str
    attempt: int = 1


@attrs.define
class Chunk(Body):
    """A piece of a streamed message; *offset* counts the code points of that message before it."""

    type = "stream"
    messageId: str
    content: str
    offset: int


@attrs.frozen
class WholeMessage(Body):
    """A message that came in one piece."""

    type = "message"
    messageId: str
    content: str
    parts: Plain | None = None


@attrs.frozen
class RunError(Body):
    """Why a run failed; committed with its end, just before it."""

    type = "run_error"
    code: str
    message: str
    retryable: bool = False
    retryAfterMs: int | None = None


@attrs.frozen
class RunFinished(Body):
    """The one end of a run; *messageId* is its last message."""

    type = "run_finished"
    messageId: str
    stopReason: StopReason
    usage: Usage | None = None


@attrs.frozen
class MessageRemoved(Body):
    """Messages that no longer count: clients take them off the screen."""

    type = "message_removed"
    messageIds: tuple[str, ...]
    reason: RemovalReason


@attrs.frozen
class Interrupt(Body):
    """A run asks people, and waits for the answer; by AG-UI's fields. *responseSchema* says what would be one."""

    type = "interrupt"
    id: str
    reason: str
    message: str | None = None
    toolCallId: str | None = None
    responseSchema: dict[str, Any] | None = None
    expiresAt: str | None = None


@attrs.frozen
class InterruptResolved(Body):
    """A question is closed: by an answer, or (*resolvedBy* is None) because nobody waits for one any more."""

    type = "interrupt_resolved"
    interruptId: str
    status: ReplyStatus
    resolvedBy: Author | None = None
    payload: Any = None


# What agents yield beside text, by AG-UI's names; kept as it is and said in the extended protocol.


@attrs.frozen
class Reasoning(Body):
    """A piece of what the model thinks. Agents leave *messageId* out: pieces in a row belong together."""

    type = "reasoning"
    delta: str
    messageId: str = ""


@attrs.frozen
class ToolCallStart(Body):
    """A tool is called; its arguments follow in pieces."""

    type = "tool_call_start"
    toolCallId: str
    toolCallName: str


@attrs.frozen
class ToolCallArgs(Body):
    """A piece of a call's arguments, as JSON text."""

    type = "tool_call_args"
    toolCallId: str
    delta: str


@attrs.frozen
class ToolCallEnd(Body):
    """A call's arguments are whole."""

    type = "tool_call_end"
    toolCallId: str


@attrs.frozen
class ToolCallResult(Body):
    """What a tool gave; where that is large, its start, and the file that holds all *size* bytes of it."""

    type = "tool_call_result"
    toolCallId: str
    content: str
    isError: bool | None = None
    fileId: str | None = None
    size: int | None = None


@attrs.frozen
class Progress(Body):
    """How far an answer is, from 0 to 1."""

    type = "progress"
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)]
    message: str | None = None


@attrs.frozen
class StepStarted(Body):
    """A step of the work begins."""

    type = "step_started"
    stepName: str


@attrs.frozen
class StepFinished(Body):
    """A step of the work is done."""

    type = "step_finished"
    stepName: str


@attrs.frozen
class Custom(Body):
    """Something of the agent's own, for clients that know its name; *value* is any JSON."""

    type = "custom"
    name: str
    value: Any = None


@attrs.frozen
class StateSnapshot(Body):
    """All of the state that agent and client share, as JSON."""

    type = "state_snapshot"
    snapshot: Any


@attrs.frozen
class StateDelta(Body):
    """Changes to the shared state, as JSON Patch (RFC 6902)."""

    type = "state_delta"
    delta: list[dict[str, Any]]


CONTENT: dict[str, type[Body]] = {
    kind.type: kind
    for kind in (
        Reasoning,
        ToolCallStart,
        ToolCallArgs,
        ToolCallEnd,
        ToolCallResult,
        Progress,
        StepStarted,
        StepFinished,
        Custom,
        StateSnapshot,
        StateDelta,
    )
}

BODIES: dict[str, type[Body]] = CONTENT | {
    kind.type: kind
    for kind in (
        UserMessage,
        RunStarted,
        Chunk,
        WholeMessage,
        RunError,
        RunFinished,
        MessageRemoved,
        Interrupt,
        InterruptResolved,
    )
}


@attrs.define
class Event:
    """One entry of a session's log. *seq* is dense from 1 in its session; *ts* is milliseconds since the epoch."""

    sessionId: str
    epoch: str
    seq: int
    ts: int
    agentId: str | None
    runId: str | None
    body: Body


# --- answers and notices: not numbered, not kept --------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Notice:
    """What the hub says beside the log."""

    type: ClassVar[str]


@attrs.frozen(kw_only=True)
class Pong(Notice):
    """The answer to `ping`, exactly `{"type":"pong"}`."""

    type = "pong"


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
    epoch: str
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
