"""A file on its way in: its bytes go to disk piece by piece, and are hashed."""

import asyncio
import hashlib
import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import attrs

from hub.errors import EmptyFile, StorageUnavailable, UnknownSession
from hub.ids import Key, id_of
from hub.storage.private import open_private
from hub.storage.records import FileRecord

if TYPE_CHECKING:
    from hub.storage.blobs import Files

T = TypeVar("T")


@attrs.define(eq=False, kw_only=True)
class Upload:
    """A file that comes in, piece by piece. One call at a time; where that is cancelled, its work goes on unheard."""

    files: "Files"
    key: Key
    name: str
    type: str
    path: Path
    digest: str = ""
    size: int = 0
    counted: int = 0
    is_saved: bool = False
    session_is_deleted: bool = False  # while the file was being uploaded
    last_step: "asyncio.Future[Any] | None" = None
    _out: IO[bytes] | None = None
    _hash: Any = attrs.Factory(hashlib.sha256)

    async def write(self, data: bytes) -> None:
        """Add a piece; raises FileTooLarge, QuotaExceeded, UnknownSession, StorageUnavailable."""
        self.refuse_if_deleted()
        self.files.count(self, len(data))
        await self._step(self.files.work(self._append, data))

    async def finish(self) -> None:
        """Say that all has come; it is on disk then. Raises EmptyFile, StorageUnavailable."""
        if not self.size:
            raise EmptyFile("the file is empty: send its bytes as the body")
        self.digest = await self._step(self.files.work(self._sync))

    async def save(self) -> FileRecord:
        """Keep what has come; raises UnknownSession, StorageUnavailable."""
        return await self._step(self.files.save_upload(self))

    def refuse_if_deleted(self) -> None:
        if self.session_is_deleted:
            raise UnknownSession(f"session {id_of(self.key)} was deleted while the file came in")

    async def _step(self, work: Awaitable[T]) -> T:
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
        assert self._out is not None
        with self._out as out:
            out.flush()
            os.fsync(out.fileno())
        return str(self._hash.hexdigest())

    def drop(self) -> None:
        """Leave nothing on disk; in a thread, after every other step."""
        with suppress(OSError):  # on a full disk closing fails, and closes all the same
            if self._out is not None:
                self._out.close()
        self.path.unlink(missing_ok=True)
