"""Restore a backup to the place of a log and its files, where no hub runs.

The backup is first copied beside the log and checked. Only then it takes the place of the log, by renames: the files of
an earlier log are moved aside, never deleted. The log itself is moved last. A kill before that leaves no log.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from hub.days import to_utc_time
from hub.seams import Seams
from hub.storage import lockfile
from hub.storage.archive import CopyProgress, LogArchive
from hub.storage.blob_copy import BlobCopy, copy_file
from hub.storage.blobs import BLOB_NAME
from hub.storage.disk import check_space, sync_folder
from hub.storage.log import LogUnusable
from hub.storage.manifest import BLOBS_FOLDER, LOG_COPY, Manifest, read_manifest
from hub.storage.private import make_folder
from hub.storage.records import Damage

STAGED_SUFFIX = ".restore.part"


@attrs.frozen(kw_only=True)
class Restoration:
    """What a restore has done: the manifest of the backup, the files that were moved aside, and the damage."""

    manifest: Manifest
    old_files: Sequence[Path]
    damages: Sequence[Damage]


@attrs.define(eq=False, kw_only=True)
class Restorer:
    """Restores the backup in the folder *backup* to *archive*, and its blobs to the folder *blobs*.

    With *is_forced*, files of an earlier log are moved aside; without it, they are an error.
    """

    archive: LogArchive
    blobs: Path
    backup: Path
    seams: Seams
    is_forced: bool = False

    def run(self, report: CopyProgress) -> Restoration:
        """Restore the backup. May block: call this in a thread.

        Raises LogUnusable, LogInUse, OSError, and the errors of *report*.
        """
        manifest = read_manifest(self.backup)
        with ExitStack() as undo:
            self.archive.take_lock(undo)
            make_folder(self.blobs.parent, 0o700)
            lockfile.take_lock(self.blobs, undo)
            self._refuse_old_data()
            self._delete_parts()  # of a restore that was killed
            undo.callback(self._delete_parts)
            try:
                damages = self._stage(manifest, report)
            except OSError as error:
                text = f"{self.backup} was not restored ({error.strerror or error}): nothing has changed"
                raise LogUnusable(text) from error
            return Restoration(manifest=manifest, old_files=self._take_place(), damages=damages)

    @property
    def _log_part(self) -> Path:
        return self.archive.path.with_name(self.archive.path.name + STAGED_SUFFIX)

    @property
    def _blobs_part(self) -> Path:
        return self.blobs.with_name(self.blobs.name + STAGED_SUFFIX)

    def _refuse_old_data(self) -> None:
        has_blobs = self.blobs.is_dir() and any(BLOB_NAME.fullmatch(name) for name in os.listdir(self.blobs))
        if not self.is_forced and (has_blobs or self.archive.has_files()):
            place = self.archive.path if self.archive.has_files() else self.blobs
            text = f"{place} has data: name another --data, or use --force, which moves the old data aside"
            raise LogUnusable(text)

    def _stage(self, manifest: Manifest, report: CopyProgress) -> Sequence[Damage]:
        """Copy the backup beside the log, check the copy, and return the damage that the backup has."""
        check_space(self.archive.path.parent, 2 * manifest.log_bytes, f"the restored {self.archive.path}")
        check_space(self.blobs.parent, manifest.blob_bytes, f"the restored {self.blobs}")
        digest = copy_file(self.backup / LOG_COPY, self._log_part, report)
        contents = self.archive.read_contents(self._log_part) if digest == manifest.log_digest else None
        if contents is None or contents.counts != manifest.counts:
            raise LogUnusable(f"{self.backup / LOG_COPY} is not as it was when it was written: use another backup")
        BlobCopy(source=self.backup / BLOBS_FOLDER, target=self._blobs_part, sizes=contents.blobs, report=report).run()
        self.archive.renew(self._log_part, lambda: self.seams.new_secret(8))
        return self.archive.check(self._log_part, self._blob_size)

    def _blob_size(self, digest: str) -> int | None:
        path = self._blobs_part / digest
        return path.stat().st_size if path.is_file() else None

    def _take_place(self) -> list[Path]:
        """Move the old data aside, and the new data to its place. Return the new paths of the old data."""
        log, blobs, suffix = self.archive.path, self.blobs, self._choose_suffix()
        old_files = []
        if blobs.exists():
            old_files.append(blobs.with_name(blobs.name + suffix))
            os.rename(blobs, old_files[0])
        os.rename(self._blobs_part, blobs)
        old_files += self.archive.move_aside(suffix)
        os.rename(self._log_part, log)
        for folder in {log.parent, blobs.parent}:
            sync_folder(folder)
        return old_files

    def _choose_suffix(self) -> str:
        """Return a suffix that no file has."""
        suffix = f".before-restore-{to_utc_time(self.seams.now())}"
        names = [name for path in (self.archive.path, self.blobs) for name in os.listdir(path.parent)]
        while any(suffix in name for name in names):
            suffix += "-again"
        return suffix

    def _delete_parts(self) -> None:
        self._log_part.unlink(missing_ok=True)
        shutil.rmtree(self._blobs_part, ignore_errors=True)
