"""Large values: the bytes of each content once, in a folder beside the log, by their digest.

What a file is stands in the log; its bytes are a blob. A blob is whole and synced before the log names it, and goes
when the log names it no more. What a crash leaves behind, as half a blob or one without a name, is swept away at the
next start. All work with the disk is done in threads.

The same bytes may come in one session while they go with another. A lock for each digest sets these in order: who puts
a blob holds it from there until the log names it, who takes one away from asking the log until it is gone.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar
from weakref import WeakValueDictionary

import attrs
import structlog

from hub.errors import (
    BadQuery,
    BadType,
    FileTooLarge,
    QuotaExceeded,
    StorageUnavailable,
    UnknownFile,
)
from hub.ids import Key
from hub.limits import KiB, Limits, size_text
from hub.seams import Seams
from hub.storage import lockfile
from hub.storage.log import FileStore
from hub.storage.private import make_private, touch_private
from hub.storage.records import FileRecord
from hub.storage.uploads import Upload
from hub.text import cut

log = structlog.get_logger()

THREADS = 4
LEAST = 4 * KiB  # what a file counts at least, however small: a disk gives it a block
SWEPT = 500  # blobs that the log is asked for at a time
BLOB = re.compile(r"[0-9a-f]{64}")
PART = ".part"  # what a blob ends with until it is whole
OWNER = "log"  # the file that says which log's the blobs are
# RFC 6838 for the names, RFC 9110 section 8.3.1 for the parameters.
_TOKEN, _NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
TYPE = re.compile(rf'{_NAME}/{_NAME}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*')
TYPE_LENGTH = 255
# No control characters and slashes, no line ends of Unicode, and nothing that turns the direction of writing, by which
# a name can seem to end otherwise than it does.
UNFIT = re.compile("[\0-\x1f\x7f-\x9f/\\\\\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
T = TypeVar("T")


@attrs.define(eq=False, repr=False, kw_only=True)
class Files:
    """The store of one hub. *folder* and its owner are taken by start(), which comes after the log's."""

    folder: Path
    store: FileStore
    limits: Limits
    seams: Seams
    _bytes: dict[Key, int] = attrs.Factory(dict)  # of each session, with what comes in
    _total: int = 0
    _ours: bool = False
    _open: bool = False
    _uploads: set[Upload] = attrs.Factory(set)
    _locks: "WeakValueDictionary[str, asyncio.Lock]" = attrs.Factory(WeakValueDictionary)
    _tasks: "set[asyncio.Task[None]]" = attrs.Factory(set)
    _undo: ExitStack = attrs.Factory(ExitStack)
    _threads: ThreadPoolExecutor = attrs.Factory(lambda: ThreadPoolExecutor(THREADS, "hub-files"))

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def start(self, log_identity: str) -> None:
        """Take the folder for the log of that identity, count what is kept, sweep away what a crash left.

        Raises LogUnusable, OSError.
        """
        self._open = True
        names = await self.work(self._prepare, log_identity)
        for key, taken in (await self.store.sum_bytes_by_session(LEAST)).items():
            self._add(key, taken)
        if not self._ours:
            log.warning("the files folder is another log's; nothing is swept there", folder=str(self.folder))
        await self.work(_unlink, [self.folder / name for name in names if name.endswith(PART)])
        blobs = [name for name in names if BLOB.fullmatch(name)]
        for at in range(0, len(blobs), SWEPT):
            await self._take_away(blobs[at : at + SWEPT])

    def _prepare(self, log_identity: str) -> list[str]:
        make_private(self.folder, lambda name: name == OWNER or name.endswith(PART) or BLOB.fullmatch(name) is not None)
        lockfile.hold(self.folder, self._undo)
        owner = self.folder / OWNER
        touch_private(owner)
        known = owner.read_text(encoding="utf-8")
        if not known:
            owner.write_text(log_identity, encoding="utf-8")
        self._ours = known in ("", log_identity)
        _sync(self.folder.parent)
        return os.listdir(self.folder)

    async def close(self) -> None:
        """Let what is being put or taken away end; nothing comes in or goes out any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._open = False
        self._threads.shutdown(wait=False)
        self._undo.close()

    async def work(self, function: Callable[..., T], *values: Any) -> T:
        """Call *function* in a thread of the store's own."""
        if not self._open:
            raise StorageUnavailable("the files are not open: the hub is going down")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *values)

    def _own(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Let *work* go on to its end, whoever waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- in ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def upload(self, key: Key, name: str, type: str) -> AsyncIterator[Upload]:
        """Take a file in; unless it was kept, nothing of it stays. Raises BadType, BadQuery."""
        if not name or len(name) > self.limits.file_name_length or UNFIT.search(name):
            most = self.limits.file_name_length
            raise BadQuery(f"the name of a file has 1 to {most} characters, and no slash or control character")
        if len(type) > TYPE_LENGTH or not TYPE.fullmatch(type) or type.lower().startswith("multipart/form-data"):
            raise BadType("the type of a file is a media type, as text/plain or image/png, and its bytes are the body")
        upload = Upload(
            files=self, key=key, name=name, type=type, path=self.folder / (self.seams.new_secret(16) + PART)
        )
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            await asyncio.shield(self._own(self._end(upload)))

    async def _end(self, upload: Upload) -> None:
        if upload.last_step is not None:
            await asyncio.wait([upload.last_step])  # no two threads at one file, and nothing of it after this
        self._uploads.discard(upload)
        if not upload.is_saved:
            self._add(upload.key, -upload.counted)
            with suppress(OSError, StorageUnavailable):  # then the next start takes it
                await self.work(upload.drop)

    def count(self, upload: Upload, more: int) -> None:
        """Count bytes before they are written; in one step, so that no two uploads take the same room."""
        limits, key = self.limits, upload.key
        size = upload.size + more
        if size > limits.file_bytes:
            raise FileTooLarge(f"a file has at most {size_text(limits.file_bytes)}")
        added = max(size, LEAST) - upload.counted
        if self._bytes.get(key, 0) + added > limits.session_files_bytes:
            raise QuotaExceeded(f"the files of a session have at most {size_text(limits.session_files_bytes)} in all")
        if self._total + added > limits.files_bytes:
            raise QuotaExceeded(f"the files of this hub have at most {size_text(limits.files_bytes)} in all")
        self._add(key, added)
        upload.size, upload.counted = size, upload.counted + added

    def _add(self, key: Key, added: int) -> None:
        self._total += added
        self._bytes[key] = self._bytes.get(key, 0) + added
        if not self._bytes[key]:
            del self._bytes[key]

    async def save_upload(self, upload: Upload) -> FileRecord:
        """Make an upload a blob that the log names; never cancelled."""
        file = FileRecord(
            fileId=f"f_{self.seams.new_secret(16)}",
            key=upload.key,
            name=upload.name,
            type=upload.type,
            size=upload.size,
            digest=upload.digest,
        )
        async with self._lock(file.digest):
            await self.work(_move, upload.path, self.folder / file.digest)
            try:
                # In one step: what is given to the log after forget() has looked at the uploads would outlive it.
                upload.refuse_if_deleted()
                await self.store.add(file)
            except BaseException:
                await self._take_away([file.digest])
                upload.refuse_if_deleted()  # then that is why the log refused it
                raise
        upload.is_saved = True
        return file

    async def save(self, key: Key, name: str, type: str, data: bytes) -> FileRecord:
        """Keep a file that is there whole."""
        async with self.upload(key, name, type) as upload:
            await upload.write(data)
            await upload.finish()
            return await upload.save()

    def blob_size(self, digest: str) -> int | None:
        """Return how many bytes lie under a digest, or None; also before start()."""
        path = self.folder / digest
        return path.stat().st_size if path.is_file() else None

    # --- out --------------------------------------------------------------------------------------------------------

    async def find(self, file_id: str) -> FileRecord:
        """Return what a file is; raises UnknownFile."""
        file = await self.store.find(file_id)
        if file is None:
            raise _unknown(file_id)
        return file

    @asynccontextmanager
    async def open(self, file: FileRecord) -> AsyncIterator[Callable[[int, int], Awaitable[bytes]]]:
        """Give what reads so many bytes at a place; that raises EOFError past the end. Raises UnknownFile."""
        opening = asyncio.ensure_future(self.work(_open, self.folder / file.digest))
        try:
            blob = await asyncio.shield(opening)
        except FileNotFoundError:
            raise _unknown(file.fileId) from None
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unused)
            raise
        try:
            yield lambda at, size: self.work(_read, blob, at, size)
        finally:
            self._close_blob(blob)

    def _close_unused(self, opening: "asyncio.Future[IO[bytes]]") -> None:
        """Close what was opened for one who was cancelled meanwhile."""
        if not opening.cancelled() and opening.exception() is None:
            self._close_blob(opening.result())

    def _close_blob(self, blob: IO[bytes]) -> None:
        """Close a file that was read, in a thread; nobody waits for that, nor cancels it."""
        try:
            self._threads.submit(blob.close)
        except RuntimeError:  # the threads have ended
            blob.close()

    async def read(self, file: FileRecord) -> bytes:
        """Return a file whole; raises UnknownFile."""
        async with self.open(file) as read:
            return await read(0, file.size)

    # --- gone -------------------------------------------------------------------------------------------------------

    async def forget(self, key: Key, had: Iterable[FileRecord]) -> None:
        """Take away the bytes of a session that the log has deleted, and refuse what is coming in for it.

        *had* are the files that the log then named. The rest may go on beside it.
        """
        for upload in self._uploads:
            upload.session_is_deleted = upload.session_is_deleted or upload.key == key
        self._add(key, -sum(max(file.size, LEAST) for file in had))
        # Whoever asked may go: what has no name any more goes all the same.
        await asyncio.shield(self._own(self._take_away_unlocked({file.digest for file in had})))

    async def _take_away_unlocked(self, digests: Iterable[str]) -> None:
        for digest in digests:
            async with self._lock(digest):
                await self._take_away([digest])

    async def _take_away(self, digests: list[str]) -> None:
        """Remove the blobs that the log does not name; the caller holds their locks, or nobody else is here yet."""
        if not self._ours:
            return
        with suppress(StorageUnavailable, OSError):  # then the next start takes them
            named = await self.store.find_used_digests(digests)
            await self.work(_unlink, [self.folder / digest for digest in {*digests}.difference(named)])

    def _lock(self, digest: str) -> asyncio.Lock:
        return self._locks.setdefault(digest, asyncio.Lock())


def _unknown(file_id: str) -> UnknownFile:
    return UnknownFile(f"there is no file {cut(file_id, 128)}")


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _read(blob: IO[bytes], at: int, size: int) -> bytes:
    blob.seek(at)
    data = blob.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _move(part: Path, blob: Path) -> None:
    """Give a whole file its name, for good; where the same bytes have it already, they are replaced by themselves."""
    os.replace(part, blob)
    _sync(blob.parent)


def _sync(folder: Path) -> None:
    """Make sure that the names in a folder outlive a power cut; Windows knows no such thing."""
    if sys.platform != "win32":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
