"""Make folders and files that other accounts of the machine may not read, because they contain messages."""

import os
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents if they are missing. Raises OSError with advice if a file has one of the names."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        advice = "move the file away, or choose another --data or --log"
        raise OSError(f"the folder {folder} cannot be made, because a file is in its place: {advice}") from None


def make_private(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Make a folder and its parents, and close the folder to other accounts (mode 0700).

    A folder that exists is closed only if *is_ours* returns True for all names in it: it may be a folder that other
    accounts need, such as that of a project, or /tmp.
    """
    make_folder(folder, 0o700)
    if all(map(is_ours, os.listdir(folder))):
        _close(folder, 0o700)


def touch_private(path: Path) -> None:
    """Make an empty file if there is none, and close the file to other accounts (mode 0600)."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    _close(path, 0o600)


def _close(path: Path, mode: int) -> None:
    try:
        path.chmod(mode)
    except OSError as error:  # the file is another account's, or the disk has no modes; the hub can work there
        log.warning("open to other accounts", path=str(path), reason=error.strerror)


def open_private(path: str, flags: int) -> int:
    """Open a file, as the opener of the builtin open(); a new file is closed to other accounts."""
    return os.open(path, flags, 0o600)
