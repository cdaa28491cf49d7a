"""The contract of a log, which numbers and stores events, and announces them to its listener.

A log is four stores that share their commits; each part of the hub takes the store that it needs. There is one driver
for each scheme of a URL (see hub.storage.open_log), and tests/storage/test_log_contract.py runs on all drivers.

A session is named by its key (see hub.ids). The events that the log returns have the session's id only. The ids of
runs, messages, files and questions are unique in the hub. All methods are called in the event loop that called start(),
and none blocks it.
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

EVERYONE = frozenset({"*"})  # the readers of a session that every principal may read

# Called in the loop, in the order of commits, once for each append that has events, after they are on disk.
Listener = Callable[[Key, Sequence[Event]], None]
# Called in the loop, after the listener, with the seq of the append's first event, or with StorageUnavailable.
AppendCallback = Callable[[int | Exception], None]


class EventStore(ABC):
    """The events of sessions. The log announces each event once, after it is on disk, in the order of seq."""

    @abstractmethod
    def append(self, append: Append, callback: AppendCallback, /) -> None:
        """Queue an append: the log numbers its events and commits it, together with other queued appends.

        The first append to a session makes the session, with a random epoch. A session may have one append at a time:
        the caller waits for *callback*. A failed append leaves nothing in the log, and may be queued again.
        """

    @abstractmethod
    async def read(self, key: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        """Return one page of the events with after < seq <= upto, in order; empty only if there are none.

        A page has at most `page_rows` events, or *rows* if that is less. It ends early when it passes `page_bytes`.
        Raises LogDamaged, StorageUnavailable.
        """

    @abstractmethod
    async def find_message_before(self, key: Key, run_id: str, seq: int) -> tuple[str, str] | None:
        """Return (messageId, content) of the streamed message that the run's event *seq* ends, or None."""

    @abstractmethod
    async def expire(self, before: int, max_bytes: int) -> dict[Key, int]:
        """Drop the events written before *before* (ms since the epoch), then the oldest until *max_bytes* are left.

        Keeps messages, and the events of each unfinished run and all later events of its session. Calls purge().
        Returns the new floor of each session that lost events.
        """

    @abstractmethod
    async def purge(self) -> None:
        """Drop the data that deleted sessions left, in commits of limited size. No reader can see that data."""


class RunStore(ABC):
    """The unfinished runs, and the answers to chats with a clientMsgId."""

    @abstractmethod
    async def list_unfinished_runs(self) -> Sequence[RunRecord]:
        """Return all unfinished runs, in the order in which they were first saved.

        Skips a damaged record, and logs a warning that names it.
        """

    @abstractmethod
    async def find_chat(self, key: Key, principal: str, client_msg_id: str) -> ChatRecord | None:
        """Return the answer to an earlier chat with this clientMsgId, or None."""


class SessionStore(ABC):
    """The sessions, their labels, and their finished messages."""

    @abstractmethod
    async def find(self, key: Key) -> Head | None:
        """Return the head of a session, or None if there is no such session. Raises LogDamaged."""

    @abstractmethod
    async def make(self, key: Key) -> tuple[Head, bool]:
        """Make a session, with a random epoch, if it does not exist. Return its head, and whether it is new."""

    @abstractmethod
    async def list(self, query: SessionQuery, request: PageRequest) -> Page[SessionRow]:
        """Return a page of sessions, sorted by the time of their last messages. Raises BadQuery for a bad cursor.

        The cost depends on the size of the page, not on the number of sessions. If *query* names an agent, it also
        depends on the number of sessions in which that agent did not answer.
        """

    @abstractmethod
    async def find_label(self, key: Key) -> SessionLabel | None:
        """Return the title and the metadata of a session, or None if there is no such session."""

    @abstractmethod
    async def relabel(self, key: Key, changes: Mapping[str, Any]) -> None:
        """Replace `title`, `metadata` or both, as *changes* has them. Does nothing if there is no such session."""

    @abstractmethod
    async def delete(self, key: Key) -> Sequence[FileRecord]:
        """Delete a session and all that belongs to it, in one commit; return the records of its files.

        Only call it while no append to the session is pending. A file that is added later is refused. A session that
        is made later with the same key is a new one. EventStore.purge() frees the space of the events.
        """

    @abstractmethod
    async def read_last_messages(
        self, key: Key, last: int, max_bytes: int, upto: str | None = None
    ) -> Sequence[HistoryMessage]:
        """Return the last *last* finished messages, oldest first.

        Leaves out the oldest of them until the text and the parts have at most *max_bytes*. With *upto*, the id of a
        message, the last one returned is that message; without such a message the result is empty.
        """

    @abstractmethod
    async def read_messages_from(self, key: Key, message_id: str, limit: int) -> Sequence[HistoryMessage]:
        """Return a finished message and those after it, oldest first, *limit* at most; empty without such a message.

        All but the first come without content, parts and metadata.
        """

    @abstractmethod
    async def list_messages(self, key: Key, request: PageRequest) -> Page[HistoryMessage]:
        """Return a page of finished messages, in their order. Raises BadQuery for a bad cursor."""


class FileStore(ABC):
    """The records of files. Their bytes are blobs (see hub.storage.blobs)."""

    @abstractmethod
    async def add(self, file: FileRecord) -> None:
        """Add a record. Records are committed in the order of the calls.

        Raises StorageUnavailable, also if the session does not exist.
        """

    @abstractmethod
    async def find(self, file_id: str) -> FileRecord | None:
        """Return the record of a file, or None."""

    @abstractmethod
    async def sum_bytes_by_session(self, min_bytes: int) -> Mapping[Key, int]:
        """Return the size of the files of each session that has files. A smaller file counts as *min_bytes*."""

    @abstractmethod
    async def find_used_digests(self, digests: Sequence[str]) -> Sequence[str]:
        """Return those of *digests* that a record has."""


class Log(ABC):
    """The four stores of one log. They can be used from start() to close()."""

    def __init__(self, events: EventStore, runs: RunStore, sessions: SessionStore, files: FileStore) -> None:
        self.events, self.runs, self.sessions, self.files = events, runs, sessions, files

    @abstractmethod
    async def start(self, listener: Listener) -> None:
        """Open the log: take its lock, and migrate its schema. Raises LogUnusable."""

    @abstractmethod
    async def close(self) -> None:
        """Commit queued appends, then close the log. Later calls raise StorageUnavailable."""

    @abstractmethod
    def identify(self, home: Path) -> str:
        """Return a name that only this log has, whichever URL opened it.

        The name of a log in the folder *home* stays the same if that folder is moved.
        """

    async def check(self, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        """Return the damage in the log, which may be closed, or open in another process.

        Takes no lock and writes nothing. *blob_size* returns the size of the blob with a digest, or None if there is no
        such blob; it is called in a thread. Raises LogUnusable if there is no such log, or if the driver has no check.
        """
        raise LogUnusable("this log cannot be checked: its driver has no check")

    @abstractmethod
    async def probe(self) -> None:
        """Make a commit that changes nothing. Raises StorageUnavailable, with what to do, if it fails."""

    @property
    @abstractmethod
    def commit_totals(self) -> CommitTotals:
        """The number of commits since start(), and their duration."""


class LogUnusable(Exception):
    """The log cannot be opened; the message says why and what to do."""
