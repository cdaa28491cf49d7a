"""The writer thread of the embedded log: it commits write requests in batches, and numbers events.

Each iteration of run() takes the queued requests, at most MAX_BATCH_REQUESTS. It plans their rows (plan.py), writes the
rows in one transaction, and delivers the results. So concurrent appends share one fsync. Deletions of sessions have a
transaction of their own. After a failure, the thread first reads whether the file has the commit, because COMMIT may
raise an error after it has written the commit.
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from queue import Empty, SimpleQueue

import attrs
import structlog

from hub.errors import StorageUnavailable
from hub.ids import Key, id_of
from hub.observe.histogram import STEP_BOUNDS, Histogram
from hub.seams import Seams
from hub.storage.log import LogUnusable
from hub.storage.sqlite.changes import Changes, EventDrop, SessionDeletion
from hub.storage.sqlite.damage import move_all_to_strips
from hub.storage.sqlite.database import Database, make_log_folder
from hub.storage.sqlite.erasing import MessageErasure
from hub.storage.sqlite.event_reading import read_heads
from hub.storage.sqlite.event_rows import UnreadableEvents
from hub.storage.sqlite.open_file import FileReplaced
from hub.storage.sqlite.pacing import CommitPacer
from hub.storage.sqlite.plan import CommitPlan, QueuedWrite, WorkingHead, WriteResult
from hub.storage.sqlite.sql import insert_rows
from hub.storage.sqlite.strips import write_strips
from hub.text import cut

MAX_BATCH_REQUESTS = 512  # limits how long the first request of a batch waits
MAX_CACHED_HEADS = 50_000
# The number of events in `loose` at which they are moved to `strips`. Readers search all of `loose`. With a higher
# limit, a move takes longer, and the next commit waits for the move; with a lower limit, strips are shorter.
MAX_LOOSE_EVENTS = 2048
LOOSE_SECONDS = 0.1  # events are also moved to `strips` after this time without a request
ERASURE_WAIT_MS = 500  # how long an erasure waits for readers of the WAL, and all other writes with it
TRUNCATION_SECONDS = 1.0  # after this time the writer tries again to empty the WAL
MAX_CLOCK_STEP_MS = 60_000  # the log's time does not follow a clock that is set back, unless by more than this

ALONE = {SessionDeletion, MessageErasure}  # the kinds of requests that share no commit with other kinds

_log = structlog.get_logger("hub.storage.sqlite.log")


@attrs.define(kw_only=True)
class Writer:
    """The writer thread. Other threads may only do what is listed here.

    They may put requests into *requests*, or None, which ends the thread. They may read *commit_times*, and use
    *database* as the class Database allows.
    """

    database: Database
    seams: Seams
    deliver: Callable[[list[WriteResult]], None]
    requests: "SimpleQueue[QueuedWrite | None]" = attrs.Factory(SimpleQueue)
    heads: dict[Key, WorkingHead] = attrs.Factory(dict)  # a cache
    pacer: CommitPacer = attrs.Factory(CommitPacer)
    loose_events: int = 0  # in `loose`; see CommitPlan.loose_events
    commit_times: Histogram = attrs.Factory(lambda: Histogram(STEP_BOUNDS))
    clock: int = 0  # the time of the last commit (ms); see MAX_CLOCK_STEP_MS
    next_truncation: float | None = None  # when to try again to remove erased text from the WAL
    next_failure_log: float = 0.0  # the earliest time of the next log line about a failure
    is_closing: bool = False

    @property
    def db(self) -> sqlite3.Connection:
        return self.database.db

    def run(self) -> None:
        """Commit queued requests until None is queued. No failure of a request ends the thread."""
        while not self.is_closing:
            batch = self._take_batch(LOOSE_SECONDS if self.loose_events or self.next_truncation is not None else None)
            kinds = {type(request) for request, _ in batch}
            is_idle = self.loose_events and not batch
            if EventDrop in kinds or is_idle or self.loose_events >= MAX_LOOSE_EVENTS:  # EventDrop deletes only strips
                self.move_to_strips()
            results: list[WriteResult] = []
            for part in _split_at_kinds(batch) if kinds & ALONE else (batch,):
                results += self._process(part)
            if results:
                self.deliver(results)
                self.database.preallocate_wal()
                if self.db.in_transaction:  # preallocate_wal() failed: the next commit would be in its transaction
                    self._recover(())
            if self.next_truncation is not None and time.monotonic() >= self.next_truncation:
                self.truncate_wal()
        self.move_to_strips()

    def _take_batch(self, timeout: float | None) -> list[QueuedWrite]:
        try:
            batch = [self.requests.get(timeout=timeout)]
        except Empty:
            return []
        session = getattr(batch[0] and batch[0][0], "key", None)
        self.pacer.wait(session, has_more=not self.requests.empty())
        batch += [self.requests.get_nowait() for _ in range(min(self.requests.qsize(), MAX_BATCH_REQUESTS - 1))]
        self.is_closing = batch[-1] is None  # None is always the last item
        return [*filter(None, batch)]

    def _process(self, batch: list[QueuedWrite]) -> list[WriteResult]:
        """Commit a batch, and return a result for each request."""
        try:
            return self._commit(batch)
        except Exception as error:  # a bug; the thread goes on
            _log.exception("log_writer", path=str(self.database.path))
            return self._refuse(batch, error)

    def _commit(self, batch: list[QueuedWrite]) -> list[WriteResult]:
        now = self.seams.now()
        if not now < self.clock <= now + MAX_CLOCK_STEP_MS:
            self.clock = now
        plan = CommitPlan(
            now=self.clock, new_secret=self.seams.new_secret, heads=self.heads, load_heads=self._load_heads
        )
        try:
            self.database.file.check_if_due()
            plan.add(batch)
            self._write(plan)
        except Exception as error:
            if not self._recover(plan.results, plan.changes):
                if _is_file_error(error):
                    self._log_failure(error)
                elif len(batch) > 1:  # commit each request alone: only those that cause an error must fail
                    return [result for write in batch for result in self._commit([write])]
                return self._refuse(batch, error)
        self._drop_stale_heads(plan)
        if plan.changes.erasures or plan.changes.has_truncation:
            self.truncate_wal(ERASURE_WAIT_MS)
        return plan.results

    def _load_heads(self, sessions: Collection[Key]) -> set[Key]:
        """Cache the heads of the sessions that exist. Return the sessions whose head is unknown due to damage."""
        damaged_sessions = set()
        for key, epoch, seq, floor in read_heads(self.db, [*sessions]):
            if seq is None:
                damaged_sessions.add(key)
            else:
                self.heads[key] = WorkingHead(id_of(key), epoch, seq, floor)
        return damaged_sessions

    def _write(self, plan: CommitPlan) -> None:
        if plan.is_empty:
            return
        start = time.perf_counter()
        self.loose_events += plan.loose_events
        if plan.is_single_insert:
            insert_rows(self.db, "loose", plan.rows["loose"])
        else:
            self.db.execute("BEGIN IMMEDIATE")
            for table, rows in plan.rows.items():
                insert_rows(self.db, table, rows)
            if plan.large_commit:
                move_all_to_strips(self.db)  # before the new events: a session's strips are in the order of seq
                write_strips(self.db, plan.large_commit)
                self.loose_events = 0
            plan.changes.apply(self.db)
            self.db.execute("COMMIT")
        self.commit_times.add(time.perf_counter() - start)

    def move_to_strips(self) -> None:
        """Move all events from `loose` to `strips`. If that fails, the events stay readable in `loose`."""
        self.loose_events = 0
        try:
            self.db.execute("BEGIN IMMEDIATE")
            move_all_to_strips(self.db)
            self.db.execute("COMMIT")
        except Exception as error:  # the thread goes on
            self._log_failure(error)
            self._recover(())

    def truncate_wal(self, wait_ms: int = 0) -> None:
        """Remove erased text from the WAL. If a reader prevents this for *wait_ms*, try again later."""
        is_repetition, self.next_truncation = self.next_truncation is not None, None
        try:
            if self.database.truncate_wal(wait_ms):
                return
        except Exception as error:  # the thread goes on
            self._log_failure(error)
            self._recover(())
        self.next_truncation = time.monotonic() + TRUNCATION_SECONDS
        if not is_repetition:
            advice = "end the processes that read the log, such as a backup; the hub then removes the text"
            _log.warning("log_erased_text", path=str(self.database.path), advice=advice)

    def _drop_stale_heads(self, plan: CommitPlan) -> None:
        for _, floors in plan.changes.drops:
            for key in floors:
                self.heads.pop(key, None)
        for key in (*plan.changes.deleted_sessions, *plan.changes.new_epochs):
            self.heads.pop(key, None)
        if len(self.heads) > MAX_CACHED_HEADS:
            self.heads.clear()

    def _recover(self, results: Sequence[WriteResult], changes: Changes | None = None) -> bool:
        """Roll back after a failure, and clear the cache of heads. Return True if the file has the commit nevertheless.

        *results* and *changes* are those of the commit: see _is_committed(). As long as the file cannot be read, this
        method reopens it in a loop, and refuses new requests, until the writer closes.
        """
        last_seqs = {append.key: append.events[-1].seq for _, _, append in results if append and append.events}
        while True:
            self.heads.clear()
            try:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                return self._is_committed(last_seqs, changes or Changes())
            except UnreadableEvents as error:
                self._log_failure(error)
                return False
            except sqlite3.Error as error:
                self._log_failure(error)
            self._reopen()
            if self.is_closing:
                return False

    def _is_committed(self, last_seqs: dict[Key, int], changes: Changes) -> bool:
        """Return True if the file has a commit.

        With deletions: if none of the deleted sessions exists. With erasures: if the sessions have their new epochs.
        (Neither shares a commit with other requests.) Otherwise: if the head of each session with an append is the last
        appended seq; without such a session, return False. Raises UnreadableEvents.
        """
        if changes.deleted_sessions:
            return not self._load_heads(changes.deleted_sessions) and not self.heads
        if changes.new_epochs:
            return {head.key: head.epoch for head in read_heads(self.db, [*changes.new_epochs])} == changes.new_epochs
        if not last_seqs:
            return False
        self._load_heads(last_seqs)
        return {key: head.seq for key, head in self.heads.items()} == last_seqs

    def _reopen(self) -> None:
        """Reopen the file. If that fails, wait at most a second for the next batch, and refuse it."""
        try:
            self.database.reopen()
        except (sqlite3.Error, LogUnusable) as error:
            self.deliver(self._refuse(self._take_batch(1.0), error))

    def _refuse(self, batch: list[QueuedWrite], error: Exception) -> list[WriteResult]:
        problem = "the log cannot be written now" if _is_file_error(error) else "the log cannot store this"
        refusal = f"{problem} ({error}){_get_advice(error)}"
        return [(callback, StorageUnavailable(refusal), None) for _, callback in batch]

    def _log_failure(self, error: Exception) -> None:
        """Log a failure, unless a failure was logged in the last 5 seconds."""
        if time.monotonic() >= self.next_failure_log:
            self.next_failure_log = time.monotonic() + 5.0
            _log.error("log_unwritable", path=str(self.database.path), error=cut(str(error), 200))


def open_log_file(writer: Writer, undo: ExitStack) -> None:
    """Take the lock and open the file; *undo* closes the file and releases the lock. Raises LogUnusable."""
    path = writer.database.path
    make_log_folder(path)
    try:
        writer.database.open(undo)
        writer.move_to_strips()  # the events that a killed process left in `loose`
        writer.truncate_wal()  # a killed process may have left erased text in it
    except (OSError, sqlite3.Error) as error:
        advice = "restore a backup or move it away, or choose another --data"
        raise LogUnusable(f"{path} cannot be used as a log ({error}): {advice}") from error


def _split_at_kinds(batch: list[QueuedWrite]) -> Iterator[list[QueuedWrite]]:
    """Split a batch so that no request of a kind in ALONE shares its commit with another kind."""
    for _, part in groupby(batch, lambda write: type(write[0]) if type(write[0]) in ALONE else None):
        yield list(part)


def _is_file_error(error: Exception) -> bool:
    """Return True if the error is about the file, and so about all requests, not about a value of one request."""
    return isinstance(error, (sqlite3.OperationalError, sqlite3.InternalError)) or type(error) is sqlite3.DatabaseError


def _get_advice(error: Exception) -> str:
    """Return advice to append to an error's text; empty for FileReplaced, and for an error that is no file error."""
    if not _is_file_error(error) or isinstance(error, FileReplaced):  # the text of FileReplaced already has advice
        return ""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "; another process holds its write lock: end that process, then try again"
    return "; free space or repair the disk, then try again"
