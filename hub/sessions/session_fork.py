"""Fork a session: copy its messages into a new session."""

from collections.abc import Callable, Sequence

import attrs

from hub.errors import SessionExists, WrongMessage
from hub.ids import Key
from hub.limits import Limits, format_size
from hub.messages import Body, Fork, HistoryMessage, UserMessage, WholeMessage
from hub.sessions.pending import PendingEvent, attach_future
from hub.sessions.rewriting import make_unknown_message_error
from hub.sessions.session import LiveSession
from hub.storage.log import SessionStore


async def read_source_messages(
    store: SessionStore, key: Key, command: Fork, limits: Limits
) -> Sequence[HistoryMessage]:
    """Return the messages that a fork copies: the newest ones up to the message in *command*, within the limits.

    Raises UnknownMessage if the history lacks that message, and WrongMessage if the message alone exceeds
    `fork_bytes`. Raises StorageUnavailable.
    """
    messages = await store.read_last_messages(key, limits.fork_messages, limits.fork_bytes, command.messageId)
    if messages:
        return messages
    if not await store.read_messages_from(key, command.messageId, 1):
        raise make_unknown_message_error(command.sessionId, command.messageId)
    text = (
        f"message {command.messageId} is larger than the {format_size(limits.fork_bytes)} that a fork can copy: "
        "fork at another message"
    )
    raise WrongMessage(text, sessionId=command.sessionId)


async def log_copies(
    session: LiveSession, messages: Sequence[HistoryMessage], revise: Callable[[HistoryMessage], HistoryMessage]
) -> None:
    """Log copies of *messages* in one commit, as the first messages of a session. Return when the log holds them.

    *revise* returns each message as it is now: it may have been erased since it was read. The copies have no run,
    because the runs belong to the source session. Raises SessionExists, StorageUnavailable and the errors of
    Admission.pause().
    """
    async with session.admission.pause():
        if session.channel.head:
            raise SessionExists(f"session {session.id} exists already: fork into a new one", sessionId=session.id)
        events = [_make_event(revise(message)) for message in messages]
        seq = attach_future(events[-1])
        session.outbox.put(*events)
    await seq


def _make_event(message: HistoryMessage) -> PendingEvent:
    copy = attrs.evolve(message, runId=None)
    return PendingEvent(message.agentId, None, _make_body(message), messages=(copy,), is_refusable=True)


def _make_body(message: HistoryMessage) -> Body:
    if message.author is None:  # an agent's message
        return WholeMessage(
            message.messageId, message.content, message.parts, stopReason=message.stopReason, error=message.error
        )
    return UserMessage(
        messageId=message.messageId,
        author=message.author,
        content=message.content,
        clientMsgId=None,
        parts=message.parts,
        metadata=message.metadata,
    )
