"""Use cases for the files of sessions: upload, list, read and delete."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

from hub.access.principal import Principal
from hub.commands.guard import use_session
from hub.commands.history import find_head
from hub.commands.hub import Hub
from hub.commands.space import find_space_shares
from hub.errors import UnknownFile, UnknownSession
from hub.ids import Key, id_of, tenant_of
from hub.messages import Page, PageRequest, StoredFile
from hub.storage.blobs import Files
from hub.storage.records import FileRecord
from hub.storage.uploads import Upload
from hub.text import cut


@attrs.frozen
class UploadWriter:
    """An upload in progress: call write() for each chunk in order, then save() once."""

    _hub: Hub
    _principal: Principal
    _upload: Upload

    async def write(self, chunk: bytes) -> None:
        """Append a chunk. Raises FileTooLarge, QuotaExceeded, UnknownSession, StorageUnavailable."""
        await self._upload.write(chunk)

    async def save(self) -> StoredFile:
        """Store the file in its session. Create the session if it does not exist.

        Raises EmptyFile, UnknownSession, SessionDeleted, StorageUnavailable.
        """
        await self._upload.finish()
        async with use_session(self._hub, self._principal, "write", self._upload.key, may_create=True) as session:
            self._upload.refuse_if_deleted()  # no await between this check and the creation of the session
            await self._hub.node.loader.create(session)
            file = await self._upload.save()
        return _to_stored_file(file)


@attrs.frozen
class ReadableFile:
    """A stored file that the principal may read."""

    file: FileRecord
    _files: Files

    def open(self) -> AbstractAsyncContextManager[Callable[[int, int], Awaitable[bytes]]]:
        """Open the file. The context yields read(offset, size), which raises EOFError at the end.

        Entering the context raises UnknownFile.
        """
        return self._files.open(self.file)


async def upload(
    hub: Hub, principal: Principal, session_id: str, file_name: str, media_type: str
) -> AbstractAsyncContextManager[UploadWriter]:
    """Start the upload of a file to a session. If the context ends before save(), the file is dropped.

    Entering the context raises BadType, BadQuery and StorageUnavailable.
    """
    return _open_upload(hub, principal, hub.make_key(principal, session_id), file_name, media_type)


@asynccontextmanager
async def _open_upload(
    hub: Hub, principal: Principal, key: Key, file_name: str, media_type: str
) -> AsyncIterator[UploadWriter]:
    shares = await find_space_shares(hub, principal, key) if hub.is_sign_in_on else ()
    async with hub.node.files.upload(key, file_name, media_type, shares) as upload:
        yield UploadWriter(hub, principal, upload)


async def list_files(hub: Hub, principal: Principal, session_id: str, request: PageRequest) -> Page[StoredFile]:
    """Return a page of the files of a session, in the order of their uploads. Raises UnknownSession and BadQuery."""
    head = await find_head(hub, principal, session_id)
    page = await hub.node.log.files.list(head.key, request)
    return Page([_to_stored_file(file) for file in page.rows], page.next_cursor)


async def open_file(hub: Hub, principal: Principal, file_id: str) -> ReadableFile:
    """Return a file of the principal's tenant. Raises UnknownFile, also for a file of another tenant."""
    return ReadableFile(await _find_file(hub, principal, file_id), hub.node.files)


async def delete_file(hub: Hub, principal: Principal, file_id: str) -> None:
    """Delete a file of the principal's tenant. Messages that name the file stay.

    Raises UnknownFile, StorageUnavailable.
    """
    file = await _find_file(hub, principal, file_id)
    try:
        async with use_session(hub, principal, "write", file.key):
            await hub.node.files.delete(file_id)  # deletes nothing if the session was deleted meanwhile
    except UnknownSession:
        raise _unknown_file(file_id) from None


async def _find_file(hub: Hub, principal: Principal, file_id: str) -> FileRecord:
    file = await hub.node.files.find(file_id)
    if tenant_of(file.key) != principal.tenant:
        raise _unknown_file(file_id)
    return file


def _unknown_file(file_id: str) -> UnknownFile:
    return UnknownFile(f"there is no file {cut(file_id, 128)}")


def _to_stored_file(file: FileRecord) -> StoredFile:
    return StoredFile(
        fileId=file.fileId,
        sessionId=id_of(file.key),
        name=file.name,
        type=file.type,
        size=file.size,
        ts=file.created or None,
    )
