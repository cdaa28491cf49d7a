"""The types of the fields of messages: ids, string enumerations and small records."""

from typing import Annotated, Literal, get_args

import attrs
import msgspec

from hub.ids import ID_PATTERN

# `$` alone would allow a trailing newline.
Id = Annotated[str, msgspec.Meta(pattern=rf"^{ID_PATTERN}$(?!\n)")]
IfBusy = Literal["enqueue", "reject", "replace", "rollback", "parallel"]
RemovalReason = Literal["restarted", "rollback", "edited"]
ReplyStatus = Literal["resolved", "cancelled"]
# The stop reasons that an agent may yield in a Finish. Only the hub sets the other stop reasons.
FinishReason = Literal["end_turn", "max_tokens", "refused", "tool_calls"]
Role = Literal["user", "assistant", "system", "tool"]
StopReason = Literal[FinishReason, "cancelled", "error", "timeout", "aborted"]
FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)
TOKEN_BYTES = 4  # of UTF-8 text in one estimated token


@attrs.frozen
class Author:
    """A principal as other clients see it, such as the author of a message: its id, and a name to display."""

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
