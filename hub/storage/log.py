"""The contract of a log: where events are numbered and kept, and from where they are heard.

One driver per file, named by its URL's scheme. All drivers run tests/storage/test_log_contract.py. Other packages add
theirs by entry points of the group `hubbub.logs`.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs
from msgspec import Struct

from hub.limits import MiB
from hub.messages import Author, Event
from hub.messages.parts import Plain
from hub.plugins import PluginError, find_plugins, load_class

HISTORY_BYTES = 1 * MiB


@attrs.frozen
class Head:
    """Where a session stands: *seq* is its last number, and what is numbered *floor* or lower is no longer kept."""

    sessionId: str
    epoch: str
    seq: int
    floor: int


@attrs.frozen
class Message:
    """A finished text in a session's history; *seq* is the event that finished it.

    *userMessageId* is the message that an agent's message answers.
    """

    messageId: str
    role: Literal["user", "assistant"]
    content: str
    agentId: str | None
    runId: str | None
    author: Author | None
    seq: int = 0
    ts: int = 0
    parts: Plain | None = None
    metadata: dict[str, Any] | None = None
    userMessageId: str | None = None


@attrs.frozen
class Listed:
    """A session as a list shows it: its messages are counted, and *ts* is the last one's; 0 where there is none."""

    sessionId: str
    epoch: str
    messages: int
    ts: int
    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class Label:
    """What people and programs call a session, beside its id."""

    title: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class Figures:
    """What the log has done since it was opened: its commits, and how long they took together."""

    commits: int
    seconds: float


class RunRecord(Struct, frozen=True):
    """What a run needs to start, or to be ended, after the process that began it is gone.

    *after* is a seq below the run's first event. *wide* says that it waits for every run of its session, not only for
    those of its agent.
    """

    runId: str
    sessionId: str
    agentId: str
    state: Literal["queued", "started"]
    messageId: str
    userMessageId: str
    message: str
    author: Author
    after: int
    attempt: int = 1
    wide: bool = False
    parts: Plain | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen
class KeptChat:
    """The answer that a chat with a clientMsgId got, and a digest of what it said."""

    principal: str
    clientMsgId: str
    digest: str
    messageId: str
    runId: str
    seq: int = 0


@attrs.frozen
class File:
    """What a file is; its bytes lie elsewhere, by their *digest* (SHA-256 in hex). *created* is the log's time (ms)."""

    fileId: str
    sessionId: str
    name: str
    type: str
    size: int
    digest: str
    created: int = 0


class Append(Struct):
    """What is written in one commit, whole or not at all.

    The log numbers *events* in place. Each of *messages* comes with the index of the event whose seq it gets. *saved*
    run records are inserted or replaced; *ended* ones are forgotten. *chats* get the seq of the event at their index.
    *removed* are ids of messages that leave the history, after *messages* have entered it.
    """

    sessionId: str
    events: Sequence[Event]
    messages: Sequence[tuple[int, Message]] = ()
    saved: Sequence[RunRecord] = ()
    ended: Sequence[str] = ()
    chats: Sequence[tuple[int, KeptChat]] = ()
    removed: Sequence[str] = ()


# Called in the loop, once per append, in commit order, with events that are safely kept.
Listener = Callable[[str, Sequence[Event]], None]
# Called in the loop after the listener: with the seq of the append's first event, or with StorageUnavailable.
Done = Callable[[int | Exception], None]


