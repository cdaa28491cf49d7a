"""Fork a session: copy its messages, and the files that they name, into a new session.

A copy of a file is a record with an id of its own, and shares the blob. The new id replaces the old one wherever
a copied message has it: in the text, in a part, or in the metadata.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import msgspec

from hub.errors import QuotaExceeded, SessionExists, WrongMessage
from hub.ids import Key
from hub.limits import Limits, format_size
from hub.messages import Body, Fork, HistoryMessage, UserMessage, WholeMessage
from hub.messages.parts import JsonParts
from hub.sessions.pending import PendingEvent, attach_future
from hub.sessions.rewriting import make_unknown_message_error
from hub.sessions.session import LiveSession
from hub.storage.file_names import FILE_ID, make_file_id
from hub.storage.log import SessionStore
from hub.storage.quota import SpaceShare, sum_counted_bytes
from hub.storage.records import FileRecord

MessageTexts = tuple[str, JsonParts | None, dict[str, Any] | None]  # content, parts and metadata
Revise = Callable[[HistoryMessage], HistoryMessage]


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
    session: LiveSession,
    source: Key,
    messages: Sequence[HistoryMessage],
    revise: Revise,
    shares: Collection[SpaceShare] = (),
) -> None:
    """Log copies of *messages* of the session *source*, and of the files that they name, in one commit.

    They become the first messages of *session*. Return when the log holds them. *revise* returns each message as it is
    now: it may have been erased since it was read. The copies have no run, because the runs belong to the source. The
    id of a file that does not exist any more stays. The files must also fit into *shares*. Raises SessionExists,
    QuotaExceeded, the errors of Admission.pause(), and StorageUnavailable, also if a file is deleted meanwhile.
    """
    named_files = await session.host.log.files.find_in_session(source, _find_file_ids(messages))
    async with session.admission.pause():
        # No await before put(): so nobody deletes the session, writes to it, or erases what revise() returns.
        if session.channel.head:
            raise SessionExists(f"session {session.id} exists already: fork into a new one", sessionId=session.id)
        copies = [revise(message) for message in messages]
        file_ids = _find_file_ids(copies) if named_files else ()
        files = [file for file in named_files if file.fileId in file_ids]
        events = _make_events(copies, {file.fileId: make_file_id(session.host.seams) for file in files})
        release_space = _reserve_space(session, files, shares)
        seq = attach_future(events[-1], lambda result: None if isinstance(result, int) else release_space())
        session.outbox.put(*events)
    await seq


def _reserve_space(
    session: LiveSession, files: Sequence[FileRecord], shares: Collection[SpaceShare]
) -> Callable[[], None]:
    """Count the copies of *files*. Return a function that takes the count back. Raises QuotaExceeded."""
    quota, count = session.host.files.quota, sum_counted_bytes(file.size for file in files)
    if not files:  # such a fork needs no space: it is possible even if a limit is exceeded already
        return lambda: None
    try:
        with quota.use_shares(shares):
            quota.grow(session.key, count, shares)
    except QuotaExceeded as error:
        size, hint = format_size(count), "a fork at an earlier message may need fewer files"
        text = f"the files of the fork ({size}) do not fit: {error.message} ({hint})"
        raise type(error)(text, **error.fields, sessionId=session.id) from None
    return partial(quota.add, session.key, -count)


def _find_file_ids(messages: Iterable[HistoryMessage]) -> set[str]:
    """Return all words in *messages* that may be ids of files."""
    return {file_id for message in messages for file_id in FILE_ID.findall(_encode_texts(message))}


def _replace_file_ids(message: HistoryMessage, new_ids: Mapping[str, str]) -> HistoryMessage:
    text = _encode_texts(message)
    new_text = FILE_ID.sub(lambda match: new_ids.get(match[0], match[0]), text)
    if new_text == text:
        return message
    content, parts, metadata = msgspec.json.decode(new_text, type=MessageTexts)
    return attrs.evolve(message, content=content, parts=parts, metadata=metadata)


def _make_events(copies: Iterable[HistoryMessage], new_ids: Mapping[str, str]) -> list[PendingEvent]:
    events = [_make_event(_replace_file_ids(copy, new_ids) if new_ids else copy) for copy in copies]
    events[-1].file_copies = new_ids
    return events


def _encode_texts(message: HistoryMessage) -> str:
    return msgspec.json.encode((message.content, message.parts, message.metadata)).decode()


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
