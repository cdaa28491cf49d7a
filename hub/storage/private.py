"""Folders and files that no other account of the machine may read: they hold what people wrote."""

import os
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents if they are missing; raise OSError with what to do if a file has such a name."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        advice = "move the file away, or choose another --data or --log"
        raise OSError(f"the folder {folder} cannot be made, because a file is in its place: {advice}") from None


def make_private(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Make a folder that other accounts may not read (0700), with its parents.

    One that is there is closed only if *is_ours* knows the names of all that is in it: somebody may have chosen a
    folder that others need, such as a project's or /tmp.
    """
    make_folder(folder, 0o700)
    if all(map(is_ours, os.listdir(folder))):
        _close(folder, 0o700)


def touch_private(path: Path) -> None:
    """Make an empty file, or close the one that is there to other accounts (0600)."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    _close(path, 0o600)


def _close(path: Path, mode: int) -> None:
    try:
        path.chmod(mode)
    except OSError as error:  # another account's, or a disk that knows no modes: the hub may work there all the same
        log.warning("open to other accounts", path=str(path), reason=error.strerror)


def open_private(path: str, flags: int) -> int:
    """Open a file for the builtin open(); one that is made is closed to other accounts."""
    return os.open(path, flags, 0o600)
