"""The bytes of files, as blobs: each content is stored once, in a folder beside the log, under its digest.

The log has a record of each file, with the digest of its blob. A blob is complete and on disk before a record names it,
and is removed when no record names it any more. After a crash, the next start removes unfinished uploads and blobs
without a record. All work with the disk runs in threads.

The same content may be uploaded to one session while it is deleted from another. A lock for each digest orders the two:
an upload holds the lock while it makes the blob and adds the record, and a deletion holds it while it asks the log
for records and removes the blob.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
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
from hub.storage.blob_files import open_blob, read_blob, rename_to_blob, sync_folder, unlink_all
from hub.storage.file_names import check_file_name, check_media_type
from hub.storage.log import FileStore
from hub.storage.private import make_private, touch_private
from hub.storage.quota import MIN_COUNTED_BYTES, FileQuota
from hub.storage.records import FileRecord
from hub.storage.uploads import Upload
from hub.text import cut

log = structlog.get_logger()

BLOB_THREADS = 4
SWEEP_BATCH = 500  # blobs for which the log is asked at a time
BLOB_NAME = re.compile(r"[0-9a-f]{64}")
PART_SUFFIX = ".part"  # of the name of an unfinished upload
OWNER_FILE = "log"  # contains the name of the log whose blobs are in the folder
T = TypeVar("T")


@attrs.define(eq=False, repr=False, kw_only=True)
class Files:
    """The files of one hub. Call start() after the log's."""

    folder: Path
    store: FileStore
    limits: Limits
    seams: Seams
    quota: FileQuota = attrs.field(init=False)
    _is_owner: bool = False  # the folder belongs to this log
    _is_open: bool = False
    _uploads: set[Upload] = attrs.Factory(set)
    _locks: "WeakValueDictionary[str, asyncio.Lock]" = attrs.Factory(WeakValueDictionary)
    _tasks: "set[asyncio.Task[None]]" = attrs.Factory(set)
    _undo: ExitStack = attrs.Factory(ExitStack)
    _threads: ThreadPoolExecutor = attrs.Factory(lambda: ThreadPoolExecutor(BLOB_THREADS, "hub-files"))

    def __attrs_post_init__(self) -> None:
        self.quota = FileQuota(self.limits)

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def start(self, log_name: str) -> None:
        """Take the folder and its lock for the log of that name, count the files, and remove the remains of a crash.

        Raises LogUnusable, OSError.
        """
        self._is_open = True
        names = await self.run_in_thread(self._prepare_folder, log_name)
        for key, size in (await self.store.sum_bytes_by_session(MIN_COUNTED_BYTES)).items():
            self.quota.add(key, size)
        if not self._is_owner:
            log.warning("the files folder belongs to another log; no blob is removed from it", folder=str(self.folder))
        parts = [self.folder / name for name in names if name.endswith(PART_SUFFIX)]
        await self.run_in_thread(unlink_all, parts)
        blobs = [name for name in names if BLOB_NAME.fullmatch(name)]
        for start in range(0, len(blobs), SWEEP_BATCH):
            await self._remove_unused_blobs(blobs[start : start + SWEEP_BATCH])

    def _prepare_folder(self, log_name: str) -> list[str]:
        """Return the names in the folder."""
        make_private(
            self.folder,
            lambda name: name == OWNER_FILE or name.endswith(PART_SUFFIX) or BLOB_NAME.fullmatch(name) is not None,
        )
        lockfile.hold(self.folder, self._undo)
        owner_file = self.folder / OWNER_FILE
        touch_private(owner_file)
        owner = owner_file.read_text(encoding="utf-8")
        if not owner:
            owner_file.write_text(log_name, encoding="utf-8")
        self._is_owner = owner in ("", log_name)
        sync_folder(self.folder.parent)
        return os.listdir(self.folder)

    async def close(self) -> None:
        """Wait for uploads and removals that have begun, then refuse all further work."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._is_open = False
        self._threads.shutdown(wait=False)
        self._undo.close()

    async def run_in_thread(self, function: Callable[..., T], *values: Any) -> T:
        """Call *function* in a thread of the store. Raises StorageUnavailable before start() and after close()."""
        if not self._is_open:
            raise StorageUnavailable("the file store is closed: the hub is going down")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *values)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run *work* to its end, also if the caller is cancelled; close() waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- uploads ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def upload(self, key: Key, name: str, type: str) -> AsyncIterator[Upload]:
        """Yield an upload; drop its bytes at the end unless it was saved. Raises BadType, BadQuery."""
        check_file_name(name, self.limits.file_name_length)
        check_media_type(type)
        path = self.folder / (self.seams.new_secret(16) + PART_SUFFIX)
        upload = Upload(files=self, key=key, name=name, type=type, path=path)
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            await asyncio.shield(self._start_task(self._end_upload(upload)))

    async def _end_upload(self, upload: Upload) -> None:
        if upload.last_step is not None:
            await asyncio.wait([upload.last_step])  # so that no other thread uses the file now or later
        self._uploads.discard(upload)
        if not upload.is_saved:
            self.quota.add(upload.key, -upload.counted_bytes)
            with suppress(OSError, StorageUnavailable):  # then the next start removes the file
                await self.run_in_thread(upload.drop)

    async def save_upload(self, upload: Upload) -> FileRecord:
        """Make a finished upload a blob, and add its record. The caller must not cancel this."""
        file = FileRecord(
            fileId=f"f_{self.seams.new_secret(16)}",
            key=upload.key,
            name=upload.name,
            type=upload.type,
            size=upload.size,
            digest=upload.digest,
        )
        async with self._lock(file.digest):
            await self.run_in_thread(rename_to_blob, upload.path, self.folder / file.digest)
            try:
                # In one step with add(): a record that is added after forget() would outlive the session.
                upload.refuse_if_deleted()
                await self.store.add(file)
            except BaseException:
                await self._remove_unused_blobs([file.digest])
                upload.refuse_if_deleted()  # the likely reason why the log refused the record
                raise
        upload.is_saved = True
        return file

    async def save(self, key: Key, name: str, type: str, data: bytes) -> FileRecord:
        """Save a file whose bytes are in memory. Raises what upload() and the methods of Upload raise."""
        async with self.upload(key, name, type) as upload:
            await upload.write(data)
            await upload.finish()
            return await upload.save()

    # --- reading ----------------------------------------------------------------------------------------------------

    async def find(self, file_id: str) -> FileRecord:
        """Return the record of a file. Raises UnknownFile."""
        file = await self.store.find(file_id)
        if file is None:
            raise _unknown_file(file_id)
        return file

    def blob_size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if there is no such blob. It works before start(), too."""
        path = self.folder / digest
        return path.stat().st_size if path.is_file() else None

    @asynccontextmanager
    async def open(self, file: FileRecord) -> AsyncIterator[Callable[[int, int], Awaitable[bytes]]]:
        """Yield a function read(offset, size), which raises EOFError past the end. Raises UnknownFile."""
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
        """Close a blob in a thread, without waiting, so that no cancel can prevent it."""
        try:
            self._threads.submit(blob.close)
        except RuntimeError:  # the threads have ended
            blob.close()

    async def read(self, file: FileRecord) -> bytes:
        """Return all bytes of a file. Raises UnknownFile."""
        async with self.open(file) as read:
            return await read(0, file.size)

    # --- removal ----------------------------------------------------------------------------------------------------

    async def forget(self, key: Key, files: Iterable[FileRecord]) -> None:
        """Remove the blobs of a session that the log has deleted, and refuse its uploads.

        *files* are the records that the log deleted. A new session with the same key is not affected.
        """
        for upload in self._uploads:
            upload.session_is_deleted = upload.session_is_deleted or upload.key == key
        self.quota.add(key, -sum(max(file.size, MIN_COUNTED_BYTES) for file in files))
        # A task of its own, so that blobs are removed also if the caller is cancelled.
        await asyncio.shield(self._start_task(self._remove_with_locks({file.digest for file in files})))

    async def _remove_with_locks(self, digests: Iterable[str]) -> None:
        for digest in digests:
            async with self._lock(digest):
                await self._remove_unused_blobs([digest])

    async def _remove_unused_blobs(self, digests: list[str]) -> None:
        """Remove the blobs that no record names. The caller holds their locks, except in start()."""
        if not self._is_owner:
            return
        with suppress(StorageUnavailable, OSError):  # then the next start removes them
            used = await self.store.find_used_digests(digests)
            await self.run_in_thread(unlink_all, [self.folder / digest for digest in {*digests}.difference(used)])

    def _lock(self, digest: str) -> asyncio.Lock:
        return self._locks.setdefault(digest, asyncio.Lock())


def _unknown_file(file_id: str) -> UnknownFile:
    return UnknownFile(f"there is no file {cut(file_id, 128)}")
