"""The rows of the table `messages` as JSON, and their conversion to messages."""

from typing import Any, Literal, NamedTuple

from hub.messages import Author, Fault, HistoryMessage, StopReason


class MessageRow(NamedTuple):
    """The columns of MESSAGE_JSON, in their order."""

    message_id: str
    role: Literal["user", "assistant"]
    content: str
    agent: str | None
    run: str | None
    author: str | None
    author_name: str
    seq: int
    ts: int
    parts: list[Any] | None
    metadata: dict[str, Any] | None
    user_message: str | None
    stop_reason: StopReason | None
    error: dict[str, str] | None


MESSAGE_JSON = """json_array(id, role, content, agent, run, author, author_name, seq, ts,
        json(parts), json(metadata), user_message, stop_reason, json(error))"""


def to_messages(rows: list[list[Any]]) -> list[HistoryMessage]:
    """Return the messages of rows of MESSAGE_JSON."""
    return [to_message(MessageRow(*row)) for row in rows]


def to_message(row: MessageRow) -> HistoryMessage:
    """Return the message of a row."""
    return HistoryMessage(
        messageId=row.message_id,
        role=row.role,
        content=row.content,
        agentId=row.agent,
        runId=row.run,
        author=None if row.author is None else Author(row.author, row.author_name),
        seq=row.seq,
        ts=row.ts,
        parts=None if row.parts is None else tuple(row.parts),
        metadata=row.metadata,
        userMessageId=row.user_message,
        stopReason=row.stop_reason,
        error=None if row.error is None else Fault(**row.error),
    )
