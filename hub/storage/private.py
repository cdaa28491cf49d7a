"""Folders and files that no other account of the machine may read: they hold what people wrote."""

import os
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder, with its parents, or close the one that is there to other accounts (0700)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def touch_private(path: Path) -> None:
    """Make an empty file, or close the one that is there to other accounts (0600)."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.chmod(0o600)


def open_private(path: str, flags: int) -> int:
    """Open a file for the builtin open(); one that is made is closed to other accounts."""
    return os.open(path, flags, 0o600)
