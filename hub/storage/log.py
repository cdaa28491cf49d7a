"""The contract of a log, which numbers and stores events, and announces them to its listener.

A log consists of five stores, whose writes share commits. A driver implements the log for one scheme of a URL (see
hub.storage.open_log); the tests of the contract run on all drivers (see tests/support/logs.py).

The methods name a session by its key (see hub.ids), but the events that they return have only the session's id. The ids
of runs, messages, files and questions are unique in the hub. All methods are called in the event loop that called
start(). No method blocks the loop.

A method of a store raises StorageUnavailable if the log cannot be read or written now, and LogDamaged, a subclass, if
what it reads is damaged. append() passes the error to its callback.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hub.ids import Key
from hub.messages import Event, HistoryMessage, Page, PageRequest, Request
from hub.storage.access_store import AccessStore
from hub.storage.archive import LogArchive
from hub.storage.records import (
    Append,
    AuthoredMessage,
    ChatRecord,
    CommitTotals,
    Damage,
    ErasureResult,
    FileRecord,
    Head,
    MessageExpiry,
    RunRecord,
    SessionLabel,
    SessionQuery,
    SessionRow,
)

EVERYONE = frozenset({"*"})  # the readers of a list of all sessions
ERASED = "[erased]"  # the content of an erased message
MAX_TOOL_MESSAGES = 1000  # of a result of SessionStore.read_tool_messages()

# Called in the loop, in the order of commits, once for each append with events, after the events are on disk.
Listener = Callable[[Key, Sequence[Event]], None]
# Called in the loop, after the listener, with the seq of the append's first event, or with StorageUnavailable. If
# the append has no events, the seq is that of the session's next event.
AppendCallback = Callable[[int | Exception], None]


class EventStore(ABC):
    """The events of sessions. The log passes each event to the listener once, after its commit, in the order of seq."""

    @abstractmethod
    def append(self, append: Append, callback: AppendCallback, /) -> None:
        """Queue an append: the log numbers its events and commits it, together with other queued appends.

        The first append to a session makes the session, with a random epoch. Only one append to a session may be
        queued at a time: wait for *callback*. A failed append stores nothing, and may be queued again.
        """

    @abstractmethod
    async def read(self, key: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        """Return one page of the events with after < seq <= upto, in order; empty only if there are no such events.

        A page has at most `page_rows` events, and at most *rows* events if *rows* is not None. The event that reaches
        `page_bytes` is the last one of its page. Raises LogDamaged, StorageUnavailable.
        """

    @abstractmethod
    async def find_message_before(self, key: Key, run_id: str, seq: int) -> tuple[str, str] | None:
        """Return (messageId, content) of the message that the run streamed directly before the event *seq*.

        Returns None if the run's last event before *seq* is not a chunk. Raises LogDamaged, StorageUnavailable.
        """

    @abstractmethod
    async def expire(self, before: int, max_bytes: int) -> dict[Key, int]:
        """Delete the events written before *before* (ms), then the oldest events until the log has *max_bytes*.

        Messages are not deleted. If a session has an unfinished run, the events of the run and all later events of the
        session are not deleted. Calls purge(). Returns the new floor of each session that lost events.
        """

    @abstractmethod
    async def purge(self, thoroughly: bool = False) -> None:
        """Free the space of the events of deleted sessions, in commits of limited size. No reader sees these events.

        With *thoroughly*, no file of the log contains data of deleted sessions afterwards. As long as another process
        reads the log, only the write-ahead log may contain such data; the hub empties it when that process has ended.
        """


class RunStore(ABC):
    """The unfinished runs, and the records of chats with a clientMsgId."""

    @abstractmethod
    async def list_unfinished_runs(self) -> Sequence[RunRecord]:
        """Return all unfinished runs, in the order in which they were first saved.

        Skips a damaged record, and logs a warning that names the run.
        """

    @abstractmethod
    async def find_chat(self, key: Key, principal: str, client_msg_id: str) -> ChatRecord | None:
        """Return the record of an earlier chat with this clientMsgId, or None."""


class SessionStore(ABC):
    """The sessions, their labels, and their finished messages."""

    @abstractmethod
    async def find(self, key: Key) -> Head | None:
        """Return the head of a session, or None if there is no such session.

        Raises LogDamaged if the latest events of the session are damaged.
        """

    @abstractmethod
    async def make(self, key: Key, owner: str = "") -> tuple[Head, bool]:
        """Make a session, with a random epoch, if it does not exist. Return its head, and whether it is new.

        If it is new and *owner* is not empty, the principal *owner* gets the grant `owner`.
        """

    @abstractmethod
    async def list(self, query: SessionQuery, request: PageRequest) -> Page[SessionRow]:
        """Return a page of sessions, sorted by the time of their last messages. Raises BadQuery for a bad cursor.

        The cost depends on the size of the page, not on the number of sessions. With an agent in *query*, the cost also
        depends on the number of sessions in which that agent did not answer. With readers other than EVERYONE, the cost
        depends on the number of their grants instead.
        """

    @abstractmethod
    async def find_label(self, key: Key) -> SessionLabel | None:
        """Return the title and the metadata of a session, or None if there is no such session."""

    @abstractmethod
    async def relabel(self, key: Key, changes: Mapping[str, Any]) -> None:
        """Set the values in *changes*: `title`, `metadata` or both; None removes a value.

        Does nothing if there is no such session.
        """

    @abstractmethod
    async def delete(self, key: Key) -> Sequence[FileRecord]:
        """Delete a session with its events, messages, runs, chats, files, grants and invites, in one commit.

        Returns the records of the files. Do not call delete() while an append to the session is queued. FileStore.add()
        refuses later files, unless a new session with the same key is made. EventStore.purge() frees the space of the
        events.
        """

    @abstractmethod
    async def erase_messages(self, key: Key, principal_id: str) -> ErasureResult:
        """Erase what a principal wrote in a session, in one commit, and give the session a new random epoch.

        The principal's messages, in the history, in events and in unfinished runs, get the content ERASED. They lose
        their parts, metadata, requests and the author's name, and keep ids and seqs. The payloads of its answers to
        questions become ERASED, too. Its chats get an empty digest. Deletes the files whose ids were in these messages,
        unless a message of another user has the id, too. If there is nothing to erase, nothing changes.

        Afterwards no file of the log contains the old text, as after a thorough EventStore.purge(). Do not call
        erase_messages() while an append to the session is queued.
        """

    @abstractmethod
    async def expire_messages(self, before: int, max_bytes: int | None) -> MessageExpiry:
        """Delete the messages older than *before* (ms). Then delete the oldest ones until all have *max_bytes*.

        None is no limit. A session with an unfinished run loses nothing, and the message stays that the oldest
        remaining one answers. In commits of limited size.
        """

    @abstractmethod
    async def list_idle_sessions(self, before: int) -> Sequence[Head]:
        """Return the heads of sessions without messages, files and runs, to which nothing was written since *before*.

        The heads may lack the latest events: call EventStore.expire() first, and compare them with later heads.
        """

    @abstractmethod
    async def list_keys_of_author(self, principal_id: str) -> Sequence[Key]:
        """Return the sessions in which erase_messages() may find something of a principal. Reads the whole log."""

    @abstractmethod
    async def read_messages_of_author(
        self, principal_id: str, after: int, limit: int, max_bytes: int
    ) -> tuple[Sequence[AuthoredMessage], int | None]:
        """Return a page of the messages that a principal wrote and of the answers to them, in the order of commits.

        *after* is 0 for the first page. The second value is *after* for the next page, or None on the last page. A page
        has at most *limit* messages; the message that reaches *max_bytes* is the last one. A page may be empty, because
        it searches a limited part of the log.
        """

    @abstractmethod
    async def read_last_messages(
        self, key: Key, last: int, max_bytes: int, upto: str | None = None
    ) -> Sequence[HistoryMessage]:
        """Return the last *last* finished messages, oldest first.

        The oldest of them are left out until the texts and the parts together have at most *max_bytes*. *upto* is the
        id of the last message to return, or None for the latest. The result is empty if no message has this id.
        """

    @abstractmethod
    async def read_messages_from(self, key: Key, message_id: str, limit: int) -> Sequence[HistoryMessage]:
        """Return a finished message and the messages after it, oldest first, at most *limit* in all.

        Only the first message has its content, parts and metadata. The result is empty if there is no such message.
        """

    @abstractmethod
    async def find_request(self, key: Key, message_id: str) -> Request | None:
        """Return the request of a user's message, or None if it has none, or if there is no such message."""

    @abstractmethod
    async def read_tool_messages(self, key: Key, call_ids: Collection[str]) -> Sequence[HistoryMessage]:
        """Return the messages with parts that are about one of these tool calls, oldest first, without their texts.

        Of more than MAX_TOOL_MESSAGES messages, only the newest are returned.
        """

    @abstractmethod
    async def list_messages(self, key: Key, request: PageRequest) -> Page[HistoryMessage]:
        """Return a page of finished messages, sorted by seq. Raises BadQuery for a bad cursor."""


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
    async def find_in_session(self, key: Key, file_ids: Collection[str]) -> Sequence[FileRecord]:
        """Return the records of those files of a session that have one of these ids."""

    @abstractmethod
    async def list(self, key: Key, request: PageRequest) -> Page[FileRecord]:
        """Return a page of the files of a session, sorted by the time of their commits and by their ids.

        Raises BadQuery for a bad cursor.
        """

    @abstractmethod
    async def delete(self, file_id: str) -> FileRecord | None:
        """Delete the record of a file. Return the record, or None if there was none."""

    @abstractmethod
    async def sum_bytes_by_session(self, min_bytes: int) -> Mapping[Key, int]:
        """Return the total size of the files of each session that has files. A file counts as at least *min_bytes*."""

    @abstractmethod
    async def find_used_digests(self, digests: Sequence[str]) -> Sequence[str]:
        """Return those of *digests* that at least one record has."""

    @abstractmethod
    async def expire_files(self, before: int, after: str) -> tuple[Sequence[FileRecord], str | None]:
        """Delete records of files older than *before* (ms) that no message of their session names; return them.

        A call looks at a limited number of files. *after* is empty in the first call; the second value is *after* for
        the next call, or None after the last file. The files of a session with an unfinished run stay.
        """

    @abstractmethod
    async def list_files_of_author(self, principal_id: str) -> Sequence[FileRecord]:
        """Return the files in the sessions in which a principal has the grant `owner`, and those its messages name.

        Reads the whole log. The files are sorted by session.
        """


