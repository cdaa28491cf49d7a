"""The records that a log stores besides events. They name a session by its key: see hub.ids."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import attrs
from msgspec import Struct, field

from hub.ids import Key
from hub.messages import Author, Event, HistoryMessage
from hub.messages.parts import JsonParts


@attrs.frozen
class Head:
    """The state of a session: *seq* is the seq of its last event, *floor* that of the last event that was dropped."""

    key: Key
    epoch: str
    seq: int
    floor: int


@attrs.frozen(kw_only=True)
class SessionRow:
    """A session in a list: the number of its messages, and the time of the last one in ms; 0 if there is none."""

    key: Key
    epoch: str
    messages: int
    ts: int
    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class SessionQuery:
    """The filter of a list of sessions.

    A session matches if its key begins with *prefix* (see hub.ids.key_prefix), if one of *readers* may read it, if
    *agent* answered in it (or is None), and if its last message has *since* <= ts < *until* (ms). Today each session
    has one reader: EVERYONE.
    """

    prefix: str
    readers: Collection[str]
    agent: str | None = None
    since: int = 0
    until: int = 10**15


@attrs.frozen
class SessionLabel:
    """The title that people see for a session, and the metadata that programs store with it."""

    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class CommitTotals:
    """The number of commits since the log was opened, and how long they took in all."""

    commits: int
    seconds: float


@attrs.frozen(kw_only=True)
class Damage:
    """A damaged or missing part of a log: *where* it is, and the session and the seqs that it concerns.

    *last* is None if only the first seq is known. *file_id* is set if the damage concerns the blob of a file.
    """

    where: str
    key: Key | None = None
    first: int | None = None
    last: int | None = None
    reason: str = ""
    file_id: str | None = None

    def to_line(self) -> str:
        """Return one line of text for the operator."""
        session = "" if self.key is None else f": session {self.key}"
        upto = " and later" if self.last is None else "" if self.last == self.first else f" to {self.last}"
        seqs = "" if self.first is None else f", seq {self.first}{upto}"
        return f"{self.where}{session}{seqs}: {self.reason}"


class RunRecord(Struct, frozen=True):
    """The stored state of an unfinished run: enough to start the run, or to end it, after a restart.

    *after* is a seq before the run's first event. If *waits_for_session* is set, the run waits for all runs of its
    session; otherwise only for those of its agent.
    """

    runId: str
    key: Key = field(name="sessionId")  # the name in the logs of older versions, as is "wide" below
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


@attrs.frozen(kw_only=True)
class ChatRecord:
    """The answer to a chat with a clientMsgId, and a digest of the chat: a repeated chat must have the same one."""

    principal: str
    clientMsgId: str
    digest: str
    messageId: str
    runId: str
    seq: int = 0


@attrs.frozen(kw_only=True)
class FileRecord:
    """A file; its bytes are the blob with its *digest* (SHA-256 in hex). The log sets *created* (ms)."""

    fileId: str
    key: Key
    name: str
    type: str
    size: int
    digest: str
    created: int = 0


class Append(Struct):
    """A unit of work for the log: all of it is committed, or none.

    The log sets seq, ts and epoch of *events* in place. Each of *messages* and *chats* has the index of an event
    whose seq it gets. *saved_runs* are inserted or replaced. *ended_runs* are the ids of runs to delete.
    *removed_messages* are the ids of messages to delete; they are deleted after *messages* are inserted.
    """

    key: Key
    events: Sequence[Event]
    messages: Sequence[tuple[int, HistoryMessage]] = ()
    saved_runs: Sequence[RunRecord] = ()
    ended_runs: Sequence[str] = ()
    chats: Sequence[tuple[int, ChatRecord]] = ()
    removed_messages: Sequence[str] = ()
