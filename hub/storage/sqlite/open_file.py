"""Check that the database file is still at its path: SQLite writes to a deleted file without an error."""

import os
import sqlite3
import time
from pathlib import Path

FILE_CHECK_SECONDS = 1.0  # the least time between two checks: a check takes 2 us and releases the GIL


class FileReplaced(sqlite3.OperationalError):
    """The file at the path was deleted, moved or replaced."""


class OpenFile:
    """The file that was at a path when this object was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = self._read_inode()
        self._next_check = 0.0

    def check_if_due(self) -> None:
        """Call check() if the last check by this method is at least FILE_CHECK_SECONDS ago. Raises FileReplaced."""
        if time.monotonic() >= self._next_check:
            self.check()
            self._next_check = time.monotonic() + FILE_CHECK_SECONDS

    def check(self) -> None:
        """Raise FileReplaced if the path now has another file, or none."""
        if self._read_inode() != self._inode:
            advice = "put the file back that the hub opened, or restart the hub"
            raise FileReplaced(f"{self._path} was deleted, moved or replaced: {advice}")

    def _read_inode(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_dev, stat.st_ino
