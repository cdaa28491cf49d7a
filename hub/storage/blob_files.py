"""Operations on blobs that may block: call them in a thread."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from hub.storage.disk import sync_folder


def open_blob(path: Path) -> IO[bytes]:
    return path.open("rb")


def read_blob(blob: IO[bytes], offset: int, size: int) -> bytes:
    """Return *size* bytes from *offset*. Raises EOFError if the blob has fewer bytes."""
    blob.seek(offset)
    data = blob.read(size)
    if len(data) < size:
        raise EOFError
    return data


def rename_to_blob(part: Path, blob: Path) -> None:
    """Rename a complete upload, and sync the new name to disk. Replaces an existing blob, which has the same bytes."""
    os.replace(part, blob)
    sync_folder(blob.parent)


def unlink_all(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
