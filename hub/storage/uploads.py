"""Write the bytes of an upload to disk and hash them, part by part."""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import attrs

from hub.errors import EmptyFile, StorageUnavailable, UnknownSession
from hub.ids import Key, id_of
from hub.storage.private import open_private
from hub.storage.quota import SpaceShare
from hub.storage.records import FileRecord

if TYPE_CHECKING:
    from hub.storage.blobs import Files

T = TypeVar("T")


@attrs.define(eq=False, kw_only=True)
class Upload:
    """A file that is being uploaded. Call write() for each part, then finish(), then save(); one call at a time.

    *last_step* is the work of the last call. The work goes on even if the call is cancelled.
    """

    files: "Files"
    key: Key
    name: str
    type: str
    path: Path
    shares: Sequence[SpaceShare] = ()
    digest: str = ""
    size: int = 0
    counted_bytes: int = 0  # the bytes that FileQuota counts for this file
    is_saved: bool = False
    session_is_deleted: bool = False  # True if the session was deleted since the upload began
    last_step: "asyncio.Future[Any] | None" = None
    _out: IO[bytes] | None = None
    _hash: Any = attrs.Factory(hashlib.sha256)

    async def write(self, data: bytes) -> None:
        """Write the next part. Raises FileTooLarge, QuotaExceeded, UnknownSession, StorageUnavailable."""
        self.refuse_if_deleted()
        size = self.size + len(data)
        self.counted_bytes = self.files.quota.reserve(self.key, size, self.counted_bytes, self.shares)
        self.size = size
        await self._run_step(self.files.run_in_thread(self._append, data))

    async def finish(self) -> None:
        """Sync the file to disk after the last part. Raises EmptyFile, StorageUnavailable."""
        if not self.size:
            raise EmptyFile("the file is empty: send its bytes as the body")
        self.digest = await self._run_step(self.files.run_in_thread(self._sync))

    async def save(self) -> FileRecord:
        """Make the file a blob, add its record, and return the record. Raises UnknownSession, StorageUnavailable."""
        return await self._run_step(self.files.save_upload(self))

    def refuse_if_deleted(self) -> None:
        """Raise UnknownSession if the session was deleted since the upload began."""
        if self.session_is_deleted:
            raise UnknownSession(f"session {id_of(self.key)} was deleted during the upload")

    async def _run_step(self, work: Awaitable[T]) -> T:
        self.last_step = step = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(step)
        except OSError as error:
            raise StorageUnavailable(f"files cannot be written now ({error.strerror}): try again") from error

    def _append(self, data: bytes) -> None:
        if self._out is None:
            self._out = open(self.path, "xb", opener=open_private)
        self._out.write(data)
        self._hash.update(data)

    def _sync(self) -> str:
        """Sync and close the file, and return the digest."""
        assert self._out is not None
        with self._out as out:
            out.flush()
            os.fsync(out.fileno())
        return str(self._hash.hexdigest())

    def drop(self) -> None:
        """Delete the file from disk. Call this in a thread, after all other steps."""
        with suppress(OSError):  # close() may raise on a full disk, but the file is then closed, too
            if self._out is not None:
                self._out.close()
        self.path.unlink(missing_ok=True)