class Log(ABC):
    """Numbers, keeps and announces events.

    All methods are called from the loop that called start(); none blocks it. Events of a session are announced in
    the order of their seq, each exactly once, after they are durable.
    """

    @abstractmethod
    async def start(self, listener: Listener) -> None:
        """Open the log, bring its schema up to date, take its lock; raises LogUnusable with a line for the operator."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is queued, then let go of everything. Appends afterwards are refused."""

    @abstractmethod
    def identity(self, home: Path) -> str:
        """Return what no other log is called, however it was opened; one inside the folder *home* may move with it."""

    @abstractmethod
    async def load(self, session_id: str) -> Head:
        """Return where the session stands, making it, with a random epoch, where there is none."""

    @abstractmethod
    async def find(self, session_id: str) -> Head | None:
        """Return where the session stands, or None."""

    @abstractmethod
    def append(self, append: Append, done: Done) -> None:
        """Number and keep the events in one commit, shared with whatever else waits.

        The session must have been loaded. One append at a time per session: the caller waits for *done*. After a
        failure nothing of the append is kept, and the same append may be given again.
        """

    @abstractmethod
    async def read(self, session_id: str, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        """Return events with after < seq <= upto in order: at least one where there is one, at most one page.

        *rows* makes the page shorter; where a page is long its last rows may be missing for their bytes.
        """

    @abstractmethod
    async def message_before(self, session_id: str, run_id: str, seq: int) -> tuple[str, str] | None:
        """Return (messageId, content) of the streamed message that the run's event *seq* ends, or None."""

    @abstractmethod
    async def messages(
        self, session_id: str, last: int, upto: str | None = None, most: int = HISTORY_BYTES
    ) -> Sequence[Message]:
        """Return the last so many finished messages, oldest first, at most *most* bytes of text and parts (the newest
        win); where *upto* names one, that and those before it, and none where there is none of that id.
        """

    @abstractmethod
    async def trail(self, session_id: str, message_id: str, most: int) -> Sequence[Message]:
        """Return a finished message and all after it, oldest first, *most* in all; none where it is not there.

        Those after it come without what they say.
        """

    @abstractmethod
    async def sessions(
        self, skip: int, size: int, agent: str | None, since: int, until: int
    ) -> tuple[int, Sequence[Listed]]:
        """Return how many sessions there are, and *size* of them after the newest *skip*.

        Only those in which *agent* answered (None: any), and whose last message is of *since* <= ts < *until* (ms).
        """

    @abstractmethod
    async def label(self, session_id: str) -> Label | None:
        """Return the title and the metadata of a session, or None where there is no session."""

    @abstractmethod
    async def relabel(self, session_id: str, changes: Mapping[str, Any]) -> None:
        """Replace those of `title` and `metadata` that *changes* has; nothing where there is no session."""

    @abstractmethod
    async def delete(self, session_id: str) -> Sequence[File]:
        """Let all of a session be gone, in one commit: after it, and after a crash, it is whole or not there.

        Returns the files that it had; one that is given later is refused. No append to it may be under way. A session
        that is loaded under the id afterwards is a new one. What it took is given back by purge().
        """

    @abstractmethod
    async def purge(self) -> None:
        """Drop, in bounded pieces, what deleted sessions left behind; nobody can read it any more."""

    @abstractmethod
    async def history(self, session_id: str, skip: int, size: int) -> tuple[int, Sequence[Message]]:
        """Return how many finished messages there are, and *size* of them after the oldest *skip*."""

    @abstractmethod
    async def chat(self, session_id: str, principal: str, client_msg_id: str) -> KeptChat | None:
        """Return what was answered to this clientMsgId before, or None."""

    @abstractmethod
    async def keep_file(self, file: File) -> None:
        """Keep what a file is; the order of calls is the order in the log. The session must have been loaded."""

    @abstractmethod
    async def file(self, file_id: str) -> File | None:
        """Return what a file is, or None."""

    @abstractmethod
    async def file_bytes(self, least: int) -> Mapping[str, int]:
        """Return what the files of each session take that has any; a file counts *least* bytes or more."""

    @abstractmethod
    async def named(self, digests: Sequence[str]) -> Sequence[str]:
        """Return those of *digests* that some file has."""

    @abstractmethod
    async def unfinished(self) -> Sequence[RunRecord]:
        """Return every run that has not ended, in the order in which they were first saved."""

    @abstractmethod
    async def expire(self, before: int, max_bytes: int) -> dict[str, int]:
        """Drop old events of sessions: those written before *before* (ms since the epoch), then the oldest while the
        events take more than *max_bytes*. Never drops anything of an unfinished run or after it. Messages stay.

        Returns the new floor of each session that lost something. Purges, too.
        """

    @abstractmethod
    def figures(self) -> Figures:
        """Return what it has done so far."""


class LogUnusable(Exception):
    """The log cannot be opened; the message says why and what to do."""


def open_log(url: str) -> Log:
    """Return the driver for *url*, not started yet; raises LogUnusable for a scheme that has none."""
    scheme = urlsplit(url).scheme
    plugins = find_plugins("hubbub.logs", frozenset(DRIVERS))
    driver: Callable[[str], Log]
    if scheme in plugins:
        try:
            driver = load_class(plugins[scheme], Log)
        except PluginError as error:
            raise LogUnusable(str(error)) from None
    elif scheme in DRIVERS:
        module, name = DRIVERS[scheme]
        driver = getattr(importlib.import_module(module), name)
    else:
        names = ", ".join(f"{name}://" for name in [*DRIVERS, *plugins])
        raise LogUnusable(f"no log speaks {url!r}: use one of {names}")
    return driver(url)


DRIVERS = {"sqlite": ("hub.storage.sqlite.log", "SqliteLog")}
