"""The contract of a log: where events are numbered and kept, and from where they are heard.

A log is four stores that share their commits; each part of the hub takes the store that it needs. One driver for each
scheme of a URL (see hub.storage.open_log). All of them run tests/storage/test_log_contract.py.

A session is named by its key (see hub.ids); the events that come back carry the session's id alone. Ids of runs,
messages, files and questions are unique in the hub. All methods are called from the loop that called start(); none
blocks it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hub.ids import Key
from hub.messages import Event, HistoryMessage, Page, PageRequest
from hub.storage.records import (
    Append,
    ChatRecord,
    CommitTotals,
    Damage,
    FileRecord,
    Head,
    RunRecord,
    SessionLabel,
    SessionQuery,
    SessionRow,
)

EVERYONE = frozenset({"*"})  # the readers of a session that anybody may read

# Called in the loop, once per append, in commit order, with events that are safely kept.
Listener = Callable[[Key, Sequence[Event]], None]
# Called in the loop after the listener: with the seq of the append's first event, or with StorageUnavailable.
AppendCallback = Callable[[int | Exception], None]


class EventStore(ABC):
    """The events of sessions. Those of a session are announced in the order of their seq, each once, when durable."""

    @abstractmethod
    def append(self, append: Append, done: AppendCallback) -> None:
        """Number and keep the events in one commit, shared with whatever else waits.

        The first append makes the session, with a random epoch. One append at a time per session: the caller waits for
        *done*. After a failure nothing of the append is kept, and the same append may be given again.
        """

    @abstractmethod
    async def read(self, key: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        """Return events with after < seq <= upto in order: at least one where there is one, at most one page.

        *rows* makes the page shorter; where a page is long its last rows may be missing for their bytes.
        """

    @abstractmethod
    async def find_message_before(self, key: Key, run_id: str, seq: int) -> tuple[str, str] | None:
        """Return (messageId, content) of the streamed message that the run's event *seq* ends, or None."""

    @abstractmethod
    async def expire(self, before: int, max_bytes: int) -> dict[Key, int]:
        """Drop old events of sessions: those written before *before* (ms since the epoch), then the oldest while the
        events take more than *max_bytes*. Never drops anything of an unfinished run or after it. Messages stay.

        Returns the new floor of each session that lost something. Purges, too.
        """

    @abstractmethod
    async def purge(self) -> None:
        """Drop, in bounded pieces, what deleted sessions left behind; nobody can read it any more."""


class RunStore(ABC):
    """The runs that have not ended, and what each chat with a clientMsgId was answered."""

    @abstractmethod
    async def list_unfinished(self) -> Sequence[RunRecord]:
        """Return every run that has not ended, in the order in which they were first saved.

        One whose record is damaged is left out, with a line in the hub's output; it stays in the log.
        """

    @abstractmethod
    async def find_chat(self, key: Key, principal: str, client_msg_id: str) -> ChatRecord | None:
        """Return what was answered to this clientMsgId before, or None."""


class SessionStore(ABC):
    """Which sessions there are, what they are called, and their finished messages."""

    @abstractmethod
    async def find(self, key: Key) -> Head | None:
        """Return where the session stands, or None; makes none."""

    @abstractmethod
    async def make(self, key: Key) -> tuple[Head, bool]:
        """Return where the session stands, and whether it was made now, with a random epoch."""

    @abstractmethod
    async def list(self, query: SessionQuery, request: PageRequest) -> Page[SessionRow]:
        """Return sessions in the order of their last messages; raises BadQuery for a place that no such list gave.

        It reads as many rows as it returns, however many sessions there are; but where *query* names an agent, also
        those in which that agent did not answer.
        """

    @abstractmethod
    async def find_label(self, key: Key) -> SessionLabel | None:
        """Return the title and the metadata of a session, or None where there is no session."""

    @abstractmethod
    async def relabel(self, key: Key, changes: Mapping[str, Any]) -> None:
        """Replace those of `title` and `metadata` that *changes* has; nothing where there is no session."""

    @abstractmethod
    async def delete(self, key: Key) -> Sequence[FileRecord]:
        """Let all of a session be gone, in one commit: after it, and after a crash, it is whole or not there.

        Returns the files that it had; one that is given later is refused. No append to it may be under way. A session
        that is made under the id afterwards is a new one. What it took is given back by EventStore.purge().
        """

    @abstractmethod
    async def read_last_messages(
        self, key: Key, last: int, most: int, upto: str | None = None
    ) -> Sequence[HistoryMessage]:
        """Return the last so many finished messages, oldest first, at most *most* bytes of text and parts (the newest
        win); where *upto* names one, that and those before it, and none where there is none of that id.
        """

    @abstractmethod
    async def read_messages_from(self, key: Key, message_id: str, most: int) -> Sequence[HistoryMessage]:
        """Return a finished message and all after it, oldest first, *most* in all; none where it is not there.

        Those after it come without what they say.
        """

    @abstractmethod
    async def list_messages(self, key: Key, request: PageRequest) -> Page[HistoryMessage]:
        """Return finished messages in their order; raises BadQuery for a place that no such list gave."""


class FileStore(ABC):
    """What each file is; its bytes lie elsewhere (see hub.storage.blobs)."""

    @abstractmethod
    async def add(self, file: FileRecord) -> None:
        """Keep what a file is; the order of calls is the order in the log.

        Raises StorageUnavailable, also where its session is not there.
        """

    @abstractmethod
    async def find(self, file_id: str) -> FileRecord | None:
        """Return what a file is, or None."""

    @abstractmethod
    async def sum_bytes_by_session(self, least: int) -> Mapping[Key, int]:
        """Return what the files of each session take that has any; a file counts *least* bytes or more."""

    @abstractmethod
    async def find_used_digests(self, digests: Sequence[str]) -> Sequence[str]:
        """Return those of *digests* that some file has."""


class Log(ABC):
    """One log: its four stores, from start() to close()."""

    def __init__(self, events: EventStore, runs: RunStore, sessions: SessionStore, files: FileStore) -> None:
        self.events, self.runs, self.sessions, self.files = events, runs, sessions, files

    @abstractmethod
    async def start(self, listener: Listener) -> None:
        """Open the log, bring its schema up to date, take its lock; raises LogUnusable with a line for the operator."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is queued, then let go of everything. Appends afterwards are refused."""

    @abstractmethod
    def identify(self, home: Path) -> str:
        """Return what no other log is called, however it was opened; one inside the folder *home* may move with it."""

    async def check(self, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        """Return what is damaged, also in a log that is not started, or that another process has open.

        Takes no lock and writes nothing. *blob_size* returns the bytes that lie under a digest, or None; it is called
        in a thread. Raises LogUnusable where there is no such log, or where the driver cannot check.
        """
        raise LogUnusable("this log cannot be checked: its driver has no check")

    @abstractmethod
    async def probe(self) -> None:
        """Commit something that changes nothing; raises StorageUnavailable, with what to do, where a commit fails."""

    @property
    @abstractmethod
    def commit_totals(self) -> CommitTotals:
        """Return what it has done so far."""


class LogUnusable(Exception):
    """The log cannot be opened; the message says why and what to do."""
