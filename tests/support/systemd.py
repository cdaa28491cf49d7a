"""A stand-in for systemd: it holds the listening socket of a hub, and receives the states that the hub sends."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

import attrs
from support.process import make_environment
from support.waiting import PATIENCE

# Runs `hubbub serve` with the descriptor of the first argument as number 3. LISTEN_PID is the process of the hub.
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "hubbub.socket"}
os.execv(sys.executable, [sys.executable, "-m", "hub", "serve"])
"""


@attrs.define(eq=False)
class Supervisor:
    """Starts and stops hubs that share one listening socket. *states* are the messages of all hubs."""

    folder: Path
    sock: socket.socket
    states: list[str] = attrs.Factory(list)
    outputs: list[str] = attrs.Factory(list)
    _process: asyncio.subprocess.Process | None = None
    _notify_socket: socket.socket | None = None

    async def start(self) -> None:
        """Start a hub, and wait until it reports that it is ready."""
        if self._notify_socket is None:
            self._notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._notify_socket.setblocking(False)
            self._notify_socket.bind(str(self.folder / "notify"))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LAUNCH, str(self.sock.fileno())),
            cwd=self.folder,
            env=make_environment(NOTIFY_SOCKET=self.folder / "notify"),
            pass_fds=[self.sock.fileno()],
            start_new_session=True,  # without a terminal
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        await self.wait_for("READY=1")

    async def wait_for(self, state: str) -> None:
        """Wait for the next message, whose first line must be *state*."""
        assert self._notify_socket is not None and self._process is not None
        receive = asyncio.create_task(asyncio.get_running_loop().sock_recv(self._notify_socket, 4096))
        end = asyncio.create_task(self._process.wait())
        await asyncio.wait([receive, end], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        assert receive.done(), await self.read_output()
        self.states.append(receive.result().decode().split("\n")[0])
        assert self.states[-1] == state

    async def stop(self) -> None:
        """Stop the hub, and wait until it reports that, and has ended without an error."""
        assert self._process is not None
        self._process.terminate()
        await self.wait_for("STOPPING=1")
        await self.read_output()
        assert self._process.returncode == 0, self.outputs

    async def reload(self) -> None:
        """Let the hub reload its settings, and wait until it has."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        await self.wait_for("RELOADING=1")
        await self.wait_for("READY=1")

    async def read_output(self) -> str:
        """Wait for the end of the hub, and return its output."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            output, _ = await self._process.communicate()
        self.outputs.append(output.decode())
        return self.outputs[-1]

    def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._notify_socket is not None:
            self._notify_socket.close()
        self.sock.close()
