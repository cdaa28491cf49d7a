"""The history of a session: its finished messages."""

from typing import Any, Literal

import attrs

from hub.messages.parts import JsonParts
from hub.messages.words import Author, Fault, StopReason


@attrs.frozen(kw_only=True)
class HistoryMessage:
    """A finished message of a session; `seq` is the seq of the event that finished it.

    `userMessageId` is the id of the message that an agent's message answers. If a run does not end with `end_turn`, its
    last message has the `stopReason` of the run, and the `error` of the run if it failed. If such a run has no message,
    an empty message has these fields. A run that is cancelled in the queue adds no message.
    """

    messageId: str
    role: Literal["user", "assistant"]
    content: str
    agentId: str | None
    runId: str | None
    author: Author | None
    seq: int = 0
    ts: int = 0
    parts: JsonParts | None = None
    metadata: dict[str, Any] | None = None
    userMessageId: str | None = None
    stopReason: StopReason | None = None
    error: Fault | None = None
