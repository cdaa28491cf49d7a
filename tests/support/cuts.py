"""The content of a disk after a power cut: all synced operations, and a random choice of the others."""

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
    """Yield each operation with the length of the journal after it; stop at an incomplete record."""
    offset = 0
    while offset + RECORD.size <= len(journal):
        kind, file, number, length = RECORD.unpack_from(journal, offset)
        start, offset = offset + RECORD.size, offset + RECORD.size + length
        if offset > len(journal):
            return
        yield offset, Operation(kind, file, number, journal[start:offset])


@attrs.define
class Copy:
    """One file: its synced content, and the operations since its last sync."""

    synced: bytearray | None = None
    unsynced: list[Operation] = attrs.Factory(list)

    def take(self, operation: Operation) -> None:
        if operation.kind == b"S":
            self.synced, self.unsynced = apply_operations(self.synced, self.unsynced), []
        else:
            self.unsynced.append(operation)

    def sync_folder(self) -> None:
        """Make a deletion durable, and no other operation."""
        while any(one.kind == b"D" for one in self.unsynced):
            if self.unsynced.pop(0).kind == b"D":
                self.synced = None

    def after_cut(self, chance: random.Random) -> bytearray | None:
        """Return the content after a power cut: with none, all, the first, or any sectors of the unsynced writes."""
        some = self.unsynced
        fate = chance.choice(("nothing", "all", "first", "any"))
        if fate == "nothing":
            some = []
        elif fate == "first":
            some = some[: chance.randint(0, len(some))]
        elif fate == "any":
            some = [part for one in some for part in tear(one, chance)]
        return apply_operations(self.synced, some)


def tear(operation: Operation, chance: random.Random) -> Iterator[Operation]:
    """Yield the parts of an operation that took effect: each sector of a write with a probability of one half."""
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


def apply_operations(content: bytearray | None, some: list[Operation]) -> bytearray | None:
    """Return a content after operations; None is a file that does not exist."""
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
    # SQLite syncs the folder with a deletion that asks for it, and with the first sync of a journal or WAL.
    is_first_sync = operation.kind == b"S" and copy.synced is None and NAMES[operation.file] != "hub.db"
    copy.take(operation)
    if is_first_sync or (operation.kind == b"D" and operation.number):
        for other in copies.values():
            other.sync_folder()


def disks(journal: Path, offsets: list[int], chance: random.Random, folder: Path) -> Iterator[tuple[int, Path]]:
    """Make a data folder for a power cut at each of the *offsets* in the journal, which rise."""
    copies = {file: Copy() for file in NAMES}
    steps = operations(journal.read_bytes())
    offset, step = 0, next(steps, None)
    for number, cut in enumerate(offsets):
        while step is not None and step[0] <= cut:
            offset = step[0]
            take(copies, step[1])
            step = next(steps, None)
        data = folder / f"cut-{number}" / "data"
        data.mkdir(parents=True)
        for file, copy in copies.items():
            if (content := copy.after_cut(chance)) is not None:
                (data / NAMES[file]).write_bytes(content)
        yield offset, data


def size_of(journal: Path) -> int:
    return os.stat(journal).st_size
