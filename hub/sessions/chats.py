"""Build what one commit logs for a chat: its message, its run, and the removal of older messages."""

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import attrs
import msgspec
import orjson

from hub.ids import Key
from hub.messages import (
    Accepted,
    Author,
    Chat,
    HistoryMessage,
    MessageRemoved,
    RemovalReason,
    UserMessage,
    find_request,
)
from hub.messages.parts import parts_to_json
from hub.observe.tracing import trace_origin
from hub.sessions.pending import PendingEvent
from hub.sessions.tool_results import RunBasis
from hub.storage.records import ChatRecord, RunRecord


@attrs.frozen
class Removal:
    """The messages that a chat removes from the history.

    If *reused_message* is set, the chat adds no message: its run answers *reused_message* again.
    """

    message_ids: tuple[str, ...]
    reason: RemovalReason = "edited"
    reused_message: HistoryMessage | None = None


@attrs.frozen(kw_only=True)
class Sender:
    """Who sends a chat.

    *check* is called with the id of the agent just before the chat is given to the log. It raises an error if the
    author may not send the chat, or may not use the agent. *on_accept* is called once the log holds the chat.
    """

    author: Author
    check: Callable[[str], None] = lambda agent_id: None
    on_accept: Callable[[Accepted], None] = lambda accepted: None


class NewIds(NamedTuple):
    """The ids for a chat: of its run, of the run's first message, and of the chat's own message."""

    run: str
    answer: str
    message: str


def make_run_record(
    chat: Chat,
    author: Author,
    key: Key,
    agent_id: str,
    *,
    head: int,
    ids: NewIds,
    removal: Removal | None,
    basis: RunBasis,
) -> RunRecord:
    """Return the record of a queued run. *head* is the last seq of its session.

    Call this in the context of the request, which may have a trace.
    """
    message = removal.reused_message if removal else None
    return RunRecord(
        runId=ids.run,
        key=key,
        agentId=agent_id,
        state="queued",
        messageId=ids.answer,
        userMessageId=message.messageId if message else ids.message,
        message=message.content if message else chat.message,
        author=author,
        after=head,
        waits_for_session=basis.must_wait or chat.ifBusy in ("enqueue", "replace", "rollback"),
        parts=message.parts if message else parts_to_json(chat.parts),
        metadata=message.metadata if message else chat.metadata,
        request=basis.request,
        parentRunId=basis.parent_run_id,
        trace=trace_origin.get() or msgspec.UNSET,
    )


def make_events(
    chat: Chat, run: RunRecord, can_start: bool, digest: str, removal: Removal | None
) -> list[PendingEvent]:
    """Return the events of a chat in order. The seq of the last event is the seq of the chat.

    If the run can start now, these events do not write its record: Schedule.start() logs it with `run_started`.
    """
    events = []
    if removal is not None:
        events.append(
            PendingEvent(
                None,
                None,
                MessageRemoved(removal.message_ids, removal.reason),
                removed_messages=removal.message_ids,
                is_refusable=True,
            )
        )
    if removal is None or removal.reused_message is None:
        events.append(_make_message_event(chat, run))
    last = events[-1]
    last.run_records = () if can_start else (run,)
    if chat.clientMsgId is not None:
        last.chat = ChatRecord(
            principal=run.author.id,
            clientMsgId=chat.clientMsgId,
            digest=digest,
            messageId=run.userMessageId,
            runId=run.runId,
        )
    return events


def _make_message_event(chat: Chat, run: RunRecord) -> PendingEvent:
    author, message_id = run.author, run.userMessageId
    body = UserMessage(
        messageId=message_id,
        author=author,
        content=chat.message,
        clientMsgId=chat.clientMsgId,
        parts=run.parts,
        metadata=run.metadata,
    )
    message = HistoryMessage(
        messageId=message_id,
        role="user",
        content=chat.message,
        agentId=None,
        runId=None,
        author=author,
        parts=run.parts,
        metadata=run.metadata,
    )
    return PendingEvent(None, None, body, messages=(message,), request=run.request, is_refusable=True)


def make_accepted(
    chat: Chat,
    *,
    session_id: str,
    message_id: str,
    run_id: str,
    seq: int,
    status: Literal["started", "queued", "duplicate"],
    position: int = 0,
) -> Accepted:
    """Return the notice that a chat is logged. *position* is the run's place in the queue, or 0 if it is not there."""
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


def make_digest(chat: Chat, *target: str | None) -> str:
    """Return a digest of the chat and of *target*, what it acts on. A repeated clientMsgId must have the same digest.

    Without a clientMsgId the digest is empty.
    """
    if chat.clientMsgId is None:
        return ""
    request = find_request(chat)
    extra = [parts_to_json(chat.parts), chat.metadata] if chat.parts or chat.metadata or request else []
    if request is not None:
        extra.append(msgspec.to_builtins(request))
    return hashlib.sha256(orjson.dumps([*target, chat.message, *extra])).hexdigest()
