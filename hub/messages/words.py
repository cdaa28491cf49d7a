"""The words that commands, events and notices share."""

from typing import Annotated, Literal, get_args

import attrs
import msgspec

from hub.ids import ID_PATTERN

# `$` alone would let a trailing newline through.
Id = Annotated[str, msgspec.Meta(pattern=rf"^{ID_PATTERN}$(?!\n)")]
IfBusy = Literal["enqueue", "reject", "replace", "rollback", "parallel"]
RemovalReason = Literal["restarted", "rollback", "edited"]
ReplyStatus = Literal["resolved", "cancelled"]
# How an agent may say that it stopped, and with these all that it meant to say is there.
FinishReason = Literal["end_turn", "max_tokens", "refused", "tool_calls"]
Role = Literal["user", "assistant", "system"]
StopReason = Literal[FinishReason, "cancelled", "error", "timeout", "aborted"]
FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)


@attrs.frozen
class Author:
    """Who wrote a message: the principal's id, and the name that people see."""

    id: str
    name: str


@attrs.frozen
class Usage:
    """Tokens that a model counted for one answer; a count that nobody knows is None."""

    inputTokens: int | None = None
    outputTokens: int | None = None


@attrs.frozen
class Fault:
    """Why a run failed."""

    code: str
    message: str
