"""Copy the database of an embedded log to a new file, also while a hub writes the log.

The copy is made page by page within one read transaction, so it has the state at one moment. The writer is not delayed.
But SQLite cannot reuse the write-ahead log before the transaction ends, so that file grows meanwhile.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hub.storage.archive import CopyProgress
from hub.storage.disk import sync_file
from hub.storage.log import LogUnusable
from hub.storage.private import touch_private
from hub.storage.sqlite.wal import BUSY_MS

COPY_PAGES = 1024  # copied between two reports of the progress


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write the file. Raises LogUnusable if there is no file, and sqlite3.Error."""
    if not path.is_file():
        raise LogUnusable(f"there is no log {path}: name its folder with --data, or the log with --log")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", BUSY_MS / 1000, isolation_level=None, uri=True)


@contextmanager
def read_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Within the context, *db* reads the state that the database had at its beginning. Raises sqlite3.Error."""
    db.execute("BEGIN")
    try:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # BEGIN alone reads nothing
        yield
    finally:
        db.execute("ROLLBACK")


def measure_database(db: sqlite3.Connection) -> int:
    """Return the size of a copy in bytes."""
    (size,) = db.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").fetchone()
    return int(size)


def copy_database(db: sqlite3.Connection, target: Path, report: CopyProgress) -> None:
    """Write what *db* reads in its transaction to the new private file *target*, and sync the file.

    The copy has no write-ahead log. Raises sqlite3.Error, OSError, and the errors of *report*.
    """
    (page_size,) = db.execute("PRAGMA page_size").fetchone()

    def report_pages(_: int, remaining: int, total: int) -> None:
        report((total - remaining) * page_size, total * page_size)

    touch_private(target)
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")  # an incomplete copy is of no use
        db.backup(copy, pages=COPY_PAGES, progress=report_pages)
        copy.execute("PRAGMA journal_mode = DELETE")
    sync_file(target)
