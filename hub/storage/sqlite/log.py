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
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hub.limits import Limits
from hub.seams import Seams
from hub.storage.log import Listener, Log, LogUnusable
from hub.storage.records import CommitTotals, Damage
from hub.storage.sqlite.checking import check
from hub.storage.sqlite.events import SqliteEvents
from hub.storage.sqlite.files import SqliteFiles
from hub.storage.sqlite.plan import Probe
from hub.storage.sqlite.runs import SqliteRuns
from hub.storage.sqlite.sessions import SqliteSessions
from hub.storage.sqlite.threads import Threads

# A thread that waits for the GIL asks for it only when nobody let go of it for this long. A busy loop lets go at each
# poll, for a moment too short to take it: with Python's 5 ms and turns of 2 ms one commit waited for 14 s; with 0.5 ms
# and turns of 0.3 ms the slowest in a hundred still for 1.2 s.
SWITCH_SECONDS = 0.0001


class SqliteLog(Log):
    """The log in one SQLite file, for one process."""

    def __init__(self, url: str, limits: Limits, seams: Seams) -> None:
        path = url.removeprefix("sqlite:///")
        if path in (url, "", ":memory:"):
            raise LogUnusable(f"{url!r} names no file: write sqlite:///relative/hub.db or sqlite:////absolute/hub.db")
        self._path = Path(path).absolute()
        self._threads = threads = Threads(self._path, seams)
        super().__init__(
            SqliteEvents(threads, limits), SqliteRuns(threads), SqliteSessions(threads), SqliteFiles(threads)
        )

    async def start(self, listener: Listener) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
        await self._threads.start(listener)

    async def close(self) -> None:
        await self._threads.close()

    def identify(self, home: Path) -> str:
        path, home = self._path.resolve(), home.resolve()
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    async def check(self, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        return await asyncio.to_thread(check, self._path, blob_size)

    async def probe(self) -> None:
        await self._threads.submit(Probe())

    @property
    def commit_totals(self) -> CommitTotals:
        """Return the transactions so far, each of which a fsync was paid for, and their time."""
        return CommitTotals(self._threads.writer.commits, self._threads.writer.seconds)
