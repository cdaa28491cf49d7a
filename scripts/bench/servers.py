"""The hub and its peers: how each is installed, started, spoken to and measured."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
from wire import HOST

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "bench"
START_SECONDS = 30
STOP_SECONDS = 20


@attrs.frozen
class Server:
    """One row of the table. *burst* are the tokens of a burst: enough for its speed, so that each takes seconds."""

    name: str
    dialect: str
    command: tuple[str, ...]
    burst: int


def node(file: str) -> tuple[str, ...]:
    return ("node", str(BUILD / "peers" / file))


def python(file: str) -> tuple[str, ...]:
    return (sys.executable, str(BUILD / "peers" / file))


HUB = Server("hub", "hub", (sys.executable, "-m", "hub", "serve", "--host", HOST), 20_000)
NODE_WS = Server("node ws", "peer", node("node_ws.js"), 2000)
BUN = Server(
    "bun (uWebSockets)",
    "peer",
    (str(BUILD / "peers" / "node_modules" / ".bin" / "bun"), str(BUILD / "peers" / "bun_publish.js")),
    5000,
)
PEERS = (
    Server("aiohttp naive", "peer", python("aiohttp_naive.py"), 500),
    Server("starlette", "peer", python("starlette_ws.py"), 500),
    Server("websockets", "peer", python("websockets_broadcast.py"), 1000),
    Server("python-socketio", "socket.io", python("python_socketio.py"), 200),
    NODE_WS,
    Server("node socket.io", "socket.io", node("node_socketio.js"), 1000),
    BUN,
)


def install() -> tuple[Server, ...]:
    """Make the peers ready in build/bench, once; return those that this machine can run."""
    peers = BUILD / "peers"
    shutil.copytree(HERE / "peers", peers, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    if shutil.which("npm") is None:
        print("No npm here: the peers that run on Node.js and Bun are left out.", flush=True)
        return tuple(peer for peer in PEERS if peer.command[0] == sys.executable)
    wanted, done = (peers / "package.json").read_text(), peers / "node_modules" / ".installed"
    if not done.is_file() or done.read_text() != wanted:
        print("Installing the peers from npm, once ...", flush=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=peers, check=True)
        done.write_text(wanted)
    return PEERS


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@attrs.frozen
class Running:
    """A server that listens: *port*, its process, and the folder of its data."""

    server: Server
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        return self.process.pid


@contextlib.contextmanager
def running(server: Server, data: Path) -> Iterator[Running]:
    """Start *server* on the first CPU and a free port, and stop it. *data* is where a hub keeps its log."""
    port = free_port()
    options = ("--port", str(port), "--agents", str(agents()), "--data", str(data)) if server is HUB else (str(port),)
    output = BUILD / f"{server.name.split()[0]}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ("taskset", "-c", "0", *server.command, *options), stdout=file, stderr=subprocess.STDOUT, cwd=BUILD
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not listening(port):
            if process.poll() is not None or time.monotonic() > end:
                said = output.read_text(errors="replace").strip() or "nothing"
                raise SystemExit(f"{server.name} did not start. It said: {said.splitlines()[-1]}. All of it: {output}")
            time.sleep(0.05)
        yield Running(server, port, process)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def agents() -> Path:
    """Return the folder of the agents that are measured: the one that keeps a schedule, and the shipped echo."""
    folder = BUILD / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "agents" / "bench.py", folder)
    shutil.copy(ROOT / "agents" / "echo.py", folder)
    return folder


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


def family(pid: int) -> list[int]:
    """Return a process and all its children."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                todo += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time a server has used, its children included."""
    ticks = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))  # its own, and its reaped children's
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_kb(pid: int) -> int:
    """Return the memory a server holds, its children included, in kB."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total
