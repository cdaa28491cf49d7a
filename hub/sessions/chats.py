"""What a chat writes, all in one commit: its message, its run, and what is taken back for it; and what is answered."""

import hashlib
from typing import Literal

import attrs
import orjson

from hub.ids import Key
from hub.messages import Accepted, Author, Chat, HistoryMessage, MessageRemoved, RemovalReason, UserMessage
from hub.messages.parts import parts_to_json
from hub.sessions.outbox import PendingEvent
from hub.storage.records import ChatRecord, RunRecord


@attrs.frozen
class Taken:
    """The messages that a chat takes back; *again* is the one that it has answered anew, instead of a new one."""

    ids: tuple[str, ...]
    reason: RemovalReason = "edited"
    again: HistoryMessage | None = None


def record(
    chat: Chat, author: Author, place: tuple[Key, str, int], ids: tuple[str, str, str], taken: Taken | None
) -> RunRecord:
    """Return a queued run.

    *place* is the key of its session, its agent and the head; *ids* are its own, its answer's and the message's.
    """
    key, agent_id, head = place
    run_id, answer_id, message_id = ids
    again = taken.again if taken else None
    return RunRecord(
        run_id,
        key,
        agent_id,
        "queued",
        answer_id,
        again.messageId if again else message_id,
        again.content if again else chat.message,
        author,
        head,
        waits_for_session=chat.ifBusy in ("enqueue", "replace", "rollback"),
        parts=again.parts if again else parts_to_json(chat.parts),
        metadata=again.metadata if again else chat.metadata,
    )


def items(chat: Chat, run: RunRecord, starts: bool, said: str, taken: Taken | None) -> list[PendingEvent]:
    """Return what goes to the log, in order; the last one's seq is the chat's. *said* is its digest."""
    given = []
    if taken is not None:
        given.append(
            PendingEvent(
                None, None, MessageRemoved(taken.ids, taken.reason), removed_messages=taken.ids, is_refusable=True
            )
        )
    if taken is None or taken.again is None:
        given.append(_message(chat, run))
    last = given[-1]
    last.run_records = () if starts else (run,)
    if chat.clientMsgId is not None:
        last.chat = ChatRecord(
            principal=run.author.id,
            clientMsgId=chat.clientMsgId,
            digest=said,
            messageId=run.userMessageId,
            runId=run.runId,
        )
    return given


def _message(chat: Chat, run: RunRecord) -> PendingEvent:
    author, message_id = run.author, run.userMessageId
    body = UserMessage(
        messageId=message_id,
        author=author,
        content=chat.message,
        clientMsgId=chat.clientMsgId,
        parts=run.parts,
        metadata=run.metadata,
    )
    kept = HistoryMessage(
        messageId=message_id,
        role="user",
        content=chat.message,
        agentId=None,
        runId=None,
        author=author,
        parts=run.parts,
        metadata=run.metadata,
    )
    return PendingEvent(None, None, body, messages=(kept,), is_refusable=True)


def accepted(
    chat: Chat,
    ids: tuple[str, str, str],
    seq: int,
    status: Literal["started", "queued", "duplicate"],
    position: int = 0,
) -> Accepted:
    """Return the answer to a chat that is kept; *ids* are the session's, its message's and its run's."""
    session_id, message_id, run_id = ids
    return Accepted(
        sessionId=session_id,
        messageId=message_id,
        runId=run_id,
        seq=seq,
        status=status,
        position=position,
        clientMsgId=chat.clientMsgId,
        ref=chat.ref,
    )


def digest(chat: Chat, *where: str | None) -> str:
    """Return what two commands with one clientMsgId must share, beside *where* they go; nothing for one without."""
    if chat.clientMsgId is None:
        return ""
    beside = [parts_to_json(chat.parts), chat.metadata] if chat.parts or chat.metadata else []
    return hashlib.sha256(orjson.dumps([*where, chat.message, *beside])).hexdigest()
