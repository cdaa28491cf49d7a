"""Whether the file that is written still has its name: SQLite goes on writing one that was deleted, and all is lost."""

import os
import sqlite3
import time
from pathlib import Path

LOOK_SECONDS = 1.0  # between two looks: one takes 2 us, and gives the GIL away


class Gone(sqlite3.OperationalError):
    """The file was deleted, moved or replaced."""


class OpenFile:
    """The file at a path, as it is when this is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is = self._found()
        self._due = 0.0

    def look(self) -> None:
        """Do as check() does, once in a while."""
        if time.monotonic() >= self._due:
            self.check()
            self._due = time.monotonic() + LOOK_SECONDS

    def check(self) -> None:
        """Raise Gone where another file, or none, has the name now."""
        if self._found() != self._is:
            what = "is not the file that was opened; put that one back, or start the hub anew"
            raise Gone(f"{self._path} {what}")

    def _found(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_dev, stat.st_ino
