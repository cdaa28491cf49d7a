"""Standard output and standard error that never block and never raise: a bounded queue, and a thread that writes.

A terminal that is closed, a pipe that nobody reads, Ctrl-S or a full disk stop the thread alone. What does not fit the
queue is dropped and counted; the number of dropped lines is logged when the output can be written again.
"""

import atexit
import io
import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, TextIO, cast

import structlog

from hub.forks import call_in_children
from hub.limits import MiB

QUEUE_BYTES = 1 * MiB
END_SECONDS = 1.0  # at the end of the process, for a reader that is slow

log = structlog.get_logger()


class Output(io.BufferedIOBase):
    """Takes bytes for the file *raw* from any thread; a daemon thread writes them.

    In a forked child, which has no such thread, it writes directly.
    """

    def __init__(self, raw: io.RawIOBase, label: str) -> None:
        self._raw, self._label = raw, label
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._size = self._dropped_lines = 0
        self._is_dropping = self._is_child = False
        self._lock = threading.RLock()  # a destructor that prints may run within write(), in the same thread
        self._empty = threading.Event()
        self._empty.set()
        call_in_children(self._enter_child)
        threading.Thread(target=self._work, name=f"hub-{label}", daemon=True).start()

    def _enter_child(self) -> None:
        self._is_child = True

    def write(self, data: Any, /) -> int:
        """Queue bytes, or drop them where the queue is full; never waits."""
        piece = bytes(data)
        if self._is_child:
            self._write(piece)
            return len(piece)
        with self._lock:
            # Once something is dropped, all is until the queue is empty: so the gap is in one place.
            self._is_dropping = self._is_dropping or self._size + len(piece) > QUEUE_BYTES
            if self._is_dropping:
                self._dropped_lines += piece.count(b"\n")
            else:
                self._size += len(piece)
                self._empty.clear()
                self._queue.put(piece)
        return len(piece)

    def drain(self, seconds: float) -> None:
        """Wait until all is written or dropped, for *seconds* at most."""
        self._empty.wait(seconds)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return os.isatty(self.fileno())

    def close(self) -> None:
        """Stay open: an agent that closes sys.stdout would close it for all."""

    def _work(self) -> None:
        while True:
            piece = self._queue.get()
            is_written = self._write(piece)
            lines = 0
            with self._lock:
                self._size -= len(piece)
                if not is_written:
                    self._dropped_lines += piece.count(b"\n")
                if not self._size:
                    self._is_dropping = False
                    if is_written:
                        lines, self._dropped_lines = self._dropped_lines, 0
            if lines:
                log.warning("output was dropped: nobody read it, or it was gone", output=self._label, lines=lines)
            with self._lock:
                if not self._size:
                    self._empty.set()

    def _write(self, piece: bytes) -> bool:
        """Write all of it; return False where the output is gone."""
        rest = memoryview(piece)
        try:
            while rest:
                count = self._raw.write(rest)
                if count is None:  # whoever shares the file has made it non-blocking
                    select.select([], [self.fileno()], [])
                else:
                    rest = rest[count:]
        except (OSError, ValueError):
            return False
        return True


def make_output_nonblocking() -> Callable[[], None]:
    """Make sys.stdout and sys.stderr such outputs, for good; return what waits a moment for what they still hold.

    It is called at the end of the interpreter, too, but not by os._exit().
    """
    _hold_standard_descriptors()
    stdout, stderr = _raw(sys.stdout), _raw(sys.stderr)
    outputs = []
    if stdout is not None:
        outputs.append(Output(stdout, "stdout"))
        sys.stdout = _text(outputs[0])
    if stderr is not None:
        # One queue where both are one file, as after 2>&1: it keeps the order.
        if stdout is None or not os.path.sameopenfile(stdout.fileno(), stderr.fileno()):
            outputs.append(Output(stderr, "stderr"))
        sys.stderr = _text(outputs[-1])

    def drain() -> None:
        for output in outputs:
            output.drain(END_SECONDS)

    atexit.register(drain)
    return drain


def _hold_standard_descriptors() -> None:
    """Open the null device where 0, 1 or 2 is closed: the next file, which may be the log, must not become one."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _raw(stream: TextIO | None) -> io.RawIOBase | None:
    """Return the file under a standard stream; None where a test has put something else there."""
    if stream is None:  # the process was started without it
        return io.FileIO(os.devnull, "w")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with `python -u` the buffer is the file itself
    return raw if isinstance(raw, io.RawIOBase) else None


def _text(output: Output) -> TextIO:
    # A character that the output's encoding lacks, or half of one, must not raise.
    return io.TextIOWrapper(cast(BinaryIO, output), encoding="utf-8", errors="backslashreplace", line_buffering=True)
