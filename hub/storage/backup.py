"""Back up a log and its files into a new folder, also while a hub runs.

The copy of the log has the state at one moment. The blobs that it names are copied after it. They cannot change, and
hub.storage.file_hold holds back their deletion meanwhile. The manifest is written last.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hub import __version__
from hub.days import to_utc_time
from hub.storage.archive import CopyProgress, LogArchive, LogContents
from hub.storage.blob_copy import BlobCopy, read_digest
from hub.storage.disk import check_space, sync_folder
from hub.storage.file_hold import hold_blobs
from hub.storage.log import LogUnusable
from hub.storage.manifest import (
    BACKUP_FORMAT,
    BLOBS_FOLDER,
    LOG_COPY,
    MANIFEST_FILE,
    Manifest,
    write_manifest,
)
from hub.storage.private import make_private


def back_up_data(
    archive: LogArchive, blobs: Path, folder: Path, now: Callable[[], int], report: CopyProgress
) -> Manifest:
    """Write a backup of a log, and of its blobs in the folder *blobs*, into *folder*; return its manifest.

    If it fails, delete what was written. May block: call this in a thread. Raises LogUnusable, OSError, and the errors
    of *report*.
    """
    is_new = not folder.exists()
    _refuse_files(folder)
    make_private(folder, lambda name: True)
    try:
        with hold_blobs(blobs):
            check_space(folder, archive.measure(), f"the backup of {archive.path}")
            return _write(archive, blobs, folder, to_utc_time(now()), report)
    except BaseException as error:
        _delete_backup(folder, is_new)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise LogUnusable(f"the backup to {folder} has failed ({reason}): nothing of it is left") from error
        raise


def _refuse_files(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise LogUnusable(f"{folder} is a file: name a new folder for the backup")
    names = os.listdir(folder) if folder.exists() else []
    if MANIFEST_FILE in names:
        raise LogUnusable(f"{folder} already has a backup: name a new folder")
    if LOG_COPY in names:
        raise LogUnusable(f"{folder} has a backup that was not completed: delete it, or name a new folder")
    if names:
        raise LogUnusable(f"{folder} is not empty: name a new folder for the backup")


def _write(archive: LogArchive, blobs: Path, folder: Path, created: str, report: CopyProgress) -> Manifest:
    contents = archive.copy(folder / LOG_COPY, report)
    check_space(folder, sum(contents.blobs.values()), f"the backup of {blobs}")
    missing = BlobCopy(source=blobs, target=folder / BLOBS_FOLDER, sizes=contents.blobs, report=report).run()
    manifest = _make_manifest(folder, contents, created, missing)
    write_manifest(folder, manifest)
    sync_folder(folder.absolute().parent)
    return manifest


def _make_manifest(folder: Path, contents: LogContents, created: str, missing: tuple[str, ...]) -> Manifest:
    copied_digests = contents.blobs.keys() - {*missing}
    return Manifest(
        format=BACKUP_FORMAT,
        version=__version__,
        schema=contents.schema,
        created=created,
        log_bytes=(folder / LOG_COPY).stat().st_size,
        log_digest=read_digest(folder / LOG_COPY),
        counts=dict(contents.counts),
        blobs=len(copied_digests),
        blob_bytes=sum(contents.blobs[digest] for digest in copied_digests),
        missing_blobs=missing,
    )


def _delete_backup(folder: Path, is_new: bool) -> None:
    """Delete an incomplete backup; with *is_new*, its folder too."""
    shutil.rmtree(folder / BLOBS_FOLDER, ignore_errors=True)
    with suppress(OSError):
        for name in (f"{MANIFEST_FILE}.part", f"{LOG_COPY}-journal", LOG_COPY):
            (folder / name).unlink(missing_ok=True)
        if is_new:
            folder.rmdir()
