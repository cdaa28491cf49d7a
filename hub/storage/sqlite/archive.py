"""The archive of an embedded log: a copy of the log is one SQLite file."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import attrs
import msgspec

from hub.storage import lockfile
from hub.storage.archive import CopyProgress, LogArchive, LogContents
from hub.storage.blob_copy import copy_file
from hub.storage.disk import sync_file
from hub.storage.log import LogUnusable
from hub.storage.records import Damage
from hub.storage.sqlite.checking import check_log_file
from hub.storage.sqlite.copying import connect_read_only, copy_database, measure_database, read_transaction
from hub.storage.sqlite.database import make_log_folder
from hub.storage.sqlite.event_rows import StoredCommit
from hub.storage.sqlite.migrations import MIGRATIONS, migrate_schema

# The tables whose rows are counted, if the schema has them. Old schemas have a table `events`, newer ones a view.
COUNTED_TABLES = {
    "sessions": "sessions WHERE id > '!'",
    "messages": "messages",
    "runs": "runs",
    "files": "files",
    "principals": "principals",
}
COUNT_STRIPS = """
    SELECT coalesce(sum(max(t.upto - max(t.seq - 1, s.floor), 0)), 0)
    FROM strips t JOIN sessions s ON s.n = t.session WHERE s.id > '!'"""

_decode_loose = msgspec.json.Decoder(StoredCommit).decode


@attrs.frozen(eq=False)
class SqliteArchive(LogArchive):
    """Copies of the log in the file *path*."""

    path: Path

    def has_files(self) -> bool:
        return any(file.exists() for file in (self.path, *self._side_files))

    def move_aside(self, suffix: str) -> Sequence[Path]:
        wal, shm = self._side_files
        new_paths = []
        if wal.exists():  # first, and as a copy: the database must not be without its write-ahead log
            new_paths.append(wal.with_name(f"{self.path.name}{suffix}-wal"))
            copy_file(wal, new_paths[0], lambda copied_bytes, all_bytes: None)
        if self.path.exists():
            new_paths.insert(0, self.path.with_name(self.path.name + suffix))
            os.rename(self.path, new_paths[0])
        for file in (wal, shm):  # SQLite would take them for those of the next database
            file.unlink(missing_ok=True)
        return new_paths

    @property
    def _side_files(self) -> tuple[Path, Path]:
        """The write-ahead log, and its index, which SQLite makes again."""
        return self.path.with_name(f"{self.path.name}-wal"), self.path.with_name(f"{self.path.name}-shm")

    def take_lock(self, undo: ExitStack) -> None:
        make_log_folder(self.path)
        lockfile.take_lock(self.path, undo)

    def measure(self) -> int:
        with _read(self.path) as db:
            return measure_database(db)

    def copy(self, target: Path, report: CopyProgress) -> LogContents:
        with _name_errors(f"{self.path} cannot be copied to {target}"):
            with closing(connect_read_only(self.path)) as db, read_transaction(db):
                contents = _count(db, self.path)
                copy_database(db, target, report)
        if self.read_contents(target) != contents:
            raise LogUnusable(f"the copy of {self.path} is not complete: look for damage with hubbub check")
        return contents

    def read_contents(self, copy: Path) -> LogContents:
        with _read(copy) as db:
            return _count(db, copy)

    def renew(self, copy: Path, new_epoch: Callable[[], str]) -> None:
        with _name_errors(f"{copy} cannot be used as a log"), closing(
            sqlite3.connect(copy, isolation_level=None)
        ) as db:
            db.execute("PRAGMA secure_delete = ON")
            migrate_schema(db)
            db.create_function("new_epoch", 0, new_epoch)
            db.execute("UPDATE sessions SET epoch = new_epoch()")
        sync_file(copy)

    def check(self, copy: Path, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        return check_log_file(copy, blob_size)


@contextmanager
def _read(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that reads one state of the database. Raises LogUnusable."""
    with _name_errors(f"{path} cannot be read as a log"), closing(connect_read_only(path)) as db:
        with read_transaction(db):
            yield db


@contextmanager
def _name_errors(problem: str) -> Iterator[None]:
    """Raise LogUnusable, which begins with *problem*, instead of SQLite's errors."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_disk_error = code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        advice = "free space or repair the disk" if is_disk_error else "look for damage with hubbub check"
        raise LogUnusable(f"{problem} ({error}): {advice}") from error


def _count(db: sqlite3.Connection, path: Path) -> LogContents:
    """Return what the database at *path* has. Raises LogUnusable if it is no log, or has an unknown schema."""
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    if not schema:
        raise LogUnusable(f"{path} is no log of Hubbub: name the log with --data or --log")
    if schema > len(MIGRATIONS):
        raise LogUnusable(f"{path} was written by a newer Hubbub: update Hubbub")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    counts = {
        kind: db.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]
        for kind, rows in COUNTED_TABLES.items()
        if kind in tables
    }
    counts["events"] = _count_events(db, tables)
    blobs = dict(db.execute("SELECT digest, max(size) FROM files GROUP BY digest")) if "files" in tables else {}
    return LogContents(schema=schema, counts=counts, blobs=blobs)


def _count_events(db: sqlite3.Connection, tables: set[str]) -> int:
    """Return the number of events that readers see. Rows of `loose` that cannot be decoded do not count."""
    if "events" in tables:
        return int(db.execute("SELECT count(*) FROM events").fetchone()[0])
    count = int(db.execute(COUNT_STRIPS).fetchone()[0])
    for (text,) in db.execute("SELECT CAST(events AS BLOB) FROM loose"):
        try:
            count += sum(len(events) for *_, events in _decode_loose(text))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
    return count
