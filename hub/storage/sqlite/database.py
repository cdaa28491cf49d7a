"""The file of the embedded log, and the one connection that writes it."""

import sqlite3
from contextlib import ExitStack
from pathlib import Path

import attrs
import structlog

from hub.limits import MiB
from hub.storage import lockfile
from hub.storage.log import LogUnusable
from hub.storage.private import make_folder, touch_private
from hub.storage.sqlite.migrations import MIGRATIONS, migrate_schema, read_schema
from hub.storage.sqlite.old_schemas import save_old_schema
from hub.storage.sqlite.open_file import OpenFile
from hub.storage.sqlite.wal import BUSY_MS, CHECKPOINT_PAGES, WalPreallocator

_log = structlog.get_logger("hub.storage.sqlite.log")


def connect_database(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
    )


@attrs.define
class Database:
    """The file of the log, and *db*, the connection that writes and checkpoints.

    Only the writer thread uses this object, except that other threads read *path* and call *file*.check(). All fields
    but *path* exist only after open().
    """

    path: Path
    db: sqlite3.Connection = attrs.field(init=False)
    file: OpenFile = attrs.field(init=False)
    _preallocator: WalPreallocator = attrs.field(init=False)

    def open(self, undo: ExitStack) -> None:
        """Take the lock, open the file, and migrate its schema; *undo* closes the file and releases the lock.

        Raises LogUnusable, OSError, sqlite3.Error.
        """
        path = self.path
        lockfile.take_lock(path, undo)
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            file = path.with_name(name)
            if file == path or file.exists():
                touch_private(file)  # SQLite gives new -wal and -shm files the mode of the database file
        self._connect()
        self.file = OpenFile(path)
        undo.callback(lambda: self.db.close())  # a lambda, because reopen() may replace self.db
        self._configure()
        self._migrate()

    def reopen(self) -> None:
        """Close the connection and open a new one to the same file. Raises sqlite3.Error, LogUnusable."""
        self.db.close()
        self.file.check()
        self._connect()
        self._configure()

    def truncate_wal(self, wait_ms: int = 0) -> bool:
        """Empty the WAL, so that it has no old text. Return False if a reader prevents this for *wait_ms*.

        Call this outside of a transaction. Raises sqlite3.Error.
        """
        self.db.execute(f"PRAGMA busy_timeout = {wait_ms}")
        try:
            is_busy, _, _ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self.db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        self._preallocator = WalPreallocator(self.path)
        return not is_busy

    def preallocate_wal(self) -> None:
        """Extend the WAL if the last commit grew it: see WalPreallocator.extend(). Call this after each commit."""
        self._preallocator.extend(self.db)

    def _connect(self) -> None:
        self.db, self._preallocator = connect_database(self.path), WalPreallocator(self.path)

    def _configure(self) -> None:
        (mode,) = self.db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise LogUnusable(f"{self.path} cannot be opened in WAL mode: choose another --data, on a local disk")
        self.db.executescript(f"""
            PRAGMA synchronous = FULL; PRAGMA cache_size = -16000; PRAGMA journal_size_limit = {64 * MiB};
            PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA secure_delete = ON""")

    def _migrate(self) -> None:
        version = read_schema(self.db)
        if version > len(MIGRATIONS):
            schemas = f"it has schema {version}, and this version knows {len(MIGRATIONS)}"
            raise LogUnusable(
                f"{self.path} was written by a newer Hubbub ({schemas}): update Hubbub, or choose another --data"
            )
        if 0 < version < len(MIGRATIONS):
            copy = save_old_schema(self.db, self.path, version)
            _log.info("log_upgrade", path=str(self.path), schema=version, to=len(MIGRATIONS), copy=copy.name)
        migrate_schema(self.db)


def make_log_folder(path: Path) -> None:
    """Make the folder that contains the log at *path*. Raises LogUnusable."""
    try:
        make_folder(path.parent)
    except OSError as error:
        raise LogUnusable(str(error)) from None
