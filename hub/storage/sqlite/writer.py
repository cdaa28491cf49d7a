"""The thread that writes the embedded log: it commits what waits, and numbers it."""

import queue
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
import orjson
import structlog

from hub.errors import StorageUnavailable
from hub.ids import Key, id_of
from hub.limits import MiB
from hub.seams import Seams
from hub.storage import lockfile
from hub.storage.log import LogUnusable
from hub.storage.private import make_folder, touch_private
from hub.storage.sqlite import damage
from hub.storage.sqlite import statements as sql
from hub.storage.sqlite import strips
from hub.storage.sqlite.migrations import MIGRATIONS
from hub.storage.sqlite.open_file import Gone, OpenFile
from hub.storage.sqlite.plan import NONE, Cut, Delete, Job, Outcome, Plan, Standing
from hub.storage.sqlite.wal import BUSY_MS, CHECKPOINT_PAGES, Room
from hub.text import cut

MOST_JOBS = 512  # in one commit: it bounds how long the first of them waits
KNOWN_HEADS = 50_000  # past it they are read again when needed
# Events that lie loose, before they are put into strips; who reads one walks them all. More take longer to place, while
# the next commit waits, and of fewer each strip has less.
LOOSE_EVENTS = 2048
LOOSE_SECONDS = 0.1  # without a commit, after which they are placed too
# A commit costs 50 to 100 us of CPU beside what it carries, half of it the system's for the fsync. So where several
# sessions speak they come so far apart, after so many at once, and each carries more: 20 sessions at 50 tokens/s take
# 200 commits a second instead of 430, which is a fifth of all CPU that a token costs. One who speaks alone never waits.
COMMIT_SECONDS = 0.005
COMMITS_AT_ONCE = 8
STEP_MS = 60_000  # if the clock is set back by less, the log's time waits for it; by more, it follows the clock

_log = structlog.get_logger("hub.storage.sqlite.log")


