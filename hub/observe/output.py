"""Standard output and standard error that never block and never raise: a bounded queue and a thread that writes.

A closed terminal, a pipe without a reader, Ctrl-S or a full disk affects only that thread. Output that does not fit
into the queue is dropped; the number of dropped lines is logged when the output can be written again.
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
FINAL_DRAIN_SECONDS = 1.0  # the longest wait for a slow reader at the end of the process

log = structlog.get_logger()


class Output(io.BufferedIOBase):
    """A stream that queues bytes from any thread; a daemon thread writes them to the file *raw*.

    A forked child has no such thread and writes directly.
    """

    def __init__(self, raw: io.RawIOBase, label: str) -> None:
        self._raw, self._label = raw, label
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._size = self._dropped_lines = 0
        self._is_dropping = self._is_child = False
        self._lock = threading.RLock()  # reentrant: a destructor that prints may run inside write()
        self._is_empty = threading.Event()
        self._is_empty.set()
        call_in_children(self._enter_child)
        threading.Thread(target=self._work, name=f"hub-{label}", daemon=True).start()

    def _enter_child(self) -> None:
        self._is_child = True

    def write(self, data: Any, /) -> int:
        """Queue bytes, or drop them if the queue is full. Never waits, except in a forked child."""
        piece = bytes(data)
        if self._is_child:
            self._write(piece)
            return len(piece)
        with self._lock:
            # After the first drop, drop all output until the queue is empty, so that there is one gap.
            self._is_dropping = self._is_dropping or self._size + len(piece) > QUEUE_BYTES
            if self._is_dropping:
                self._dropped_lines += piece.count(b"\n")
            else:
                self._size += len(piece)
                self._is_empty.clear()
                self._queue.put(piece)
        return len(piece)

    def drain(self, seconds: float) -> None:
        """Wait until the queue is empty, for at most *seconds*."""
        self._is_empty.wait(seconds)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return os.isatty(self.fileno())

    def close(self) -> None:
        """Do nothing: an agent that closes sys.stdout must not close it for the hub."""

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
                log.warning(
                    "output was dropped: its reader was too slow, or closed it", output=self._label, lines=lines
                )
            with self._lock:
                if not self._size:
                    self._is_empty.set()

    def _write(self, piece: bytes) -> bool:
        """Write all bytes; return False if the output is closed or broken."""
        unwritten = memoryview(piece)
        try:
            while unwritten:
                count = self._raw.write(unwritten)
                if count is None:  # another process has made the shared file non-blocking
                    select.select([], [self.fileno()], [])
                else:
                    unwritten = unwritten[count:]
        except (OSError, ValueError):
            return False
        return True


def make_output_nonblocking() -> Callable[[], None]:
    """Replace sys.stdout and sys.stderr by Outputs. Return a function that waits briefly until their queues are empty.

    The interpreter calls that function at its exit, but not at os._exit(): call the function before os._exit().
    """
    _reserve_standard_descriptors()
    stdout, stderr = _find_raw_file(sys.stdout), _find_raw_file(sys.stderr)
    outputs = []
    if stdout is not None:
        outputs.append(Output(stdout, "stdout"))
        sys.stdout = _open_text(outputs[0])
    if stderr is not None:
        # If both are one file, as after 2>&1, they share one queue, so that lines stay in order.
        if stdout is None or not os.path.sameopenfile(stdout.fileno(), stderr.fileno()):
            outputs.append(Output(stderr, "stderr"))
        sys.stderr = _open_text(outputs[-1])

    def drain() -> None:
        for output in outputs:
            output.drain(FINAL_DRAIN_SECONDS)

    atexit.register(drain)
    return drain


def _reserve_standard_descriptors() -> None:
    """Open the null device for each closed descriptor of 0, 1 and 2, so that no other file gets its number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _find_raw_file(stream: TextIO | None) -> io.RawIOBase | None:
    """Return the file under a standard stream, or the null device if there is no stream.

    Return None if a test has replaced the stream.
    """
    if stream is None:  # the process started without this stream
        return io.FileIO(os.devnull, "w")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with `python -u`, the buffer is the file itself
    return raw if isinstance(raw, io.RawIOBase) else None


def _open_text(output: Output) -> TextIO:
    # backslashreplace: a lone surrogate must not raise.
    return io.TextIOWrapper(cast(BinaryIO, output), encoding="utf-8", errors="backslashreplace", line_buffering=True)
