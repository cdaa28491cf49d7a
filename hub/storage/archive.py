"""The contract of an archive, which makes and restores copies of a log."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from hub.storage.records import Damage

# Called again and again with the number of bytes that are copied, and the number of all bytes. May raise an error.
CopyProgress = Callable[[int, int], None]


@attrs.frozen(kw_only=True)
class LogContents:
    """What a copy of a log has: its schema, the number of its records by kind, and the size of each blob by digest."""

    schema: int
    counts: Mapping[str, int]
    blobs: Mapping[str, int]


class LogArchive(ABC):
    """Copies of one log. A copy is one file.

    The log is not started in this process. All methods may block: call them in a thread. They raise LogUnusable if a
    file cannot be used as a log, and OSError.
    """

    @property
    @abstractmethod
    def path(self) -> Path:
        """The place of the log: a complete copy that is moved to this place is the log."""

    @abstractmethod
    def has_files(self) -> bool:
        """Return whether there is a file of the log."""

    @abstractmethod
    def move_aside(self, suffix: str) -> Sequence[Path]:
        """Move the log to names with *suffix*, which no file has, and return the new paths.

        Afterwards there is no file of the log at its place. A kill in between loses nothing.
        """

    @abstractmethod
    def take_lock(self, undo: ExitStack) -> None:
        """Take the lock of the log; *undo* releases it. Raises LogInUse."""

    @abstractmethod
    def measure(self) -> int:
        """Return the size of a copy in bytes, as the log is now."""

    @abstractmethod
    def copy(self, target: Path, report: CopyProgress) -> LogContents:
        """Write the state of the log at this moment to the new file *target*, and sync it. A hub may write the log.

        Count the records of the log and of the copy; raise LogUnusable if they differ.
        """

    @abstractmethod
    def read_contents(self, copy: Path) -> LogContents:
        """Return what a copy has."""

    @abstractmethod
    def renew(self, copy: Path, new_epoch: Callable[[], str]) -> None:
        """Update the schema of a copy, and give each of its sessions a new epoch. *new_epoch* returns random text.

        A client that has a cursor with another epoch gets a `reset`.
        """

    @abstractmethod
    def check(self, copy: Path, blob_size: Callable[[str], int | None]) -> Sequence[Damage]:
        """Return the damage in a copy, as Log.check() does."""
