"""The threads of the embedded log, as its stores use them: one that writes, some that read."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import attrs
import structlog

from hub.errors import LogDamaged, StorageUnavailable
from hub.seams import Seams
from hub.storage.log import AppendCallback, Listener, LogUnusable
from hub.storage.sqlite import statements as sql
from hub.storage.sqlite.plan import Outcome, Work
from hub.storage.sqlite.writer import Writer, connect, open_file

# Reading events has threads of its own: who catches up must not wait for lists and histories.
READERS, EVENT_READERS = 2, 2

Found = TypeVar("Found")

_log = structlog.get_logger("hub.storage.sqlite.log")


class Threads:
    """Hands work to the threads, and what comes of it back to the loop. *path* is the file."""

    def __init__(self, path: Path, seams: Seams) -> None:
        self.path = path
        self.writer = Writer(path=path, seams=seams, deliver=lambda outcomes: self._call(self._announce, outcomes))
        self._readers = _Readers(writer=self.writer, count=READERS)
        self._event_readers = _Readers(writer=self.writer, count=EVENT_READERS)
        self._open = False
        self._closed: asyncio.Future[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Open the file, which takes the lock; raises LogUnusable."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        started: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a process that dies without close() loses nothing.
        threading.Thread(target=self._work, args=(started,), name="hub-log-writer", daemon=True).start()
        try:
            await started
        except LogUnusable:
            await self._closed  # the thread's last word needs this loop
            raise
        self._open = True

    async def close(self) -> None:
        """Finish what is queued, then end the threads."""
        if self._open:
            self._open = False
            self.writer.jobs.put(None)
        if self._closed is not None:
            await asyncio.shield(self._closed)

    def give(self, work: Work, done: AppendCallback) -> None:
        """Let the writer do *work*, and call *done* with what came of it."""
        if self._open:
            self.writer.jobs.put((work, done))
        else:
            self._loop.call_soon(done, StorageUnavailable("the log is not open: the hub is going down"))

    async def submit(self, work: Work) -> Any:
        """Let the writer do *work*; return what came of it, or raise it."""
        answer: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any) -> None:
            if answer.done():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        self.give(work, done)
        return await answer

    async def ask(self, statement: str, values: Any) -> Any:
        """Return the one JSON value that a statement finds, or None; raises LogDamaged, StorageUnavailable."""
        return await self.read(sql.one, statement, values)

    async def read(self, read: Callable[..., Found], *values: Any) -> Found:
        """Call *read* with a connection and *values* in a thread; raises LogDamaged, StorageUnavailable."""
        return await self._read(self._readers, read, values)

    async def read_events(self, read: Callable[..., Found], *values: Any) -> Found:
        """Do as read() does, in a thread that reads events alone."""
        return await self._read(self._event_readers, read, values)

    async def _read(self, readers: "_Readers", read: Callable[..., Found], values: tuple[Any, ...]) -> Found:
        if not self._open:
            raise StorageUnavailable("the log is not open: the hub is going down")
        return await self._loop.run_in_executor(readers.pool, readers.query, read, values)

    def _call(self, function: Callable[..., None], *values: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:  # the loop is gone, and with it everyone who waited
            _log.warning("log_without_loop", path=str(self.path))

    def _announce(self, outcomes: list[Outcome]) -> None:
        for session, events, done, answer in outcomes:
            try:
                if events:
                    self._listener(session, events)
            except Exception:
                _log.exception("log_listener", session=session)
            try:
                done(answer)
            except Exception:
                _log.exception("log_done", session=session)

    def _work(self, started: "asyncio.Future[None]") -> None:
        with ExitStack() as undo:
            try:
                open_file(self.writer, undo)
                self._call(started.set_result, None)
                self.writer.work()
            except LogUnusable as error:
                self._call(started.set_exception, error)
            for readers in (self._readers, self._event_readers):
                readers.close()  # before the writer's connection, which as the last one checkpoints
        if self._closed is not None:
            self._call(self._closed.set_result, None)


@attrs.define(eq=False, kw_only=True)
class _Readers:
    """Some threads that read, each with a connection of its own, to the file that *writer* has open."""

    writer: Writer
    count: int
    pool: ThreadPoolExecutor = attrs.field(init=False)
    _own: threading.local = attrs.Factory(threading.local)
    _connections: set[sqlite3.Connection] = attrs.Factory(set)

    def __attrs_post_init__(self) -> None:
        self.pool = ThreadPoolExecutor(self.count, "hub-log-reader")

    def query(self, read: Callable[..., Found], values: tuple[Any, ...]) -> Found:
        own = self._own
        try:
            if getattr(own, "db", None) is None:
                self.writer.file.check()  # connect() would make a new file, or read another one
                own.db = connect(self.writer.path)
                self._connections.add(own.db)
                own.db.execute("PRAGMA query_only = 1")
            return read(own.db, *values)
        except sqlite3.Error as error:
            broken, own.db = getattr(own, "db", None), None
            if broken is not None:
                self._connections.discard(broken)
                broken.close()
            kind = LogDamaged if "malformed" in str(error) else StorageUnavailable
            raise kind(f"the log cannot be read now ({error})") from error

    def close(self) -> None:
        """End the threads, and close what they had open."""
        self.pool.shutdown()
        for connection in self._connections:
            connection.close()
