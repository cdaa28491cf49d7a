"""A terminal for the tests: a real pty, and an emulated screen that interprets control sequences."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pyte
from support.documents import ROOT
from support.waiting import PATIENCE

ENTER, ALT_ENTER, CTRL_B, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x02", "\x03", "\x04", "\x1b[A"


class Screen(pyte.HistoryScreen):
    """Answers the queries of a program to its terminal, such as the position of the cursor."""

    def __init__(self, answer: Callable[[str], None]) -> None:
        self.title = ""
        super().__init__(90, 40, history=2000)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class Terminal:
    """A hubbub command at a terminal of 90 columns and 40 lines. `raw` has all bytes that the command wrote."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process, self.master = process, master
        self.raw = b""
        self.screen = Screen(self.type)
        self.stream = pyte.ByteStream(self.screen)
        self.changed = asyncio.Event()
        self.is_at_end = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the command closed its side
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.master)
            self.is_at_end.set()
        self.raw += data
        self.stream.feed(data)
        self.changed.set()

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    @property
    def text(self) -> str:
        """The text on the screen, after the lines that have scrolled off its top."""
        scrolled = ["".join(line[column].data for column in range(90)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in (*scrolled, *self.screen.display))

    async def until(self, *wanted: str, after: str = "") -> str:
        """Wait until the screen shows all *wanted* texts, after the last *after*; return the text of the screen."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not all(word in (self.text.rpartition(after)[2] if after else self.text) for word in wanted):
                    await self.wait_for_change()
        except TimeoutError:
            raise AssertionError(f"{wanted} did not come:\n{self.text}") from None
        return self.text

    async def wait_for_change(self) -> None:
        """Wait until the command writes something, or ends."""
        self.changed.clear()
        async with asyncio.timeout(PATIENCE):
            await self.changed.wait()

    def hang_up(self) -> None:
        """Close the terminal."""
        asyncio.get_running_loop().remove_reader(self.master)
        self.is_at_end.set()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self.master)
        os.close(null)

    async def wait_until_ended(self) -> int:
        """Wait until the command has ended and all that it wrote is in `raw`; return its exit code."""
        async with asyncio.timeout(PATIENCE):
            await self.is_at_end.wait()
            return await self.process.wait()


@asynccontextmanager
async def terminal(home: Path, *arguments: str) -> AsyncIterator[Terminal]:
    """Run a hubbub command at its own terminal. Ctrl-C in this terminal reaches the command."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 90, 0, 0))
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("HUBBUB_", "COLUMNS", "LINES"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", *arguments),
        cwd=home,
        env=environ
        | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "HOME": str(home), "XDG_CONFIG_HOME": str(home)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=lambda: os.login_tty(slave),
    )
    os.close(slave)
    running = Terminal(process, master)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
