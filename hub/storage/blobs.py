"""Store the bytes of files as blobs. A blob is a file in the hub's folder `files`, named by the digest of its bytes.

Files with the same bytes share a blob. The log has a record of each file, with the digest of its blob. A blob is
complete and on disk before a record names it, and is removed when no record names it any more. After a crash, the next
start removes unfinished uploads and blobs without a record. All work with the disk runs in threads.

The same bytes may be uploaded to one session while they are deleted from another. So each digest has a lock. An upload
holds the lock while it makes the blob and adds the record. A deletion holds the lock while it searches the log for
records and removes the blob. A fork needs no lock: its commit copies only records that exist (Append.file_copies).
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar
from weakref import WeakValueDictionary

import attrs
import structlog

from hub.errors import StorageUnavailable, UnknownFile
from hub.ids import Key
from hub.limits import Limits
from hub.seams import Seams
from hub.storage import lockfile
from hub.storage.blob_files import open_blob, read_blob, rename_to_blob, unlink_all
from hub.storage.disk import sync_folder
from hub.storage.file_hold import try_to_unlink
from hub.storage.file_names import check_file_name, check_media_type, make_file_id
from hub.storage.log import FileStore
from hub.storage.private import make_private, touch_private
from hub.storage.quota import MIN_COUNTED_BYTES, FileQuota, SpaceShare, sum_counted_bytes
from hub.storage.records import FileRecord
from hub.storage.uploads import Upload
from hub.text import cut

log = structlog.get_logger()

BLOB_THREADS = 4
SWEEP_BATCH = 500  # start() searches the log with one query for the records of this many blobs
BLOB_NAME = re.compile(r"[0-9a-f]{64}")
PART_SUFFIX = ".part"  # ends the name of an unfinished upload
OWNER_FILE = "log"  # a file that contains the name of the log to which the blobs belong
T = TypeVar("T")


@attrs.define(eq=False, repr=False, kw_only=True)
class Files:
    """The files of one hub: uploads and blobs in *folder*, and their records in *store*. Start the log first."""

    folder: Path
    store: FileStore
    limits: Limits
    seams: Seams
    quota: FileQuota = attrs.field(init=False)
    _owns_folder: bool = False  # the folder belongs to this log
    is_open: bool = False  # between start() and close()
    _uploads: set[Upload] = attrs.Factory(set)
    _locks: "WeakValueDictionary[str, asyncio.Lock]" = attrs.Factory(WeakValueDictionary)
    _tasks: "set[asyncio.Task[None]]" = attrs.Factory(set)
    _held_digests: set[str] = attrs.Factory(set)  # of unused blobs that a backup held back when they were to be removed
    _undo: ExitStack = attrs.Factory(ExitStack)
    _threads: ThreadPoolExecutor = attrs.Factory(lambda: ThreadPoolExecutor(BLOB_THREADS, "hub-files"))

    def __attrs_post_init__(self) -> None:
        self.quota = FileQuota(self.limits)

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def start(self, log_name: str) -> None:
        """Open the folder for the log *log_name*, count the bytes of the files, and remove what a crash left.

        If the folder belongs to another log, no blob is ever removed. Raises LogUnusable, StorageUnavailable, OSError.
        """
        self.is_open = True
        names = await self.run_in_thread(self._prepare_folder, log_name)
        for key, size in (await self.store.sum_bytes_by_session(MIN_COUNTED_BYTES)).items():
            self.quota.add(key, size)
        if not self._owns_folder:
            log.warning("the files folder belongs to another log; no blob is removed from it", folder=str(self.folder))
        unfinished_uploads = [self.folder / name for name in names if name.endswith(PART_SUFFIX)]
        await self.run_in_thread(unlink_all, unfinished_uploads)
        blobs = [name for name in names if BLOB_NAME.fullmatch(name)]
        for start in range(0, len(blobs), SWEEP_BATCH):
            await self._remove_unused_blobs(blobs[start : start + SWEEP_BATCH])

    def _prepare_folder(self, log_name: str) -> list[str]:
        """Make the folder and take its lock; return the names in the folder."""
        make_private(
            self.folder,
            lambda name: name == OWNER_FILE or name.endswith(PART_SUFFIX) or BLOB_NAME.fullmatch(name) is not None,
        )
        lockfile.take_lock(self.folder, self._undo)
        owner_file = self.folder / OWNER_FILE
        touch_private(owner_file)
        owner = owner_file.read_text(encoding="utf-8")
        if not owner:
            owner_file.write_text(log_name, encoding="utf-8")
        self._owns_folder = owner in ("", log_name)
        sync_folder(self.folder.parent)
        return os.listdir(self.folder)

    async def close(self) -> None:
        """Wait for the tasks that end uploads and remove blobs. Then refuse all work, and release the lock."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.is_open = False
        self._threads.shutdown(wait=False)
        self._undo.close()

    async def run_in_thread(self, function: Callable[..., T], *values: Any) -> T:
        """Call *function* in a thread; return its result. Raises StorageUnavailable unless the store is open."""
        if not self.is_open:
            raise StorageUnavailable("the file store is closed, as the hub starts or goes down: try again in a moment")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *values)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task that goes on if the caller is cancelled. close() waits for the task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- uploads ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def upload(self, key: Key, name: str, type: str, shares: Sequence[SpaceShare] = ()) -> AsyncIterator[Upload]:
        """Yield an upload. At the end, delete the bytes unless the upload was saved. Raises BadType, BadQuery.

        The file must also fit into *shares*.
        """
        check_file_name(name, self.limits.file_name_length)
        check_media_type(type)
        path = self.folder / (self.seams.new_secret(16) + PART_SUFFIX)
        upload = Upload(files=self, key=key, name=name, type=type, path=path, shares=shares)
        self._uploads.add(upload)
        try:
            with self.quota.use_shares(shares):
                yield upload
        finally:
            await asyncio.shield(self._start_task(self._end_upload(upload)))

    async def _end_upload(self, upload: Upload) -> None:
        if upload.last_step is not None:
            await asyncio.wait([upload.last_step])  # then no thread uses the file
        self._uploads.discard(upload)
        if not upload.is_saved:
            self.quota.add(upload.key, -upload.counted_bytes)
            with suppress(OSError, StorageUnavailable):  # if this fails, the next start removes the file
                await self.run_in_thread(upload.drop)

    async def save_upload(self, upload: Upload) -> FileRecord:
        """Turn a finished upload into a blob, add its record, and return the record.

        The caller must not cancel the call. Raises UnknownSession, StorageUnavailable, OSError.
        """
        file = FileRecord(
            fileId=make_file_id(self.seams),
            key=upload.key,
            name=upload.name,
            type=upload.type,
            size=upload.size,
            digest=upload.digest,
        )
        async with self._get_lock(file.digest):
            await self.run_in_thread(rename_to_blob, upload.path, self.folder / file.digest)
            try:
                # No await between this check and add(): forget_session() could run in between, and the record could
                # then go to a new session with the same key.
                upload.refuse_if_deleted()
                await self.store.add(file)
            except BaseException:
                await self._remove_unused_blobs([file.digest])
                upload.refuse_if_deleted()  # a better error than the log's, which refuses a record of a deleted session
                raise
        upload.is_saved = True
        return file

    async def save(self, key: Key, name: str, type: str, data: bytes) -> FileRecord:
        """Save a file whose bytes are in memory. Raises the errors of upload() and of the methods of Upload."""
        async with self.upload(key, name, type) as upload:
            await upload.write(data)
            await upload.finish()
            return await upload.save()

    # --- reading ----------------------------------------------------------------------------------------------------

    async def find(self, file_id: str) -> FileRecord:
        """Return the record of a file. Raises UnknownFile, StorageUnavailable."""
        file = await self.store.find(file_id)
        if file is None:
            raise _unknown_file(file_id)
        return file

    def blob_size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if there is no such blob. May be called before start()."""
        path = self.folder / digest
        return path.stat().st_size if path.is_file() else None

    @asynccontextmanager
    async def open(self, file: FileRecord) -> AsyncIterator[Callable[[int, int], Awaitable[bytes]]]:
        """Yield a function read(offset, size), which raises EOFError past the end.

        open() raises UnknownFile if the blob is missing. Both raise StorageUnavailable and OSError.
        """
        opening = asyncio.ensure_future(self.run_in_thread(open_blob, self.folder / file.digest))
        try:
            blob = await asyncio.shield(opening)
        except FileNotFoundError:
            raise _unknown_file(file.fileId) from None
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unused_blob)
            raise
        try:
            yield lambda offset, size: self.run_in_thread(read_blob, blob, offset, size)
        finally:
            self._close_blob(blob)

    def _close_unused_blob(self, opening: "asyncio.Future[IO[bytes]]") -> None:
        """Close a blob whose reader was cancelled before the blob was open."""
        if not opening.cancelled() and opening.exception() is None:
            self._close_blob(opening.result())

    def _close_blob(self, blob: IO[bytes]) -> None:
        """Close a blob in a thread, without an await that could be cancelled."""
        try:
            self._threads.submit(blob.close)
        except RuntimeError:  # after close() there are no threads
            blob.close()

    async def read(self, file: FileRecord) -> bytes:
        """Return all bytes of a file. Raises the errors of open() and of the function that it yields."""
        async with self.open(file) as read:
            return await read(0, file.size)

    # --- removal ----------------------------------------------------------------------------------------------------

    async def forget_session(self, key: Key, files: Iterable[FileRecord]) -> None:
        """Make the uploads to a deleted session fail, and remove the blobs that only this session used.

        *files* are the records that the log deleted. Uploads that start later, to a new session with the same key, do
        not fail.
        """
        for upload in self._uploads:
            upload.session_is_deleted = upload.session_is_deleted or upload.key == key
        await self.forget_files(key, files)

    async def forget_files(self, key: Key, files: Iterable[FileRecord]) -> None:
        """Remove the blobs that only *files* used: records of a session that the log deleted."""
        self.quota.add(key, -sum_counted_bytes(file.size for file in files))
        # In a task, so that the blobs are removed even if the caller is cancelled.
        await asyncio.shield(self._start_task(self._remove_with_locks({file.digest for file in files})))

    async def delete(self, file_id: str) -> None:
        """Delete a file: its record, then its blob if no other record names it. Raises UnknownFile, StorageUnavailable.

        Reads of the file that have begun go on.
        """
        # In a task, so that the blob goes and does not count any more even if the caller is cancelled.
        await asyncio.shield(self._start_task(self._delete(file_id)))

    async def _delete(self, file_id: str) -> None:
        file = await self.store.delete(file_id)
        if file is None:
            raise _unknown_file(file_id)
        await self.forget_files(file.key, [file])

    async def remove_held_blobs(self) -> None:
        """Remove the unused blobs that a backup held back, if it has ended."""
        digests, self._held_digests = self._held_digests, set()
        if digests:
            await asyncio.shield(self._start_task(self._remove_with_locks(digests)))

    async def _remove_with_locks(self, digests: Iterable[str]) -> None:
        for digest in digests:
            async with self._get_lock(digest):
                await self._remove_unused_blobs([digest])

    async def _remove_unused_blobs(self, digests: list[str]) -> None:
        """Remove the blobs of *digests* that no record names. Every caller but start() holds the locks of *digests*."""
        if not self._owns_folder:
            return
        with suppress(StorageUnavailable, OSError):  # if this fails, the next start removes the blobs
            free_digests = {*digests}.difference(await self.store.find_used_digests(digests))
            paths = [self.folder / digest for digest in free_digests]
            if not await self.run_in_thread(try_to_unlink, self.folder, paths):
                self._held_digests |= free_digests

    def _get_lock(self, digest: str) -> asyncio.Lock:
        return self._locks.setdefault(digest, asyncio.Lock())


def _unknown_file(file_id: str) -> UnknownFile:
    return UnknownFile(f"there is no file {cut(file_id, 128)}")
