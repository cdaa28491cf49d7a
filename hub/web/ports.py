"""Find the processes that listen on a port, and the sockets of this process that belong to a port."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

PROC_FOLDER = Path("/proc")
LISTEN_STATE = "0A"  # the state of a socket in /proc/net/tcp


def find_descriptors(port: int) -> Iterator[int]:
    """Yield the file descriptors of this process's sockets that listen on a port, or were accepted on that port."""
    for name in os.listdir("/dev/fd"):
        try:
            sock = socket.socket(fileno=int(name))
        except OSError:  # not a socket; or the descriptor of listdir(), which is closed now
            continue
        address = sock.getsockname()
        descriptor = sock.detach()
        if isinstance(address, tuple) and address[1] == port:
            yield descriptor


def find_listeners(port: int) -> list[str]:
    """Return the processes that listen on a port, as `NAME (pid 4711)`.

    The list omits processes that this account may not inspect. Without /proc, the list is empty.
    """
    inodes = {
        f"socket:[{inode}]"
        for table in ("tcp", "tcp6")
        for inode in _read_listening_inodes(PROC_FOLDER / "net" / table, port)
    }
    listeners = []
    for process in PROC_FOLDER.glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (process / "fd").iterdir()):
                listeners.append(f"{(process / 'comm').read_text().strip()} (pid {process.name})")
        except OSError:  # the process of another account, or it has ended
            continue
    return sorted(listeners)


def _read_listening_inodes(table: Path, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port, from a table in /proc/net."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:  # not Linux
        return
    for fields in map(str.split, lines):
        if fields[3] == LISTEN_STATE and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]
