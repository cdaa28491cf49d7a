"""Addresses of unix sockets, also of those whose path is longer than an address may be."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_ADDRESS_BYTES = 107 if sys.platform == "linux" else 103  # of sockaddr_un, without the null at its end


@contextmanager
def open_address(path: Path) -> Iterator[str]:
    """Yield an address to bind or to connect a unix socket at *path*. It is valid within the context.

    Raises OSError if the folder does not exist, or if the path is too long and the system has no /proc.
    """
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        yield str(path)
        return
    if not os.path.isdir("/proc/self/fd"):
        text = f"the path is longer than the {MAX_ADDRESS_BYTES} bytes of a unix socket's address"
        raise OSError(errno.ENAMETOOLONG, text, str(path))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
