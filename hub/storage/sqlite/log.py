"""The embedded log: one SQLite file, one thread that writes it, a few that read.

`sqlite:///relative/path.db` or `sqlite:////absolute/path.db`. Everything in the file is readable by plain SQL; the
history is the table `messages`. A lock file beside it keeps a second process away (by flock; where a platform has no
fcntl, as Windows, nothing does).

Python's sqlite3 gives the GIL away at each step of a statement, and beside a busy loop getting it back takes up to the
switch interval, 5 ms. So what is here takes few steps: the events of a commit are one row, all other rows of a table go
in by one statement, whose number of rows is rounded up a little (the filler is NULL and filtered) and which therefore
stays prepared, and a page is read as one row. Measured beside a loop that never rests: a commit of 100 rows took 465 ms
with executemany, 36 ms as power-of-two pieces between BEGIN and COMMIT, 8 ms as one padded statement that is its own
transaction. Binding a JSON array for json_each is as fast, but SQLite's versions differ on NUL in JSON.
"""

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import orjson
import structlog

from hub.errors import LogDamaged, StorageUnavailable
from hub.ids import Key
from hub.limits import Limits
from hub.messages import Event, Message
from hub.seams import Seams
from hub.storage.log import Done, Listener, Log, LogUnusable
from hub.storage.records import Append, Damage, Figures, File, Head, KeptChat, Label, RunRecord, SessionRow
from hub.storage.sqlite import statements as sql
from hub.storage.sqlite import strips
from hub.storage.sqlite.checking import check
from hub.storage.sqlite.plan import Cut, Delete, Outcome, Relabel, Work, to_messages, to_pieces
from hub.storage.sqlite.writer import Writer, connect, open_file

READERS = 3
# A thread that waits for the GIL asks for it only when nobody let go of it for this long. A busy loop lets go at each
# poll, for a moment too short to take it: with Python's 5 ms and turns of 2 ms one commit waited for 14 s; with 0.5 ms
# and turns of 0.3 ms the slowest in a hundred still for 1.2 s.
SWITCH_SECONDS = 0.0001

Found = TypeVar("Found")

_record = msgspec.json.Decoder(RunRecord).decode

_log = structlog.get_logger("hub.storage.sqlite.log")


