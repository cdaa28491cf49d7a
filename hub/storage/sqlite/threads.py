"""The threads of the embedded log: one thread that writes, and two pools of threads that read."""

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
from hub.storage.sqlite.database import Database, connect_database
from hub.storage.sqlite.plan import WriteRequest, WriteResult
from hub.storage.sqlite.sql import query_json
from hub.storage.sqlite.writer import Writer, open_log_file

# Separate threads read events, so that a client that catches up does not wait for queries of lists and histories.
READER_THREADS, EVENT_READER_THREADS = 2, 2

R = TypeVar("R")

_log = structlog.get_logger("hub.storage.sqlite.log")


class LogThreads:
    """Runs requests in the threads, and returns their results to the event loop that called start()."""

    def __init__(self, path: Path, seams: Seams) -> None:
        self.path = path
        self.writer = Writer(
            database=Database(path), seams=seams, deliver=lambda results: self._call_in_loop(self._announce, results)
        )
        self._readers = _ReaderPool(writer=self.writer, size=READER_THREADS)
        self._event_readers = _ReaderPool(writer=self.writer, size=EVENT_READER_THREADS)
        self._is_open = False
        self._writer_end: asyncio.Future[None] | None = None  # its result is set when the writer thread ends

    async def start(self, listener: Listener) -> None:
        """Open the file, and take its lock. Raises LogUnusable."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._writer_end = self._loop.create_future()
        start_result: asyncio.Future[None] = self._loop.create_future()
        # A daemon thread: the process may end without close(), and loses no commit.
        threading.Thread(target=self._run_writer, args=(start_result,), name="hub-log-writer", daemon=True).start()
        try:
            await start_result
        except LogUnusable:
            await self._writer_end  # then the thread calls no more functions in this loop
            raise
        self._is_open = True

    async def close(self) -> None:
        """Commit queued requests, then end the threads. Later requests fail with StorageUnavailable."""
        if self._is_open:
            self._is_open = False
            self.writer.requests.put(None)
        if self._writer_end is not None:
            await asyncio.shield(self._writer_end)

    def enqueue(self, request: WriteRequest, callback: AppendCallback) -> None:
        """Queue a request for the writer. *callback* is called in the loop, with the result or an exception."""
        if self._is_open:
            self.writer.requests.put((request, callback))
        else:
            self._loop.call_soon(
                callback, StorageUnavailable("the log is closed, as the hub is going down: try again in a moment")
            )

    async def submit(self, request: WriteRequest) -> Any:
        """Queue a request for the writer, and return its result. Raises StorageUnavailable."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def callback(result: Any) -> None:
            if future.done():
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.enqueue(request, callback)
        return await future

    async def query_json(self, statement: str, values: Any) -> Any:
        """Return the one JSON value of a query, or None if there is no row. Raises LogDamaged, StorageUnavailable."""
        return await self.read(query_json, statement, values)

    async def read(self, function: Callable[..., R], *values: Any) -> R:
        """Call *function* in a thread, with a connection and *values*. Raises LogDamaged, StorageUnavailable."""
        return await self._read(self._readers, function, values)

    async def read_events(self, function: Callable[..., R], *values: Any) -> R:
        """Call *function* as read() does, but in a thread that only reads events."""
        return await self._read(self._event_readers, function, values)

    async def _read(self, readers: "_ReaderPool", function: Callable[..., R], values: tuple[Any, ...]) -> R:
        if not self._is_open:
            raise StorageUnavailable("the log is closed, as the hub is going down: try again in a moment")
        return await self._loop.run_in_executor(readers.executor, readers.read, function, values)

    def _call_in_loop(self, function: Callable[..., None], *values: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:  # the loop is closed, so no task waits for the result
            _log.warning("log_without_loop", path=str(self.path))

    def _announce(self, results: list[WriteResult]) -> None:
        """For each result: pass the events of the append to the listener, then call the callback."""
        for callback, result, append in results:
            try:
                if append is not None and append.events:
                    self._listener(append.key, append.events)
            except Exception:
                _log.exception("log_listener", session=append and append.key)
            try:
                callback(result)
            except Exception:
                _log.exception("log_done", session=append and append.key)

    def _run_writer(self, start_result: "asyncio.Future[None]") -> None:
        """Open the file, run the writer until close(), and close all connections. The writer thread runs this."""
        with ExitStack() as undo:
            try:
                open_log_file(self.writer, undo)
                self._call_in_loop(start_result.set_result, None)
                self.writer.run()
            except LogUnusable as error:
                self._call_in_loop(start_result.set_exception, error)
            for readers in (self._readers, self._event_readers):
                readers.close()  # the writer's connection must close last: the last one makes a checkpoint
        if self._writer_end is not None:
            self._call_in_loop(self._writer_end.set_result, None)


@attrs.define(eq=False, kw_only=True)
class _ReaderPool:
    """Threads that read the writer's file, each with a connection of its own."""

    writer: Writer
    size: int
    executor: ThreadPoolExecutor = attrs.field(init=False)
    _thread: threading.local = attrs.Factory(threading.local)
    _connections: set[sqlite3.Connection] = attrs.Factory(set)

    def __attrs_post_init__(self) -> None:
        self.executor = ThreadPoolExecutor(self.size, "hub-log-reader")

    def read(self, function: Callable[..., R], values: tuple[Any, ...]) -> R:
        """Call *function* with this thread's connection. After an error, the thread's next call opens a new connection.

        Raises LogDamaged, StorageUnavailable.
        """
        thread = self._thread
        try:
            if getattr(thread, "db", None) is None:
                self.writer.database.file.check()  # connect_database() would make a missing file, or open a wrong one
                thread.db = connect_database(self.writer.database.path)
                self._connections.add(thread.db)
                thread.db.execute("PRAGMA query_only = 1")
            return function(thread.db, *values)
        except sqlite3.Error as error:
            broken_connection, thread.db = getattr(thread, "db", None), None
            if broken_connection is not None:
                self._connections.discard(broken_connection)
                broken_connection.close()
            kind = LogDamaged if "malformed" in str(error) else StorageUnavailable
            raise kind(f"the log cannot be read now ({error})") from error

    def close(self) -> None:
        """End the threads, and close their connections."""
        self.executor.shutdown()
        for connection in self._connections:
            connection.close()
