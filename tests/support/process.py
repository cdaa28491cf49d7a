"""A hub in its own process. A test can stop and kill it."""

import asyncio
import os
import re
import resource
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.documents import ROOT
from support.waiting import PATIENCE

needs_prlimit = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="sets the limits of another process: run it on Linux"
)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here: apt-get install curl")


BANNER_END = re.compile("Press Ctrl-C to stop|The hub is ready")  # in the last line of the banner


def make_environment(**variables: Any) -> dict[str, str]:
    """Return the environment for a command: that of this process, without its settings, and with *variables*."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HUBBUB_")}
    return environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | {key: str(value) for key, value in variables.items()}


@attrs.frozen
class CommandOutput:
    """The end of a command: its exit code, and its standard output and standard error."""

    code: int
    out: str
    err: str


async def run_hubbub(folder: Path, *arguments: str, text: str = "", **variables: Any) -> CommandOutput:
    """Run a command of hubbub in *folder* with *text* as its standard input, and wait for its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", *arguments),
        cwd=folder,
        env=make_environment(**variables),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * PATIENCE):
        out, err = await process.communicate(text.encode())
    assert process.returncode is not None
    return CommandOutput(process.returncode, out.decode(), err.decode())


@attrs.define(eq=False)
class HubProcess:
    """`hubbub serve` in its own process. After its end, start() starts it again with the same folders.

    *packages* is a folder of packages on the import path of the hub. *module* is run instead of `hub`. *agents* is
    the name of the agents folder. While *is_read* is cleared, nobody reads the output of the process.
    """

    folder: Path
    packages: Path | None = None
    module: str = "hub"
    agents: str = "agents"
    port: int = 0
    scheme: str = "http"
    output_lines: list[str] = attrs.Factory(list)
    _process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _ready: asyncio.Event = attrs.Factory(asyncio.Event)
    is_read: asyncio.Event = attrs.Factory(asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self.is_read.set()

    def agent(self, name: str, code: str) -> None:
        agents = self.folder / self.agents
        agents.mkdir(exist_ok=True)
        (agents / name).write_text(textwrap.dedent(code), encoding="utf-8")

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.folder / "data" / "hub.db"

    async def start(self, *, port: int = 0, **settings: Any) -> "HubProcess":
        """Start the process, and wait until the hub listens. *settings* become environment variables."""
        (self.folder / self.agents).mkdir(exist_ok=True)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("HUBBUB_")}
        environ["HUBBUB_CACHE"] = str(self.folder / "cache")
        environ |= {f"HUBBUB_{key.upper()}": str(value) for key, value in settings.items()}
        environ["PYTHONPATH"] = os.pathsep.join(map(str, filter(None, (ROOT, self.packages))))
        flags = ("--host", "127.0.0.1", "--port", str(port), "--agents", self.agents, "--data", "data")
        self._ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", self.module, "serve", *flags),
            cwd=self.folder,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # without the terminal of the tests
        )
        self._reader = asyncio.create_task(self._read(self._process))
        async with asyncio.timeout(PATIENCE):
            await self._ready.wait()
        assert self._process.returncode is None and self.port, self.log
        return self

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            await self.is_read.wait()
            line = raw.decode(errors="replace")
            self.output_lines.append(line)
            if match := re.search(r"listens on\s+(https?)://127\.0\.0\.1:(\d+)", line):
                self.scheme, self.port = match[1], int(match[2])
            if BANNER_END.search(line):
                self._ready.set()
        self._ready.set()  # the process has ended

    @property
    def log(self) -> str:
        """The output of the process since the first start, restarts included."""
        return "".join(self.output_lines)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match
        return int(match[1]) * 1024

    def fill_disk(self) -> None:
        """Make each write to a file fail, as on a full disk."""
        self._limit_files(0)

    def free_disk(self) -> None:
        """Undo fill_disk()."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def close_output(self) -> None:
        """Close the reading end of the pipe that the process writes its output to."""
        assert self._process is not None
        pipe = self._process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        pipe.close()

    async def wait_until_ended(self) -> int:
        """Wait until the process ends; return its exit code."""
        assert self._process is not None and self._reader is not None
        async with asyncio.timeout(2 * PATIENCE):
            code = await self._process.wait()
            await self._reader
        return code

    async def kill(self) -> None:
        """Kill the process with SIGKILL if it runs."""
        if self.running:
            self.signal(signal.SIGKILL)
        if self._process is not None:
            await self.wait_until_ended()