@attrs.define(kw_only=True)
class Writer:
    """The only connection that writes and checkpoints, and the heads; used by one thread."""

    path: Path
    seams: Seams
    deliver: Callable[[list[Outcome]], None]
    jobs: "queue.SimpleQueue[Job | None]" = attrs.Factory(queue.SimpleQueue)
    heads: dict[Key, Standing] = attrs.Factory(dict)
    loose: int = 0  # events at most that lie loose; long ones count more
    spoke: Key | None = None  # the session whose append came first in the last commit
    due: float = 0.0  # when the next commit would be, were all as far apart as they should
    commits: int = 0
    seconds: float = 0.0  # that they took
    clock: int = 0
    silent_until: float = 0.0
    closing: bool = False
    room: Room = attrs.field(init=False)
    file: OpenFile = attrs.field(init=False)
    db: sqlite3.Connection = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.room = Room(self.path)

    def prepare(self) -> None:
        (mode,) = self.db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise LogUnusable(f"{self.path} cannot be kept in WAL mode: put it on a local disk, by another --data")
        self.db.executescript(f"""
            PRAGMA synchronous = FULL; PRAGMA cache_size = -16000; PRAGMA journal_size_limit = {64 * MiB};
            PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA secure_delete = ON""")

    def migrate(self) -> None:
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            known = f"schema {version}, this one knows {len(MIGRATIONS)}"
            raise LogUnusable(f"{self.path} is of a newer Hubbub ({known}): update Hubbub, or choose another --data")
        if 0 < version < len(MIGRATIONS):
            _log.info("log_upgrade", path=str(self.path), schema=version, to=len(MIGRATIONS))
        self.db.create_function("as_loose", -1, strips.as_loose)
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            self.db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")

    def work(self) -> None:
        """Commit what waits, again and again, until None comes."""
        while not self.closing:
            batch = self._take(LOOSE_SECONDS if self.loose else None)
            kinds = {type(work) for work, _ in batch}
            if Cut in kinds or (self.loose and not batch) or self.loose >= LOOSE_EVENTS:  # only strips are cut
                self.place()
            outcomes: list[Outcome] = []
            for jobs in _apart(batch) if Delete in kinds else (batch,):
                outcomes += self._answer(jobs)
            if outcomes:
                self.deliver(outcomes)
                self.room.make(self.db)
                if self.db.in_transaction:  # what came next would be told and not be kept
                    self._landed(())
        self.place()

    def _answer(self, batch: list[Job]) -> list[Outcome]:
        try:
            return self._serve(batch)
        except Exception as error:  # whatever it is, the thread lives and everyone gets an answer
            _log.exception("log_writer", path=str(self.path))
            return self._refused(batch, error)

    def _take(self, timeout: float | None) -> list[Job]:
        try:
            batch = [self.jobs.get(timeout=timeout)]
        except queue.Empty:
            return []
        self._pace(batch[0])
        batch += [self.jobs.get_nowait() for _ in range(min(self.jobs.qsize(), MOST_JOBS - 1))]
        self.closing = batch[-1] is None  # nothing is put behind it
        return [*filter(None, batch)]

    def _pace(self, first: Job | None) -> None:
        """Wait, and let more come, where several sessions commit often (the generic cell rate algorithm)."""
        spoke, self.spoke = self.spoke, getattr(first and first[0], "key", None)
        if self.spoke == spoke and self.jobs.empty():
            return
        now = time.monotonic()
        self.due = max(self.due, now) + COMMIT_SECONDS
        wait = self.due - now - COMMITS_AT_ONCE * COMMIT_SECONDS
        if wait > 0:
            time.sleep(wait)

    def _serve(self, batch: list[Job]) -> list[Outcome]:
        now = self.seams.now()
        if not now < self.clock <= now + STEP_MS:
            self.clock = now
        plan = Plan(now=self.clock, new_secret=self.seams.new_secret, heads=self.heads, look=self._look)
        try:
            self.file.look()
            plan.add(batch)
            self._write(plan)
        except Exception as error:
            if self._landed(plan.outcomes, [*plan.deleted]):
                return plan.outcomes
            if _is_disk(error):
                self._complain(error)
            elif len(batch) > 1:  # one that SQLite refuses must not take the others with it
                return [outcome for job in batch for outcome in self._serve([job])]
            return self._refused(batch, error)
        self._forget(plan)
        return plan.outcomes

    def _look(self, sessions: Collection[Key]) -> set[Key]:
        """Read where sessions stand, of those that there are; return those of which damage hides it."""
        hidden = set()
        for session, epoch, seq, floor in strips.heads(self.db, [*sessions]):
            if seq is None:
                hidden.add(session)
            else:
                self.heads[session] = Standing(id_of(session), epoch, seq, floor)
        return hidden

    def _write(self, plan: Plan) -> None:
        began = time.perf_counter()
        self.loose += plan.loose
        if plan.lone():
            sql.insert(self.db, "loose", plan.rows["loose"])
        elif not plan.empty():
            self.db.execute("BEGIN IMMEDIATE")
            for table, rows in plan.rows.items():
                sql.insert(self.db, table, rows)
            if plan.heavy:
                self._store(plan.heavy)
            self._change(plan)
            self.db.execute("COMMIT")
        if not plan.empty():
            self.commits += 1
            self.seconds += time.perf_counter() - began

    def _store(self, row: list[Any]) -> None:
        """Put a row of `loose` into strips, behind what lies loose."""
        damage.place(self.db)
        strips.store(self.db, row[1])
        self.loose = 0

    def _change(self, plan: Plan) -> None:
        """Do in a commit what is no insertion."""
        for statement, doomed in ((sql.END_RUNS, plan.ended), (sql.REMOVE, plan.removed)):
            if doomed:
                self.db.execute(statement, (orjson.dumps(doomed).decode(),))
        for label in plan.labels:
            for name, value in label.changes.items():
                self.db.execute(sql.RELABEL[name], (value, label.key))
        for trimming, floors in plan.cuts:
            pieces = (orjson.dumps(trimming.pieces).decode(),)
            for statement in sql.CUT:
                self.db.execute(statement, pieces)
            floors.update(sql.one(self.db, sql.FLOORS, pieces))
        if plan.has_probe:
            self.db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")  # it is that already: the page stays as it is
        if plan.deleted:
            damage.place(self.db)  # what lies loose would be taken for a new session's
            for session, had in plan.deleted.items():
                had += sql.one(self.db, sql.FILES_OF, (session,))
            for statement in sql.DELETE:
                self.db.execute(statement, (orjson.dumps([*plan.deleted]).decode(),))
            self.db.execute(sql.EMPTY)

    def place(self) -> None:
        """Put events into strips. Where that fails they stay loose until more have come, and are found all the same."""
        self.loose = 0
        try:
            self.db.execute("BEGIN IMMEDIATE")
            damage.place(self.db)
            self.db.execute("COMMIT")
        except Exception as error:  # the thread lives
            self._complain(error)
            self._landed(())

    def _forget(self, plan: Plan) -> None:
        for _, floors in plan.cuts:
            for session in floors:
                self.heads.pop(session, None)
        for session in plan.deleted:
            self.heads.pop(session, None)
        if len(self.heads) > KNOWN_HEADS:
            self.heads.clear()

    def _landed(self, outcomes: Sequence[Outcome], deleted: Sequence[Key] = ()) -> bool:
        """Undo what failed, and say whether it was kept all the same: the numbers are answered from the file again.

        A deletion, which shares its commit with nothing else, was kept where none of its sessions is there any more.
        """
        last = {session: events[-1].seq for session, events, _, _ in outcomes if events}
        while True:
            self.heads.clear()
            try:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                if deleted:
                    return not self._look(deleted) and not self.heads
                if last:
                    self._look(last)
                kept = {session: self.heads[session].seq for session in last if session in self.heads}
                return bool(last) and kept == last
            except strips.Damaged as error:
                self._complain(error)
                return False
            except sqlite3.Error as error:
                self._complain(error)
            self._reopen()
            if self.closing:
                return False

    def _reopen(self) -> None:
        try:
            self.db.close()
            self.file.check()
            self.db, self.room = connect(self.path), Room(self.path)
            self.prepare()
        except (sqlite3.Error, LogUnusable) as error:
            # Whoever waits for the commit in doubt must wait for the file; the others need not.
            self.deliver(self._refused(self._take(1.0), error))

    def _refused(self, batch: list[Job], error: Exception) -> list[Outcome]:
        what = "the log cannot be written now" if _is_disk(error) else "this cannot be kept"
        return [(NONE, (), done, StorageUnavailable(f"{what} ({error}){_advice(error)}")) for _, done in batch]

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self.silent_until:
            self.silent_until = time.monotonic() + 5.0
            _log.error("log_unwritable", path=str(self.path), error=cut(str(error), 200))


