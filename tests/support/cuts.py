"""What a disk holds after a power cut: all that was synced, and of the rest what chance wants."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import attrs
from support.vfs import FILES, RECORD

SECTOR = 512
NAMES = {letter: name for name, letter in FILES.items()}


@attrs.frozen
class Operation:
    """One record of the journal: a write, a truncation (or growth by zeros), a sync, or a deletion."""

    kind: bytes
    file: bytes
    number: int
    data: bytes


def operations(journal: bytes) -> Iterator[tuple[int, Operation]]:
    """Yield each operation with the length that the journal had after it; a record that is not whole is the last."""
    place = 0
    while place + RECORD.size <= len(journal):
        kind, file, number, length = RECORD.unpack_from(journal, place)
        start, place = place + RECORD.size, place + RECORD.size + length
        if place > len(journal):
            return
        yield place, Operation(kind, file, number, journal[start:place])


@attrs.define
class Copy:
    """One file: what is surely on the disk, and what was done to it since its last sync."""

    synced: bytearray | None = None
    unsynced: list[Operation] = attrs.Factory(list)

    def take(self, operation: Operation) -> None:
        if operation.kind == b"S":
            self.synced, self.unsynced = done(self.synced, self.unsynced), []
        else:
            self.unsynced.append(operation)

    def sync_folder(self) -> None:
        """Make sure of a deletion, and of nothing else."""
        while any(one.kind == b"D" for one in self.unsynced):
            if self.unsynced.pop(0).kind == b"D":
                self.synced = None

    def after_cut(self, chance: random.Random) -> bytearray | None:
        """Return what the disk holds: of what was not synced nothing, all, the first part, or any sectors of it."""
        some = self.unsynced
        fate = chance.choice(("nothing", "all", "first", "any"))
        if fate == "nothing":
            some = []
        elif fate == "first":
            some = some[: chance.randint(0, len(some))]
        elif fate == "any":
            some = [part for one in some for part in torn(one, chance)]
        return done(self.synced, some)


def torn(operation: Operation, chance: random.Random) -> Iterator[Operation]:
    """Yield what was done of an operation: each sector of a write with a chance of one half."""
    if operation.kind != b"W":
        if chance.random() < 0.5:
            yield operation
        return
    start, end = operation.number, operation.number + len(operation.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if chance.random() < 0.5:
            yield Operation(
                b"W", operation.file, start, operation.data[start - operation.number : stop - operation.number]
            )
        start = stop


def done(content: bytearray | None, some: list[Operation]) -> bytearray | None:
    """Return a content with operations done to it; None is a file that is not there."""
    if content is not None:
        content = bytearray(content) if some else content
    for one in some:
        if one.kind == b"D":
            content = None
            continue
        content = bytearray() if content is None else content
        end = one.number + len(one.data)
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        if one.kind == b"W":
            content[one.number : end] = one.data
        else:
            del content[one.number :]
    return content


def take(copies: dict[bytes, Copy], operation: Operation) -> None:
    copy = copies[operation.file]
    # SQLite syncs the folder where it is asked to with a deletion, and with the first sync of a journal or WAL.
    is_first_sync = operation.kind == b"S" and copy.synced is None and NAMES[operation.file] != "hub.db"
    copy.take(operation)
    if is_first_sync or (operation.kind == b"D" and operation.number):
        for other in copies.values():
            other.sync_folder()


def disks(journal: Path, places: list[int], chance: random.Random, folder: Path) -> Iterator[tuple[int, Path]]:
    """For each of *places* in the journal, in rising order, make a data folder as a power cut there would leave it."""
    copies = {file: Copy() for file in NAMES}
    steps = operations(journal.read_bytes())
    place, step = 0, next(steps, None)
    for number, cut in enumerate(places):
        while step is not None and step[0] <= cut:
            place = step[0]
            take(copies, step[1])
            step = next(steps, None)
        data = folder / f"cut-{number}" / "data"
        data.mkdir(parents=True)
        for file, copy in copies.items():
            if (content := copy.after_cut(chance)) is not None:
                (data / NAMES[file]).write_bytes(content)
        yield place, data


def size_of(journal: Path) -> int:
    return os.stat(journal).st_size
