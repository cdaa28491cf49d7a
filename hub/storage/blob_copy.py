"""Copy blobs to or from a backup, and compare their bytes with their names."""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import attrs

from hub.limits import MiB
from hub.storage.archive import CopyProgress
from hub.storage.disk import sync_folder
from hub.storage.private import make_private, open_private

BLOCK_BYTES = MiB


def read_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, target: Path, report: CopyProgress) -> str:
    """Copy a file to the new private file *target*, and sync it. Return the SHA-256 in hex. Raises OSError."""
    with source.open("rb") as file, open(target, "xb", opener=open_private) as copy:
        size = os.fstat(file.fileno()).st_size
        return copy_bytes(file, copy, lambda _: report(copy.tell(), size))


def copy_bytes(source: IO[bytes], copy: IO[bytes], on_block: Callable[[int], None]) -> str:
    """Copy an open file, and sync the copy. Return the SHA-256 of its bytes in hex. Raises OSError.

    If the disk cannot read a block, the copy ends there, so its digest is wrong. *on_block* is called with the size of
    each block.
    """
    digest = hashlib.sha256()
    while block := _read_block(source):
        copy.write(block)
        digest.update(block)
        on_block(len(block))
    copy.flush()
    os.fsync(copy.fileno())
    return digest.hexdigest()


def _read_block(source: IO[bytes]) -> bytes:
    with suppress(OSError):
        return source.read(BLOCK_BYTES)
    return b""


@attrs.define(eq=False, kw_only=True)
class BlobCopy:
    """Copies the blobs with the digests and *sizes* from the folder *source* to the new folder *target*."""

    source: Path
    target: Path
    sizes: Mapping[str, int]
    report: CopyProgress
    _copied_bytes: int = 0
    _all_bytes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._all_bytes = sum(self.sizes.values())

    def run(self) -> tuple[str, ...]:
        """Copy and sync the blobs. Return the digests of those that are missing or damaged; they are left out.

        Raises OSError if a blob cannot be written, and the errors of *report*.
        """
        make_private(self.target, lambda name: True)
        missing = tuple(digest for digest in self.sizes if not self._copy(digest))
        sync_folder(self.target)
        return missing

    def _copy(self, digest: str) -> bool:
        """Copy a blob. Return False if it cannot be read, or if its bytes do not have the digest."""
        target = self.target / digest
        try:
            source = (self.source / digest).open("rb")
        except OSError:
            return False
        with source, open(target, "xb", opener=open_private) as copy:
            is_whole = copy_bytes(source, copy, self._count) == digest
        if not is_whole:
            target.unlink()
        return is_whole

    def _count(self, size: int) -> None:
        self._copied_bytes += size
        self.report(self._copied_bytes, self._all_bytes)
