"""The embedded log: one SQLite file, one thread that writes it, a few that read.

`sqlite:///relative/path.db` or `sqlite:////absolute/path.db`. Everything in the file is readable by plain SQL; the
history is the table `messages`. A lock file beside it keeps a second process away (by flock; where a platform has no
fcntl, as Windows, nothing does).

Python's sqlite3 gives the GIL away at each step of a statement, and beside a busy loop getting it back takes up to the
switch interval, 5 ms. So what is here takes few steps: all rows of a commit go in by one statement, whose number of
rows is rounded up a little (the filler is NULL and filtered) and which therefore stays prepared, and a page is read
as one JSON value. Measured beside a loop that never rests: a commit of 100 rows took 465 ms with executemany, 36 ms
as power-of-two pieces between BEGIN and COMMIT, 8 ms as one padded statement that is its own transaction. Binding a
JSON array for json_each is as fast, but SQLite's versions differ on NUL in JSON.
"""

import asyncio
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import attrs
import msgspec
import orjson
import structlog

from hub.config import Limits, MiB
from hub.errors import StorageUnavailable
from hub.logs import (
    HISTORY_BYTES,
    Append,
    Done,
    Head,
    KeptChat,
    Listed,
    Listener,
    Log,
    LogUnusable,
    Message,
    RunRecord,
    lockfile,
)
from hub.logs import sqlite_schema as sql
from hub.logs.sqlite_plan import Cut, Job, Outcome, Plan, Standing, to_events, to_messages, to_pieces
from hub.messages import Event

READERS = 3
MOST_JOBS = 512  # in one commit: it bounds how long the first of them waits
KNOWN_HEADS = 50_000  # past it they are read again when needed
CHECKPOINT_PAGES = 4000  # 16 MB: 400 sessions write 400 pages a commit, and SQLite's 1000 would mean every third
# Events are kept in the order of commits, side by side, and an index by session is filled later, sorted: with events
# of 25 sessions in each commit one costs 3.9 us of CPU, where a table in the order of sessions, which touches a page
# for each, costs 10.4.
LOOSE_ROWS = 2048  # without a place in the index, before it is filled: what is loose is searched one by one
LOOSE_SECONDS = 0.1  # without a commit, after which it is filled too
# After a commit of more than a few appends the next one gathers a little, for so long an append. 400 sessions at 20
# tokens/s: 215 commits a second instead of 750, and 6 us of CPU less for each event.
GATHERED = 4
GATHER_SECONDS = 0.0003
MOST_GATHER_SECONDS = 0.004
# A thread that waits for the GIL asks for it only when nobody let go of it for this long. A busy loop lets go at each
# poll, for a moment too short to take it: with Python's 5 ms and turns of 2 ms one commit waited for 14 s; with 0.5 ms
# and turns of 0.3 ms the slowest in a hundred still for 1.2 s.
SWITCH_SECONDS = 0.0001
LIMITS = Limits()

_log = structlog.get_logger("hub.logs.sqlite")


