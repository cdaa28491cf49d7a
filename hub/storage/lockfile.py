"""Lock a log or a folder by a file beside it, so that only one process uses the log or the folder."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from hub.forks import call_in_children, replace_with_null
from hub.storage.log import LogInUse

if sys.platform != "win32":
    import fcntl


def take_lock(path: Path, undo: ExitStack) -> None:
    """Take the lock of *path*, in the file PATH.lock; *undo* releases the lock.

    Child processes do not inherit the lock, neither over fork nor over exec. On Windows there is no lock. If another
    process has the lock, raises LogInUse with the pid of that process. Raises OSError if the file cannot be opened.
    """
    if sys.platform != "win32":
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        undo.callback(os.close, lock)
        undo.callback(call_in_children(lambda: replace_with_null([lock])))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            raise LogInUse(path, owner) from None
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