class SqliteLog(Log):
    """The log in one SQLite file, for one process.

    *commits* counts the transactions so far: what a fsync was paid for.
    """

    def __init__(self, url: str, limits: Limits, seams: Seams) -> None:
        path = url.removeprefix("sqlite:///")
        if path in (url, "", ":memory:"):
            raise LogUnusable(f"{url!r} names no file: write sqlite:///relative/hub.db or sqlite:////absolute/hub.db")
        self._path = Path(path).absolute()
        self._limits = limits
        self._writer = Writer(self._path, seams, lambda outcomes: self._call(self._announce, outcomes))
        self._readers = ThreadPoolExecutor(READERS, "hub-log-reader")
        self._reader = threading.local()
        self._connections: set[sqlite3.Connection] = set()
        self._open = False
        self._closed: asyncio.Future[None] | None = None

    @property
    def commits(self) -> int:
        return self._writer.commits

    async def start(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
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
        if self._open:
            self._open = False
            self._writer.jobs.put(None)
        if self._closed is not None:
            await asyncio.shield(self._closed)

    def identity(self, home: Path) -> str:
        path, home = self._path.resolve(), home.resolve()
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    async def load(self, key: Key) -> Head:
        return cast(Head, await self._submit(key))

    async def find(self, key: Key) -> Head | None:
        found = await self._read(strips.heads, [key])
        return Head(*found[0]) if found else None

    def append(self, append: Append, done: Done) -> None:
        self._give(append, done)

    async def read(self, key: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        limits = self._limits
        rows = min(rows or limits.page_rows, limits.page_rows)
        return await self._read(strips.page, key, after, upto, rows, limits.page_bytes)

    async def message_before(self, key: Key, run_id: str, seq: int) -> tuple[str, str] | None:
        return await self._read(strips.message_before, key, run_id, seq)

    async def messages(self, key: Key, last: int, most: int, upto: str | None = None) -> Sequence[Message]:
        asked = {"session": key, "last": last, "upto": upto, "bytes": most}
        return to_messages(await self._ask(sql.HISTORY, asked))

    async def trail(self, key: Key, message_id: str, most: int) -> Sequence[Message]:
        asked = {"session": key, "message": message_id, "most": most}
        return to_messages(await self._ask(sql.TRAIL, asked))

    async def sessions(
        self, prefix: str, readers: Collection[str], skip: int, size: int, agent: str | None, since: int, until: int
    ) -> tuple[int, Sequence[SessionRow]]:
        asked = {"prefix": prefix, "readers": orjson.dumps([*readers]).decode(), "skip": skip, "size": size}
        asked |= {"agent": agent, "since": since, "until": until}
        total, rows = await self._ask(sql.SESSIONS, asked)
        return total, [SessionRow(name, epoch, count, ts, *_label(label)) for name, epoch, count, ts, *label in rows]

    async def label(self, key: Key) -> Label | None:
        found = await self._ask(sql.LABEL, {"session": key})
        return None if found is None else Label(*_label(found))

    async def relabel(self, key: Key, changes: Mapping[str, Any]) -> None:
        written = dict(changes)
        if written.get("metadata") is not None:
            written["metadata"] = orjson.dumps(written["metadata"]).decode()
        await self._submit(Relabel(key, written))

    async def delete(self, key: Key) -> Sequence[File]:
        return [File(*row) for row in await self._submit(Delete(key))]

    async def purge(self) -> None:
        await self._drop(await self._ask(sql.DELETED, ()))

    async def history(self, key: Key, skip: int, size: int) -> tuple[int, Sequence[Message]]:
        asked = {"session": key, "skip": skip, "size": size}
        total, rows = await self._ask(sql.HISTORY_PAGE, asked)
        return total, to_messages(rows)

    async def chat(self, key: Key, principal: str, client_msg_id: str) -> KeptChat | None:
        found = await self._ask(sql.CHAT, {"session": key, "principal": principal, "id": client_msg_id})
        return KeptChat(*found) if found else None

    async def keep_file(self, file: File) -> None:
        await self._submit(file)

    async def file(self, file_id: str) -> File | None:
        found = await self._ask(sql.FILE, (file_id,))
        return File(*found) if found else None

    async def file_bytes(self, least: int) -> Mapping[Key, int]:
        return cast(Mapping[Key, int], await self._ask(sql.FILE_BYTES, (least,)))

    async def named(self, digests: Sequence[str]) -> Sequence[str]:
        return cast(Sequence[str], await self._ask(sql.NAMED, (orjson.dumps(digests).decode(),)))

    async def unfinished(self) -> Sequence[RunRecord]:
        found = []
        for session, run, record in await self._read(_rows, sql.UNFINISHED):
            try:
                found.append(_record(record))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                name, key = run.decode(errors="replace"), session.decode(errors="replace")
                _log.warning("log_run_damaged", path=str(self._path), session=key, run=name, reason=str(error))
        return found

    async def expire(self, before: int, max_bytes: int) -> dict[Key, int]:
        await self._submit(Cut(()))  # all that is kept gets its place
        await self.purge()
        floors = await self._drop(await self._ask(sql.OLD, {"before": before}))
        if await self._ask(sql.USED, ()) > max_bytes:
            floors |= await self._drop(await self._ask(sql.LARGE, {"bytes": max_bytes}))
        return floors

    async def check(self, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        return await asyncio.to_thread(check, self._path, blob_size)

    def figures(self) -> Figures:
        return Figures(self._writer.commits, self._writer.seconds)

    async def _drop(self, doomed: list[tuple[Key, str, int, int]]) -> dict[Key, int]:
        before = {session: floor for session, _, floor, _ in doomed}
        floors: dict[Key, int] = {}
        for pieces in to_pieces(doomed):
            floors |= await self._submit(Cut(pieces))
        return {session: floor for session, floor in floors.items() if floor > before[session]}

    def _give(self, work: Work, done: Done) -> None:
        if self._open:
            self._writer.jobs.put((work, done))
        else:
            self._loop.call_soon(done, StorageUnavailable("the log is not open: the hub is going down"))

    async def _submit(self, work: Work) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any) -> None:
            if answer.done():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        self._give(work, done)
        return await answer

    async def _ask(self, statement: str, values: Any) -> Any:
        return await self._read(sql.one, statement, values)

    async def _read(self, read: Callable[..., Found], *asked: Any) -> Found:
        if not self._open:
            raise StorageUnavailable("the log is not open: the hub is going down")
        return await self._loop.run_in_executor(self._readers, self._query, read, asked)

    def _query(self, read: Callable[..., Found], asked: tuple[Any, ...]) -> Found:
        try:
            if getattr(self._reader, "db", None) is None:
                self._reader.db = connect(self._path)
                self._connections.add(self._reader.db)
                self._reader.db.execute("PRAGMA query_only = 1")
            return read(self._reader.db, *asked)
        except sqlite3.Error as error:
            broken, self._reader.db = getattr(self._reader, "db", None), None
            if broken is not None:
                self._connections.discard(broken)
                broken.close()
            kind = LogDamaged if "malformed" in str(error) else StorageUnavailable
            raise kind(f"the log cannot be read now ({error})") from error

    def _call(self, function: Callable[..., None], *values: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:  # the loop is gone, and with it everyone who waited
            _log.warning("log_without_loop", path=str(self._path))

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
                open_file(self._writer, undo)
                self._call(started.set_result, None)
                self._writer.work()
            except LogUnusable as error:
                self._call(started.set_exception, error)
            self._readers.shutdown()
            for connection in self._connections:
                connection.close()  # before the writer's, which as the last one checkpoints
        if self._closed is not None:
            self._call(self._closed.set_result, None)


def _rows(db: sqlite3.Connection, statement: str) -> list[tuple[Any, ...]]:
    return db.execute(statement).fetchall()


def _label(row: list[Any]) -> tuple[str | None, dict[str, Any] | None]:
    title, metadata = row
    return title, None if metadata is None else orjson.loads(metadata)
