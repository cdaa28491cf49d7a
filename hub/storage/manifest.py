"""The manifest of a backup. It is written last, so a backup without a manifest is not complete."""

import os
from pathlib import Path

import msgspec

from hub.storage.disk import sync_file, sync_folder
from hub.storage.log import LogUnusable
from hub.storage.private import open_private

# The names in a backup.
MANIFEST_FILE, LOG_COPY, BLOBS_FOLDER = "manifest.json", "hub.db", "files"
BACKUP_FORMAT = 1


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup has.

    *format* is the version of this record. *version* is that of the hub, and *schema* that of the log. *created* is
    the time of the copy in UTC, as in 20261130T064236Z. *log_bytes* and *log_digest* (SHA-256) are those of the copy of
    the log. *counts* has the number of records by kind. *blobs* and *blob_bytes* are the number and the size of the
    blobs in the backup; *missing_blobs* are the digests of those that the log names, and that could not be copied.
    """

    format: int
    version: str
    schema: int
    created: str
    log_bytes: int
    log_digest: str
    counts: dict[str, int]
    blobs: int
    blob_bytes: int
    missing_blobs: tuple[str, ...] = ()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a complete backup, and sync it. Raises OSError."""
    part = folder / f"{MANIFEST_FILE}.part"
    with open(part, "wb", opener=open_private) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    sync_file(part)
    os.replace(part, folder / MANIFEST_FILE)
    sync_folder(folder)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a backup. Raises LogUnusable if the folder has no complete backup, and OSError."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        problem = "it does not exist"
        if folder.exists():
            problem = "it has no manifest.json, so it is no backup, or one that was not completed"
        raise LogUnusable(f"{folder} cannot be restored: {problem}; name the folder of a backup") from None
    except msgspec.MsgspecError as error:
        text = f"{folder / MANIFEST_FILE} is damaged or of a newer Hubbub ({error}): use another backup"
        raise LogUnusable(text) from None
    if manifest.format > BACKUP_FORMAT:
        raise LogUnusable(f"{folder} is a backup of a newer Hubbub ({manifest.version}): update Hubbub")
    return manifest
