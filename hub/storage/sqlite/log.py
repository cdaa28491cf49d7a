"""The embedded log: one SQLite file, one thread that writes it, and a few threads that read it.

The URL is `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`. All data can be read with plain SQL; the
finished messages are in the table `messages`. A lock file beside the log keeps a second process from opening the log;
on Windows there is no such lock.

Python's sqlite3 releases the GIL at each step of a statement. While the event loop is busy, a thread then waits up to
the switch interval, 5 ms by default, to get the GIL back. So all code here takes few steps:

- The events of a commit are one row of JSON.
- The rows of each other table are inserted by one statement. Its number of rows is rounded up, with rows of NULLs that
  the statement skips. So there are few different statements, and SQLite can cache all of them.
- A page of results is read as one row.

Measured with an event loop that is always busy, a commit of 100 rows took 465 ms with executemany, 36 ms with
statements of 1, 2, 4 ... rows between BEGIN and COMMIT, and 8 ms with one padded statement without BEGIN and COMMIT.
Rows that json_each() reads from a JSON array are as fast, but SQLite's versions treat U+0000 in JSON differently.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hub.limits import Limits
from hub.seams import Seams
from hub.storage.log import Listener, Log, LogUnusable
from hub.storage.records import CommitTotals, Damage
from hub.storage.sqlite.access import SqliteAccess
from hub.storage.sqlite.archive import SqliteArchive
from hub.storage.sqlite.changes import Probe
from hub.storage.sqlite.checking import check_log_file
from hub.storage.sqlite.events import SqliteEvents
from hub.storage.sqlite.files import SqliteFiles
from hub.storage.sqlite.runs import SqliteRuns
from hub.storage.sqlite.sessions import SqliteSessions
from hub.storage.sqlite.threads import LogThreads

# A thread that has waited this long for the GIL forces the owner of the GIL to release it. A busy loop releases the GIL
# at each poll, but takes it back before another thread can. With Python's 5 ms and loop iterations of 2 ms, one commit
# waited for 14 s; with 0.5 ms and iterations of 0.3 ms, the 99th percentile was still 1.2 s.
GIL_SWITCH_SECONDS = 0.0001
# Earlier versions have an error in the reset of the write-ahead log; see docs/operations.md.
SAFE_SQLITE = (3, 51, 3)


class SqliteLog(Log):
    """The embedded log; only one process can have it open."""

    def __init__(self, url: str, limits: Limits, seams: Seams) -> None:
        path = url.removeprefix("sqlite:///")
        if path in (url, "", ":memory:"):
            raise LogUnusable(f"{url!r} names no file: use sqlite:///relative/hub.db or sqlite:////absolute/hub.db")
        self._path = Path(path).absolute()
        self._threads = threads = LogThreads(self._path, seams)
        super().__init__(
            SqliteEvents(threads, limits),
            SqliteRuns(threads),
            SqliteSessions(threads),
            SqliteFiles(threads),
            SqliteAccess(threads),
        )

    async def start(self, listener: Listener) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), GIL_SWITCH_SECONDS))
        await self._threads.start(listener)

    async def close(self) -> None:
        await self._threads.close()

    def identify(self, home: Path) -> str:
        path, home = self._path.resolve(), home.resolve()
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    async def check(self, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        return await asyncio.to_thread(check_log_file, self._path, blob_size)

    def open_archive(self) -> SqliteArchive:
        return SqliteArchive(self._path)

    def list_risks(self) -> Sequence[str]:
        if sqlite3.sqlite_version_info >= SAFE_SQLITE:
            return ()
        return (
            f"SQLite {sqlite3.sqlite_version} can damage a database into which two connections write at a time (fixed "
            f"in {'.'.join(map(str, SAFE_SQLITE))}). The hub writes with one: let no other program write {self._path}",
        )

    async def probe(self) -> None:
        await self._threads.submit(Probe())

    @property
    def commit_totals(self) -> CommitTotals:
        """Each commit is one transaction with one fsync."""
        times = self._threads.writer.commit_times
        return CommitTotals(times.total, times.seconds, times.list_buckets())
