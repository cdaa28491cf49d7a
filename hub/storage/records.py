"""The records that a log stores besides events. They name a session by its key: see hub.ids."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import attrs
from msgspec import UNSET, Struct, UnsetType, field

from hub.access.records import UsageRecord
from hub.ids import Key
from hub.messages import Author, Event, HistoryMessage, Request
from hub.messages.parts import JsonParts
from hub.observe.tracing import TraceOrigin


@attrs.frozen
class Head:
    """The state of a session's events.

    *seq* is the seq of the last event, or 0 before the first event. Retention has deleted the events up to *floor*.
    """

    key: Key
    epoch: str
    seq: int
    floor: int


@attrs.frozen(kw_only=True)
class SessionRow:
    """A session in a list.

    *messages* is the number of its messages. *ts* is the time of the last message (ms), or 0 if there is none.
    """

    key: Key
    epoch: str
    messages: int
    ts: int
    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class SessionQuery:
    """The filter of a list of sessions.

    A session matches under four conditions. Its key begins with *prefix* (see hub.ids.key_prefix). One of *readers*,
    ids of principals, has a grant in the session, or *readers* contains EVERYONE. *agent* answered in the session, or
    is None. The time of the last message is *since* <= ts < *until* (ms); without messages it is 0.
    """

    prefix: str
    readers: Collection[str]
    agent: str | None = None
    since: int = 0
    until: int = 10**15


@attrs.frozen
class AuthoredMessage:
    """A message that a principal wrote, with its request, or an answer to one."""

    key: Key
    message: HistoryMessage
    request: Request | None = None


@attrs.frozen
class MessageExpiry:
    """What an expiry of messages did.

    *keys* are the sessions that lost messages. All lost messages are older than *before* (ms).
    """

    keys: Collection[Key]
    before: int


@attrs.frozen
class SessionLabel:
    """The title of a session, for people, and its metadata, for programs."""

    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class CommitTotals:
    """The number of commits since the log was opened, and the sum of their durations.

    *buckets* are the bounds of a histogram of the durations, as text, each with the number of commits up to it.
    """

    commits: int
    seconds: float
    buckets: Sequence[tuple[str, float]] = ()


@attrs.frozen(kw_only=True)
class Damage:
    """A damaged or missing part of a log: its *location* in the log, its session, and the seqs of its events.

    *key* is None if the session is unknown. *first_seq* is None if the damage is not about events, or if no seq is
    known. *last_seq* is None if the last seq is not known. *file_id* is set if the damage is about the blob of a file.
    """

    location: str
    key: Key | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    reason: str = ""
    file_id: str | None = None

    def to_line(self) -> str:
        """Return one line of text for the operator."""
        first, last = self.first_seq, self.last_seq
        session = "" if self.key is None else f": session {self.key}"
        end = " and later" if last is None else "" if last == first else f" to {last}"
        seqs = "" if first is None else f", seq {first}{end}"
        return f"{self.location}{session}{seqs}: {self.reason}"


class RunRecord(Struct, frozen=True):
    """The stored state of an unfinished run, from which the hub can start or end the run after a restart.

    *after* is a seq before the run's first event: retention keeps the later events. If *waits_for_session* is True,
    the queued run waits for all earlier runs of its session. Otherwise the queued run waits for the earlier runs of its
    agent, and for the earlier runs with *waits_for_session*. *parentRunId* is the run whose tool calls have their
    results in the message. *trace* is set only while `otel` is on.
    """

    runId: str
    key: Key = field(name="sessionId")  # older versions wrote the JSON names "sessionId" and "wide"
    agentId: str
    state: Literal["queued", "started"]
    messageId: str
    userMessageId: str
    message: str
    author: Author
    after: int
    attempt: int = 1
    waits_for_session: bool = field(name="wide", default=False)
    parts: JsonParts | None = None
    metadata: dict[str, Any] | None = None
    request: Request | None = None
    parentRunId: str | None = None
    trace: TraceOrigin | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class ChatRecord:
    """The record of a chat with a clientMsgId.

    A repeated chat must have the same *digest*. The hub makes the same `accepted` again from this record. The record
    of a question has the question's id as *clientMsgId* and *messageId*; *principal* and *digest* are empty.
    """

    principal: str
    clientMsgId: str
    digest: str
    messageId: str
    runId: str
    seq: int = 0


@attrs.frozen(kw_only=True)
class FileRecord:
    """The record of a file. *digest* is the SHA-256 of the bytes in hex, and the name of the blob.

    The log sets *created*, the time of the commit (ms).
    """

    fileId: str
    key: Key
    name: str
    type: str
    size: int
    digest: str
    created: int = 0


@attrs.frozen
class ErasureResult:
    """The result of an erasure in a session: its new epoch, or None if nothing was erased, and the deleted files."""

    epoch: str | None
    files: Sequence[FileRecord]


class Append(Struct):
    """A unit of work for the log: the log commits all parts, or none.

    The log sets sessionId, epoch, seq and ts of *events* in place. A message and a chat get the seq of an event: the
    number before each is the index of that event in *events*. *requests* are the requests of messages, by the ids of
    the messages. *saved_runs* are inserted or replaced. *ended_runs* are
    the ids of runs to delete. *removed_messages* are the ids of messages to delete, after *messages* are inserted.
    If the append makes the session and *owner* is not empty, the principal *owner* gets the grant `owner`. The amounts
    in *usage* are added to the rows with the same day, tenant, principal and agent. *file_copies* maps the ids of files
    of other sessions to the ids of their copies: new records of this session. If one of these files does not exist any
    more, the append fails.
    """

    key: Key
    events: Sequence[Event]
    messages: Sequence[tuple[int, HistoryMessage]] = ()
    saved_runs: Sequence[RunRecord] = ()
    ended_runs: Sequence[str] = ()
    chats: Sequence[tuple[int, ChatRecord]] = ()
    removed_messages: Sequence[str] = ()
    owner: str = ""
    usage: Sequence[UsageRecord] = ()
    requests: Mapping[str, Request] = {}
    file_copies: Mapping[str, str] = {}
