"""Events: what the hub says, numbered and kept in the log."""

from typing import Annotated, Any, ClassVar

import attrs
import msgspec

from hub.messages.parts import JsonParts
from hub.messages.words import Author, Fault, RemovalReason, ReplyStatus, StopReason, Usage


@attrs.define
class Body:
    """What an event says, beside where it stands in the log."""

    type: ClassVar[str]


@attrs.frozen(kw_only=True)
class UserMessage(Body):
    """A message that somebody sent to an agent."""

    type = "user_message"
    messageId: str
    author: Author
    content: str
    clientMsgId: str | None = None
    parts: JsonParts | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class RunStarted(Body):
    """An answer begins; committed before the agent's code is called. Its first message will be *messageId*."""

    type = "run_started"
    messageId: str
    attempt: int = 1


# Not frozen, as one is made for every token: that takes three times as long, 0.4 us against 0.12.
@attrs.define
class Chunk(Body):
    """A piece of a streamed message; *offset* counts the code points of that message before it."""

    type = "stream"
    messageId: str
    content: str
    offset: int


@attrs.frozen
class WholeMessage(Body):
    """A message that came in one piece. In a fork, it has how its answer ended, if that was not by itself."""

    type = "message"
    messageId: str
    content: str
    parts: JsonParts | None = None
    stopReason: StopReason | None = attrs.field(default=None, kw_only=True)
    error: Fault | None = attrs.field(default=None, kw_only=True)


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


@attrs.frozen(kw_only=True)
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
    isError: bool | None = attrs.field(default=None, kw_only=True)
    fileId: str | None = attrs.field(default=None, kw_only=True)
    size: int | None = attrs.field(default=None, kw_only=True)


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


# A Struct, as Append in hub.storage.log: one is made for every token, in a third of the time of an attrs class.
class Event(msgspec.Struct):
    """One entry of a session's log. *seq* is dense from 1 in its session; *ts* is milliseconds since the epoch."""

    agentId: str | None
    runId: str | None
    body: Body
    # The rest is filled in by the log; nobody may see an event before.
    sessionId: str = ""
    epoch: str = ""
    seq: int = 0
    ts: int = 0
