"""The words that commands, events and notices share."""

from typing import Annotated, Literal

import attrs
import msgspec

from hub.ids import ID_PATTERN

# `$` alone would let a trailing newline through.
Id = Annotated[str, msgspec.Meta(pattern=rf"^{ID_PATTERN}$(?!\n)")]
IfBusy = Literal["enqueue", "reject", "replace", "rollback", "parallel"]
RemovalReason = Literal["restarted", "rollback", "edited"]
ReplyStatus = Literal["resolved", "cancelled"]
StopReason = Literal["end_turn", "max_tokens", "cancelled", "error", "timeout", "aborted"]


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