def open_file(writer: Writer, undo: ExitStack) -> None:
    """Take the lock and open the file; *undo* lets go of both."""
    path = writer.path
    try:
        make_folder(path.parent)
    except OSError as error:
        raise LogUnusable(str(error)) from None
    try:
        lockfile.hold(path, undo)
        for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            if file == path or file.exists():
                touch_private(file)  # SQLite gives those that it makes later the same mode
        writer.db, writer.file = connect(path), OpenFile(path)
        undo.callback(lambda: writer.db.close())  # the one that it then has
        writer.prepare()
        writer.migrate()
        writer.place()  # what a process that was killed left loose
    except (OSError, sqlite3.Error) as error:
        advice = "restore a backup or move it away, or choose another --data"
        raise LogUnusable(f"{path} cannot be used as a log ({error}): {advice}") from error


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def _apart(batch: list[Job]) -> Iterator[list[Job]]:
    """Split what may not be in one commit: a Delete shares none with anything else."""
    for _, jobs in groupby(batch, lambda job: type(job[0]) is Delete):
        yield list(jobs)


def _is_disk(error: Exception) -> bool:
    """Tell trouble with the file, which concerns everyone, from a value that SQLite refuses."""
    return isinstance(error, (sqlite3.OperationalError, sqlite3.InternalError)) or type(error) is sqlite3.DatabaseError


def _advice(error: Exception) -> str:
    """Return what to do about trouble with the file, to be put behind it; nothing for other errors."""
    if not _is_disk(error) or isinstance(error, Gone):  # Gone says itself what to do
        return ""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "; another process holds its write lock: end that process, then try again"
    return "; free space or mend the disk, then try again"
