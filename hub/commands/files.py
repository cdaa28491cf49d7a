"""Files of sessions: taken in piece by piece, and handed out."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.errors import UnknownFile
from hub.ids import Key, id_of, tenant_of
from hub.messages import StoredFile
from hub.storage.blobs import Files
from hub.storage.records import FileRecord
from hub.storage.uploads import Upload
from hub.text import cut


@attrs.frozen
class UploadWriter:
    """A file that comes in: write() its pieces in order, then keep() it once."""

    _hub: Hub
    _upload: Upload

    async def write(self, piece: bytes) -> None:
        """Add a piece; raises FileTooLarge, QuotaExceeded, UnknownSession, StorageUnavailable."""
        await self._upload.write(piece)

    async def keep(self) -> StoredFile:
        """Keep what has come, in its session, which is made where there is none.

        Raises EmptyFile, and what write() does.
        """
        await self._upload.finish()
        async with self._hub.node.use(self._upload.key) as session:
            self._upload.refuse_if_deleted()  # in the step in which the log is asked for the session
            await self._hub.node.create(session)
            file = await self._upload.save()
        return StoredFile(fileId=file.fileId, sessionId=id_of(file.key), name=file.name, type=file.type, size=file.size)


@attrs.frozen
class ReadableFile:
    """A file that may be read."""

    file: FileRecord
    _files: Files

    def opened(self) -> AbstractAsyncContextManager[Callable[[int, int], Awaitable[bytes]]]:
        """Yield a function read(offset, size), which raises EOFError past the end; raises UnknownFile."""
        return self._files.open(self.file)


async def upload(
    hub: Hub, principal: Principal, session_id: str, file_name: str, media_type: str
) -> AbstractAsyncContextManager[UploadWriter]:
    """Take a file in for a session; what was not kept when the context ends is dropped.

    Entering it raises BadType and BadQuery.
    """
    return _incoming(hub, hub.key(principal, session_id), file_name, media_type)


@asynccontextmanager
async def _incoming(hub: Hub, key: Key, file_name: str, media_type: str) -> AsyncIterator[UploadWriter]:
    async with hub.node.files.upload(key, file_name, media_type) as upload:
        yield UploadWriter(hub, upload)


async def open_file(hub: Hub, principal: Principal, file_id: str) -> ReadableFile:
    """Return a file; raises UnknownFile, also for one of another tenant."""
    found = await hub.node.files.find(file_id)
    if tenant_of(found.key) != principal.tenant:
        raise UnknownFile(f"there is no file {cut(file_id, 128)}")
    return ReadableFile(found, hub.node.files)