@attrs.define
class _Writer:
    """The only connection that writes and checkpoints, and the heads; used by one thread."""

    path: Path
    deliver: Callable[[list[Outcome]], None]
    jobs: "queue.SimpleQueue[Job | None]" = attrs.Factory(queue.SimpleQueue)
    heads: dict[str, Standing] = attrs.Factory(dict)
    loose: int = 0  # events at most that have no place yet
    last: int = 0  # appends in the last commit
    commits: int = 0
    clock: int = 0
    silent_until: float = 0.0
    closing: bool = False
    db: sqlite3.Connection = attrs.field(init=False)

    def prepare(self) -> None:
        (mode,) = self.db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise LogUnusable(f"{self.path} cannot be kept in WAL mode: put it on a local disk, by another --data")
        self.db.executescript(f"""
            PRAGMA synchronous = FULL; PRAGMA cache_size = -16000; PRAGMA journal_size_limit = {64 * MiB};
            PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}""")

    def migrate(self) -> None:
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        if version > len(sql.MIGRATIONS):
            known = f"schema {version}, this one knows {len(sql.MIGRATIONS)}"
            raise LogUnusable(f"{self.path} is of a newer Hubbub ({known}): update Hubbub, or choose another --data")
        for number, script in enumerate(sql.MIGRATIONS[version:], version + 1):
            self.db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")

    def work(self) -> None:
        """Commit what waits, again and again, until None comes."""
        while not self.closing:
            time.sleep(min(max(self.last - GATHERED, 0) * GATHER_SECONDS, MOST_GATHER_SECONDS))
            batch = self._take(LOOSE_SECONDS if self.loose else None)
            if self.loose and (not batch or self.loose >= LOOSE_ROWS):
                self.place()
            try:
                outcomes = self._serve(batch)
            except Exception as error:  # whatever it is, the thread lives and everyone gets an answer
                _log.exception("log_writer", path=str(self.path))
                outcomes = self._refused(batch, error)
            self.last = len(batch)
            if outcomes:
                self.deliver(outcomes)
        self.place()

    def _take(self, timeout: float | None) -> list[Job]:
        try:
            batch = [self.jobs.get(timeout=timeout)]
        except queue.Empty:
            return []
        batch += [self.jobs.get_nowait() for _ in range(min(self.jobs.qsize(), MOST_JOBS - 1))]
        self.closing = batch[-1] is None
        return [job for job in batch if job is not None]

    def _serve(self, batch: list[Job]) -> list[Outcome]:
        self.clock = max(self.clock, time.time_ns() // 1_000_000)
        plan = Plan(self.clock, self.heads)
        try:
            sessions = set()
            for work, _ in batch:
                if type(work) is Append:
                    sessions.add(work.sessionId)
                elif type(work) is str:
                    sessions.add(work)
                elif self.loose:
                    self.place()  # only what has its place can be dropped
            self._look(sessions)
            for job in batch:
                plan.add(*job)
            self._write(plan)
        except Exception as error:
            if self._landed(plan):
                return plan.outcomes
            if _is_disk(error):
                self._complain(error)
            elif len(batch) > 1:  # one that SQLite refuses must not take the others with it
                return [outcome for job in batch for outcome in self._serve([job])]
            return self._refused(batch, error)
        self._remember(plan)
        return plan.outcomes

    def _look(self, sessions: set[str]) -> None:
        unknown = [session for session in sessions if session not in self.heads]
        if unknown:
            for session, *standing in _one(self.db, sql.HEADS, (orjson.dumps(unknown).decode(),)):
                self.heads[session] = tuple(standing)

    def _write(self, plan: Plan) -> None:
        self.loose += len(plan.rows["events"]) // len(sql.COLUMNS["events"])
        if plan.lone():
            self._insert("events", plan.rows["events"])
        elif not plan.empty():
            self.db.execute("BEGIN IMMEDIATE")
            for table, rows in plan.rows.items():
                self._insert(table, rows)
            for statement, doomed in ((sql.END_RUNS, plan.ended), (sql.REMOVE, plan.removed)):
                if doomed:
                    self.db.execute(statement, (orjson.dumps(doomed).decode(),))
            for cut, floors in plan.cuts:
                pieces = (orjson.dumps(cut.pieces).decode(),)
                for statement in sql.CUT:
                    self.db.execute(statement, pieces)
                floors.update(_one(self.db, sql.FLOORS, pieces))
            self.db.execute("COMMIT")
        self.commits += not plan.empty()

    def place(self) -> None:
        """Fill the index of events by session; where that fails they stay loose for now, and are found all the same."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            for statement in sql.PLACE:
                self.db.execute(statement)
            self.db.execute("COMMIT")
            self.loose = 0
        except sqlite3.Error as error:
            self._complain(error)
            self._landed(Plan(self.clock, self.heads))

    def _insert(self, table: str, values: list[Any]) -> None:
        width = len(sql.COLUMNS[table])
        step = sql.MOST_ROWS * width
        for start, end in zip(range(0, len(values), step), range(step, len(values) + step, step)):
            part = values[start:end]
            rows = sql.rounded(len(part) // width)
            self.db.execute(sql.insertion(table, rows), part + [None] * (rows * width - len(part)))

    def _remember(self, plan: Plan) -> None:
        self.heads.update(plan.heads)
        for _, floors in plan.cuts:
            for session in floors:
                self.heads.pop(session, None)
        if len(self.heads) > KNOWN_HEADS:
            self.heads.clear()

    def _landed(self, plan: Plan) -> bool:
        """Undo what failed, and say whether it was kept all the same: the numbers are answered from the file again."""
        last = {session: events[-1].seq for session, events, _, _ in plan.outcomes if events}
        while True:
            self.heads.clear()
            try:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                self._look(set(last))
                return bool(last) and all(self.heads[session][1] == seq for session, seq in last.items())
            except sqlite3.Error as error:
                self._complain(error)
            self._reopen()
            if self.closing:
                return False

    def _reopen(self) -> None:
        try:
            self.db.close()
            self.db = _connect(self.path)
            self.prepare()
        except (sqlite3.Error, LogUnusable) as error:
            # Whoever waits for the commit in doubt must wait for the file; the others need not.
            self.deliver(self._refused(self._take(1.0), error))

    def _refused(self, batch: list[Job], error: Exception) -> list[Outcome]:
        what = "the log cannot be written now" if _is_disk(error) else "this cannot be kept"
        advice = "; free space or mend the disk, then try again" if _is_disk(error) else ""
        return [("", (), done, StorageUnavailable(f"{what} ({error}){advice}")) for _, done in batch]

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self.silent_until:
            self.silent_until = time.monotonic() + 5.0
            _log.error("log_unwritable", path=str(self.path), error=str(error)[:200])


class SqliteLog(Log):
    """The log in one SQLite file, for one process.

    *commits* counts the transactions so far: what a fsync was paid for.
    """

    def __init__(self, url: str) -> None:
        path = url.removeprefix("sqlite:///")
        if path in (url, "", ":memory:"):
            raise LogUnusable(f"{url!r} names no file: write sqlite:///relative/hub.db or sqlite:////absolute/hub.db")
        self._path = Path(path).absolute()
        self._writer = _Writer(self._path, lambda outcomes: self._call(self._announce, outcomes))
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

    async def load(self, session_id: str) -> Head:
        return cast(Head, await self._submit(session_id))

    async def find(self, session_id: str) -> Head | None:
        found = await self._ask(sql.HEADS, (orjson.dumps([session_id]).decode(),))
        return Head(*found[0]) if found else None

    def append(self, append: Append, done: Done) -> None:
        self._give(append, done)

    async def read(self, session_id: str, after: int, upto: int) -> Sequence[Event]:
        limits = {"rows": LIMITS.page_rows, "bytes": LIMITS.page_bytes}
        place = {"session": session_id, "after": after, "upto": upto}
        return await self._ask(sql.PAGE, place | limits, lambda page: to_events(session_id, *page)) or ()

    async def message_before(self, session_id: str, run_id: str, seq: int) -> tuple[str, str] | None:
        found = await self._ask(sql.BEFORE, {"session": session_id, "run": run_id, "seq": seq})
        return (found[0], found[1]) if found else None

    async def messages(
        self, session_id: str, last: int, upto: str | None = None, most: int = HISTORY_BYTES
    ) -> Sequence[Message]:
        asked = {"session": session_id, "last": last, "upto": upto, "bytes": most}
        return cast(list[Message], await self._ask(sql.HISTORY, asked, to_messages))

    async def trail(self, session_id: str, message_id: str, most: int) -> Sequence[Message]:
        asked = {"session": session_id, "message": message_id, "most": most}
        return cast(list[Message], await self._ask(sql.TRAIL, asked, to_messages))

    async def sessions(
        self, skip: int, size: int, agent: str | None, since: int, until: int
    ) -> tuple[int, Sequence[Listed]]:
        asked = {"skip": skip, "size": size, "agent": agent, "since": since, "until": until}
        total, rows = await self._ask(sql.SESSIONS, asked)
        return total, [Listed(*row) for row in rows]

    async def history(self, session_id: str, skip: int, size: int) -> tuple[int, Sequence[Message]]:
        asked = {"session": session_id, "skip": skip, "size": size}
        total, rows = await self._ask(sql.HISTORY_PAGE, asked)
        return total, to_messages(rows)

    async def chat(self, session_id: str, principal: str, client_msg_id: str) -> KeptChat | None:
        found = await self._ask(sql.CHAT, {"session": session_id, "principal": principal, "id": client_msg_id})
        return KeptChat(*found) if found else None

    async def unfinished(self) -> Sequence[RunRecord]:
        return msgspec.convert(await self._ask(sql.UNFINISHED, ()), list[RunRecord])

    async def expire(self, before: int, max_bytes: int) -> dict[str, int]:
        await self._submit(Cut(()))  # all that is kept gets its place
        floors = await self._drop(await self._ask(sql.OLD, {"before": before}))
        if await self._ask(sql.USED, ()) > max_bytes:
            floors |= await self._drop(await self._ask(sql.LARGE, {"bytes": max_bytes}))
        return floors

    async def _drop(self, doomed: list[tuple[str, int, int]]) -> dict[str, int]:
        before = {session: floor for session, floor, _ in doomed}
        floors: dict[str, int] = {}
        for pieces in to_pieces(doomed):
            floors |= await self._submit(Cut(pieces))
        return {session: floor for session, floor in floors.items() if floor > before[session]}

    def _give(self, work: Append | Cut | str, done: Done) -> None:
        if self._open:
            self._writer.jobs.put((work, done))
        else:
            self._loop.call_soon(done, StorageUnavailable("the log is not open: the hub is going down"))

    async def _submit(self, work: Cut | str) -> Any:
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

    async def _ask(self, statement: str, values: Any, shape: Callable[[Any], Any] = lambda found: found) -> Any:
        if not self._open:
            raise StorageUnavailable("the log is not open: the hub is going down")
        return await self._loop.run_in_executor(self._readers, self._query, statement, values, shape)

    def _query(self, statement: str, values: Any, shape: Callable[[Any], Any]) -> Any:
        try:
            if getattr(self._reader, "db", None) is None:
                self._reader.db = _connect(self._path)
                self._connections.add(self._reader.db)
                self._reader.db.execute("PRAGMA query_only = 1")
            found = _one(self._reader.db, statement, values)
        except sqlite3.Error as error:
            broken, self._reader.db = getattr(self._reader, "db", None), None
            if broken is not None:
                self._connections.discard(broken)
                broken.close()
            raise StorageUnavailable(f"the log cannot be read now ({error})") from error
        return None if found is None else shape(found)

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
                _open(self._writer, undo)
                self._call(started.set_result, None)
                self._writer.work()
            except LogUnusable as error:
                self._call(started.set_exception, error)
            self._readers.shutdown()
            for connection in self._connections:
                connection.close()  # before the writer's, which as the last one checkpoints
        if self._closed is not None:
            self._call(self._closed.set_result, None)


def _open(writer: _Writer, undo: ExitStack) -> None:
    """Take the lock and open the file; *undo* lets go of both."""
    path = writer.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lockfile.hold(path, undo)
        writer.db = _connect(path)
        undo.callback(lambda: writer.db.close())  # the one that it then has
        writer.prepare()
        writer.migrate()
        writer.place()  # what a process that was killed left loose
    except (OSError, sqlite3.Error) as error:
        advice = "restore a backup or move it away, or choose another --data"
        raise LogUnusable(f"{path} cannot be used as a log ({error}): {advice}") from error


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=256)


def _one(db: sqlite3.Connection, statement: str, values: Any) -> Any:
    row = db.execute(statement, values).fetchone()
    return None if row is None else orjson.loads(row[0])


def _is_disk(error: Exception) -> bool:
    """Tell trouble with the file, which concerns everyone, from a value that SQLite refuses."""
    return isinstance(error, (sqlite3.OperationalError, sqlite3.InternalError)) or type(error) is sqlite3.DatabaseError
