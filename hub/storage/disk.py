"""Sync files to disk, and check the free space."""

import os
import shutil
import sys
from pathlib import Path

from hub.limits import MiB
from hub.storage.log import LogUnusable

SPARE_BYTES = 16 * MiB  # stay free, for what a running hub writes meanwhile


def sync_file(path: Path) -> None:
    """Sync the bytes of a file to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, so that they survive a power cut. Does nothing on Windows."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_space(folder: Path, size: int, purpose: str) -> None:
    """Raise LogUnusable if the disk of *folder* has no space for *size* bytes, which are for *purpose*."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        needs = f"{describe_size(size + SPARE_BYTES)}, and the disk of {folder} has {describe_size(free)} free"
        raise LogUnusable(f"{purpose} needs {needs}: free space, then try again")


def describe_size(size: int) -> str:
    """Return a number of bytes for people, in MiB, rounded up."""
    return f"{-(-size // MiB)} MiB"
