"""Events: the messages of the hub that the log numbers and stores."""

from typing import Annotated, Any, ClassVar

import attrs
import msgspec

from hub.messages.parts import JsonParts
from hub.messages.words import Author, Fault, RemovalReason, ReplyStatus, StopReason, Usage


@attrs.define
class Body:
    """The content of an event, without its location in the log."""

    type: ClassVar[str]


@attrs.frozen(kw_only=True)
class UserMessage(Body):
    """A message of a user to an agent."""

    type = "user_message"
    messageId: str
    author: Author
    content: str
    clientMsgId: str | None = None
    parts: JsonParts | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class RunStarted(Body):
    """A run begins. The agent's code is called after this commit. `messageId` is the id of the run's first message.

    A run that answers the results of tool calls has the id of the run with the calls as `parentRunId`.
    """

    type = "run_started"
    messageId: str
    attempt: int = 1
    parentRunId: str | None = None


# Not frozen: a Chunk is created for every token, and to create a frozen object takes 0.4 us instead of 0.12 us.
@attrs.define
class Chunk(Body):
    """A piece of a streamed message; `offset` is the number of the message's code points before this piece."""

    type = "stream"
    messageId: str
    content: str
    offset: int


@attrs.frozen
class WholeMessage(Body):
    """A message in one piece.

    Only copies in a fork have *stopReason* and *error*: the copy of the last message of a run that did not end with
    `end_turn`.
    """

    type = "message"
    messageId: str
    content: str
    parts: JsonParts | None = None
    stopReason: StopReason | None = attrs.field(default=None, kw_only=True)
    error: Fault | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class RunError(Body):
    """The error of a failed run. It is in the same commit as the `run_finished` that follows it."""

    type = "run_error"
    code: str
    message: str
    retryable: bool = False
    retryAfterMs: int | None = None


@attrs.frozen
class RunFinished(Body):
    """The end of a run; each run has exactly one. `messageId` is the id of the run's last message."""

    type = "run_finished"
    messageId: str
    stopReason: StopReason
    usage: Usage | None = None


@attrs.frozen
class MessageRemoved(Body):
    """The hub has removed these messages: clients delete them from the screen."""

    type = "message_removed"
    messageIds: tuple[str, ...]
    reason: RemovalReason


@attrs.frozen(kw_only=True)
class Interrupt(Body):
    """A question of a run. The run waits for an answer. `responseSchema` is the JSON schema of a valid answer."""

    type = "interrupt"
    id: str
    reason: str
    message: str | None = None
    toolCallId: str | None = None
    responseSchema: dict[str, Any] | None = None
    expiresAt: str | None = None


@attrs.frozen
class InterruptResolved(Body):
    """A question is closed by an answer, or (without `resolvedBy`) because its run no longer waits."""

    type = "interrupt_resolved"
    interruptId: str
    status: ReplyStatus
    resolvedBy: Author | None = None
    payload: Any = None


# The output of agents that is not text. All names but `reasoning` and `progress` are those of AG-UI. The plain protocol
# does not send these events.


@attrs.frozen
class Reasoning(Body):
    """A piece of a model's reasoning. The hub sets `messageId`: consecutive pieces have the same one."""

    type = "reasoning"
    delta: str
    messageId: str = ""


@attrs.frozen
class ToolCallStart(Body):
    """A tool call begins; its arguments follow in pieces."""

    type = "tool_call_start"
    toolCallId: str
    toolCallName: str


@attrs.frozen
class ToolCallArgs(Body):
    """A piece of the arguments of a tool call, as JSON text."""

    type = "tool_call_args"
    toolCallId: str
    delta: str


@attrs.frozen
class ToolCallEnd(Body):
    """The arguments of a tool call are complete."""

    type = "tool_call_end"
    toolCallId: str


@attrs.frozen
class ToolCallResult(Body):
    """The result of a tool call. A large result is cut; then the file `fileId` holds all of its `size` bytes."""

    type = "tool_call_result"
    toolCallId: str
    content: str
    isError: bool | None = attrs.field(default=None, kw_only=True)
    fileId: str | None = attrs.field(default=None, kw_only=True)
    size: int | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Progress(Body):
    """The progress of a run, from 0 to 1."""

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
    """An event that an agent defines, for clients that know its `name`; `value` is any JSON."""

    type = "custom"
    name: str
    value: Any = None


@attrs.frozen
class StateSnapshot(Body):
    """The complete state that agent and clients share, as JSON."""

    type = "state_snapshot"
    snapshot: Any


@attrs.frozen
class StateDelta(Body):
    """Changes to the shared state, as JSON Patch (RFC 6902)."""

    type = "state_delta"
    delta: list[dict[str, Any]]


# The calls of an agent to another agent (`run.call`). The hub writes these events; their names are those of AG-UI.


@attrs.frozen
class SubagentStarted(Body):
    """The agent calls another agent: `name` is its id. Only the caller gets its text.

    `parentSubagentRunId` is the call of the agent that calls, unless it is the run's own agent.
    """

    type = "subagent_started"
    subagentRunId: str
    name: str
    parentSubagentRunId: str | None = None


@attrs.frozen
class SubagentFinished(Body):
    """A called agent has ended, or its caller needs no more of its text."""

    type = "subagent_finished"
    subagentRunId: str


@attrs.frozen
class SubagentError(Body):
    """A called agent has failed, or was cancelled with its caller. The run may go on."""

    type = "subagent_error"
    subagentRunId: str
    message: str
    code: str | None = None


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
        SubagentStarted,
        SubagentFinished,
        SubagentError,
    )
}


# A Struct, because an Event is created for every token: to create an attrs object takes three times as long.
class Event(msgspec.Struct):
    """One entry of a session's log. `seq` counts from 1 without gaps; `ts` is in milliseconds since 1970."""

    agentId: str | None
    runId: str | None
    body: Body
    # The log sets these fields in the commit; the hub delivers no event before its commit.
    sessionId: str = ""
    epoch: str = ""
    seq: int = 0
    ts: int = 0
