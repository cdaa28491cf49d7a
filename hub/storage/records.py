"""The facts that a log keeps beside events. A session is named by its key here: see hub.ids."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import attrs
from msgspec import Struct, field

from hub.ids import Key
from hub.messages import Author, Event, HistoryMessage
from hub.messages.parts import JsonParts


@attrs.frozen
class Head:
    """Where a session stands: *seq* is its last number, and what is numbered *floor* or lower is no longer kept."""

    key: Key
    epoch: str
    seq: int
    floor: int


@attrs.frozen(kw_only=True)
class SessionRow:
    """A session as a list shows it: its messages are counted, and *ts* is the last one's; 0 where there is none."""

    key: Key
    epoch: str
    messages: int
    ts: int
    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class SessionQuery:
    """Which sessions a list has: whose key begins with *prefix* (see hub.ids.key_prefix), that *readers* may read, in
    which *agent* answered (None: any), and whose last message is of *since* <= ts < *until* (ms).

    Until there are grants, each session has the one reader EVERYONE.
    """

    prefix: str
    readers: Collection[str]
    agent: str | None = None
    since: int = 0
    until: int = 10**15


@attrs.frozen
class SessionLabel:
    """What people and programs call a session, beside its id."""

    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class CommitTotals:
    """What the log has done since it was opened: its commits, and how long they took together."""

    commits: int
    seconds: float


@attrs.frozen(kw_only=True)
class Damage:
    """One thing in a log that cannot be read or is missing: *where* it lies, and which seqs of which session it is.

    *last* is None where only the first seq is known. *file_id* is set where it is a file's blob.
    """

    where: str
    key: Key | None = None
    first: int | None = None
    last: int | None = None
    reason: str = ""
    file_id: str | None = None

    def line(self) -> str:
        """Return it in one line for the operator."""
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
    key: Key = field(name="sessionId")  # as older logs have it
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
    """The answer that a chat with a clientMsgId got, and a digest of what it said."""

    principal: str
    clientMsgId: str
    digest: str
    messageId: str
    runId: str
    seq: int = 0


@attrs.frozen(kw_only=True)
class FileRecord:
    """What a file is; its bytes lie elsewhere, by their *digest* (SHA-256 in hex). *created* is the log's time (ms)."""

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
