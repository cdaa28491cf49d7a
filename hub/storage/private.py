"""Make private folders and files: other accounts of the machine must not read the messages in them."""

import os
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its missing parents. Raises OSError, with advice if a file has the name of one of them."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        advice = "move the file away, or choose another --data or --log"
        raise OSError(f"the folder {folder} cannot be made, because a file is in its place: {advice}") from None


def make_private(folder: Path, is_hub_name: Callable[[str], bool]) -> None:
    """Make a folder and its missing parents, and forbid other accounts the access to the folder (mode 0700).

    An existing folder keeps its mode unless *is_hub_name* returns True for all names in the folder: other accounts may
    need the folder, such as /tmp or the folder of a project. Raises OSError.
    """
    make_folder(folder, 0o700)
    if all(map(is_hub_name, os.listdir(folder))):
        _set_mode(folder, 0o700)


def touch_private(path: Path) -> None:
    """Make an empty file if there is none, and forbid other accounts the access to the file (mode 0600).

    Raises OSError.
    """
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    _set_mode(path, 0o600)


def _set_mode(path: Path, mode: int) -> None:
    try:
        path.chmod(mode)
    except OSError as error:  # another account owns the file, or the disk has no modes; the hub works all the same
        log.warning("open to other accounts", path=str(path), reason=error.strerror)


def open_private(path: str, flags: int) -> int:
    """Open a file. Pass this function to open() as *opener*: other accounts cannot access a new file."""
    return os.open(path, flags, 0o600)
