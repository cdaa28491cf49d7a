"""Record the writes of SQLite in this process, and make some of them fail.

install() replaces three methods of the files that SQLite's default VFS opens, and the VFS's delete, for the whole
process. Each operation is appended to a journal, from which tests/support/cuts.py makes the states of the disk after a
power cut. A control block in shared memory says which write or sync fails, and how.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, cast
from pathlib import Path
from typing import Any

import attrs

FULL, IOERR_WRITE, IOERR_FSYNC = 13, 10 | 3 << 8, 10 | 4 << 8  # SQLite's result codes
METHODS = ("close", "read", "write", "truncate", "sync")  # the first of sqlite3_io_methods, which has 18
CONTROL = struct.Struct("=qqq")  # fault, writes (or syncs) until it occurs, occurrences so far
RECORD = struct.Struct("=ccqq")  # kind, file, offset or size, length of the data that follows
FAULTS = ("none", "full", "error", "torn", "sync")
FILES = {"hub.db": b"d", "hub.db-wal": b"w", "hub.db-journal": b"j"}


class Vfs(Structure):
    _fields_ = [
        *(("version", c_int), ("file_size", c_int), ("path_size", c_int)),
        *(("next", c_void_p), ("name", c_char_p), ("data", c_void_p), ("open", c_void_p), ("delete", c_void_p)),
    ]


class Methods(Structure):
    _fields_ = [("version", c_int), *((name, c_void_p) for name in METHODS), ("others", c_void_p * 13)]


Open = CFUNCTYPE(c_int, POINTER(Vfs), c_char_p, c_void_p, c_int, c_void_p)
Delete = CFUNCTYPE(c_int, POINTER(Vfs), c_char_p, c_int)
Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class Control:
    """The control block, shared by the test and the hub's process."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(CONTROL.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), CONTROL.size)

    def arm(self, fault: str, after: int) -> None:
        """Make the *after*-th write (or sync) from now on fail; with "full" all later ones fail, too."""
        CONTROL.pack_into(self._memory, 0, FAULTS.index(fault), after, self.strikes)

    def disarm(self) -> None:
        self.arm("none", 0)

    @property
    def strikes(self) -> int:
        """The number of operations that were made to fail."""
        strikes: int = CONTROL.unpack_from(self._memory, 0)[2]
        return strikes

    def strike(self, is_sync: bool) -> str:
        """Count a write or a sync, and return its fault."""
        number, left, strikes = CONTROL.unpack_from(self._memory, 0)
        fault = FAULTS[number]
        if fault == "none" or is_sync != (fault == "sync"):
            return "none"
        if left > 1:
            CONTROL.pack_into(self._memory, 0, number, left - 1, strikes)
            return "none"
        CONTROL.pack_into(self._memory, 0, number if fault == "full" else 0, 0, strikes + 1)
        return fault


@attrs.define(eq=False)
class Recorder:
    """Wraps the methods of SQLite's VFS and of its open files."""

    journal: int  # a file descriptor
    control: Control
    names: dict[int, Path] = attrs.Factory(dict)  # of open files, by the address of SQLite's structure
    sizes: dict[Path, int] = attrs.Factory(dict)
    replacements: dict[int, Methods] = attrs.Factory(dict)  # by the address of the methods that they replace
    references: list[Any] = attrs.Factory(list)  # keep alive the functions whose addresses SQLite has

    def record(self, kind: bytes, path: Path, number: int, data: bytes = b"") -> None:
        os.write(self.journal, RECORD.pack(kind, FILES[path.name], number, len(data)) + data)

    def install(self, library: ctypes.CDLL) -> None:
        library.sqlite3_vfs_find.restype = POINTER(Vfs)
        vfs = library.sqlite3_vfs_find(None)
        original_open, original_delete = Open(vfs.contents.open), Delete(vfs.contents.delete)

        def open_(vfs: Any, name: bytes | None, file: int, flags: int, out: int) -> int:
            code: int = original_open(vfs, name, file, flags, out)
            path = Path(os.fsdecode(name or b""))
            if code == 0 and path.name in FILES:
                self.names[file] = path
                self.sizes.setdefault(path, path.stat().st_size)
                self.replace(file)
            return code

        def delete(vfs: Any, name: bytes, is_synced: int) -> int:
            code: int = original_delete(vfs, name, is_synced)
            path = Path(os.fsdecode(name))
            if code == 0 and path.name in FILES:
                self.record(b"D", path, is_synced)
                self.sizes.pop(path, None)
            return code

        vfs.contents.open = self.address(Open(open_))
        vfs.contents.delete = self.address(Delete(delete))

    def address(self, function: Any) -> int:
        self.references.append(function)
        return cast(function, c_void_p).value or 0

    def replace(self, file: int) -> None:
        """Replace the methods of an open file by methods that call them."""
        first = cast(file, POINTER(c_void_p)).contents
        if (old := first.value or 0) not in self.replacements:
            methods = Methods.from_buffer_copy((ctypes.c_char * ctypes.sizeof(Methods)).from_address(old))
            methods.write = self.address(Write(self.writing(Write(methods.write))))
            methods.truncate = self.address(Truncate(self.truncating(Truncate(methods.truncate))))
            methods.sync = self.address(Sync(self.syncing(Sync(methods.sync))))
            self.replacements[old] = methods
        first.value = ctypes.addressof(self.replacements[old])

    def writing(self, write: Any) -> Callable[[int, int, int, int], int]:
        def write_(file: int, data: int, size: int, offset: int) -> int:
            path, fault = self.names[file], self.control.strike(is_sync=False)
            if fault in ("full", "error"):
                return FULL if fault == "full" else IOERR_WRITE
            size = size // 2 if fault == "torn" else size
            self.note_size(path)
            code: int = write(file, data, size, offset)
            self.record(b"W", path, offset, ctypes.string_at(data, size))
            self.sizes[path] = max(self.sizes[path], offset + size)
            return IOERR_WRITE if fault == "torn" else code

        return write_

    def truncating(self, truncate: Any) -> Callable[[int, int], int]:
        def truncate_(file: int, size: int) -> int:
            path = self.names[file]
            self.note_size(path)
            code: int = truncate(file, size)
            self.record(b"T", path, size)
            self.sizes[path] = size
            return code

        return truncate_

    def syncing(self, sync: Any) -> Callable[[int, int], int]:
        def sync_(file: int, flags: int) -> int:
            path = self.names[file]
            if self.control.strike(is_sync=True) == "sync":
                return IOERR_FSYNC
            self.note_size(path)
            code: int = sync(file, flags)
            self.record(b"S", path, 0)
            return code

        return sync_

    def note_size(self, path: Path) -> None:
        """Record growth by zeros, which the hub writes without SQLite (hub/storage/sqlite/wal.py)."""
        size = path.stat().st_size
        if size > self.sizes[path]:
            self.record(b"T", path, size)
            self.sizes[path] = size


def install(journal: Path, control: Path) -> None:
    """Record the operations of all files that SQLite opens in this process from now on, and make some fail."""
    import _sqlite3  # the library that Python's own module is linked with

    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    recorder = Recorder(descriptor, Control(control))
    recorder.install(ctypes.CDLL(_sqlite3.__file__))
    RECORDERS.append(recorder)


RECORDERS: list[Recorder] = []
