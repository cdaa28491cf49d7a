"""Hold back the deletion of blobs, so that a backup can copy all blobs that its copy of the log names.

The lock is on the folder of the files itself. The hub takes it for the moment of a deletion, and a backup for as long
as it copies. A lock ends with its process, so a killed backup holds nothing back. On Windows there is no lock.
"""

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hub.storage.blob_files import unlink_all

if sys.platform != "win32":
    import fcntl

# Deletions of one hub take turns, so that none of them mistakes another one for a backup. They are short.
_deleting = threading.Lock()


@contextmanager
def hold_blobs(folder: Path) -> Iterator[None]:
    """Within the context, no hub deletes a blob in *folder*. First wait until a deletion in progress has ended.

    Does nothing if there is no folder. May block: call this in a thread. Raises OSError.
    """
    if sys.platform == "win32" or not folder.is_dir():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # several backups may run at once
        yield
    finally:
        os.close(descriptor)


def try_to_unlink(folder: Path, paths: Iterable[Path]) -> bool:
    """Delete files in *folder*. Return False, and delete nothing, while a backup holds the blobs. Raises OSError."""
    if sys.platform == "win32":
        unlink_all(paths)
        return True
    descriptor = os.open(folder, os.O_RDONLY)
    with _deleting:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlink_all(paths)
            return True
        except BlockingIOError:
            return False
        finally:
            # A child of the hub that was forked meanwhile has the descriptor, too: closing it would not end the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