class Log(ABC):
    """The five stores of one log. Use them only between start() and close()."""

    def __init__(
        self, events: EventStore, runs: RunStore, sessions: SessionStore, files: FileStore, access: AccessStore
    ) -> None:
        self.events, self.runs, self.sessions, self.files, self.access = events, runs, sessions, files, access

    @abstractmethod
    async def start(self, listener: Listener) -> None:
        """Open the log: take its lock, and migrate its schema. Raises LogUnusable."""

    @abstractmethod
    async def close(self) -> None:
        """Commit queued appends, then close the log. Later calls raise StorageUnavailable."""

    @abstractmethod
    def identify(self, home: Path) -> str:
        """Return a name that no other log has. All URLs that open this log give the same name.

        The name of a log inside the folder *home* does not change if *home* is moved.
        """

    async def check(self, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        """Return the damage in the log. The log need not be started, and may be open in another process.

        The check takes no lock and writes nothing. It calls *blob_size*, which is Files.blob_size(), in a thread.
        Raises LogUnusable if the log does not exist or cannot be read, or if the driver has no check.
        """
        raise LogUnusable("this log cannot be checked: its driver has no check")

    def open_archive(self) -> LogArchive:
        """Return the archive of the log, for backups. Raises LogUnusable if the driver has none."""
        raise LogUnusable("this log cannot be backed up: its driver has no archive")

    def list_risks(self) -> Sequence[str]:
        """Return one line for each risk of the software of this driver here, such as a library with an error.

        The log need not be started.
        """
        return ()

    @abstractmethod
    async def probe(self) -> None:
        """Make a commit that changes nothing. Raises StorageUnavailable, with advice, if the log cannot be written."""

    @property
    @abstractmethod
    def commit_totals(self) -> CommitTotals:
        """The number of commits since start(), and the sum of their durations."""


class LogUnusable(Exception):
    """The log cannot be opened; the message says why and what to do."""


class LogInUse(LogUnusable):
    """Another process has the lock. *pid* is its process id, or `unknown`."""

    def __init__(self, path: Path, pid: str) -> None:
        super().__init__(f"{path} is in use by another hub (pid {pid}): stop it, or choose another --data")
        self.pid = pid
