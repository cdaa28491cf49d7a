"""The types that commands, events and notices share."""

from typing import Annotated, Literal, get_args

import attrs
import msgspec

from hub.ids import ID_PATTERN

# `$` alone would allow a trailing newline.
Id = Annotated[str, msgspec.Meta(pattern=rf"^{ID_PATTERN}$(?!\n)")]
IfBusy = Literal["enqueue", "reject", "replace", "rollback", "parallel"]
RemovalReason = Literal["restarted", "rollback", "edited"]
ReplyStatus = Literal["resolved", "cancelled"]
# The stop reasons of complete answers; an agent may yield them in a Finish.
FinishReason = Literal["end_turn", "max_tokens", "refused", "tool_calls"]
Role = Literal["user", "assistant", "system"]
StopReason = Literal[FinishReason, "cancelled", "error", "timeout", "aborted"]
FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)


@attrs.frozen
class Author:
    """The author of a message: the id of the principal, and a name for people."""

    id: str
    name: str


@attrs.frozen
class Usage:
    """The token counts of a model for one answer; an unknown count is None."""

    inputTokens: int | None = None
    outputTokens: int | None = None


@attrs.frozen
class Fault:
    """The error of a failed run."""

    code: str
    message: str
