"""Who has a port, and which sockets of this process belong to it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

PROC_FOLDER = Path("/proc")
LISTEN_STATE = "0A"  # the state of a socket in /proc/net/tcp


def find_descriptors(port: int) -> Iterator[int]:
    """Yield the descriptors of this process that listen at a port, or were accepted there."""
    for name in os.listdir("/dev/fd"):
        try:
            sock = socket.socket(fileno=int(name))
        except OSError:  # no socket, or the one of the listing
            continue
        address = sock.getsockname()
        descriptor = sock.detach()
        if isinstance(address, tuple) and address[1] == port:
            yield descriptor


def find_listeners(port: int) -> list[str]:
    """Return who listens at a port, as `NAME (pid 4711)`; what this account may not see is left out."""
    inodes = {
        f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(PROC_FOLDER / "net" / table, port)
    }
    found = []
    for process in PROC_FOLDER.glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} (pid {process.name})")
        except OSError:  # another account's, or it has ended
            continue
    return sorted(found)


def _listening(table: Path, port: int) -> Iterator[str]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:  # no Linux
        return
    for fields in map(str.split, lines):
        if fields[3] == LISTEN_STATE and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]
