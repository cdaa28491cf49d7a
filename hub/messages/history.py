"""What is read back of a session: its finished messages."""

from typing import Any, Literal

import attrs

from hub.messages.parts import Plain
from hub.messages.words import Author


@attrs.frozen(kw_only=True)
class Message:
    """A finished text in a session's history; *seq* is the event that finished it.

    *userMessageId* is the message that an agent's message answers.
    """

    messageId: str
    role: Literal["user", "assistant"]
    content: str
    agentId: str | None
    runId: str | None
    author: Author | None
    seq: int = 0
    ts: int = 0
    parts: Plain | None = None
    metadata: dict[str, Any] | None = None
    userMessageId: str | None = None
