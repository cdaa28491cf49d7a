"""The hub and its peers: installation, start, protocol and measurement."""

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
    """A server of the benchmark. *burst* is its number of tokens in a burst, which takes some seconds."""

    name: str
    dialect: str
    command: tuple[str, ...]
    burst: int


def node(file: str) -> tuple[str, ...]:
    return ("node", str(BUILD / "peers" / file))


def python(file: str) -> tuple[str, ...]:
    return (sys.executable, str(BUILD / "peers" / file))


HUB = Server("hub", "hub", (sys.executable, "-m", "hub", "serve", "--host", HOST), 20_000)
SIGNED_HUB = attrs.evolve(HUB, name="signed hub")  # sign-in is on: each client has the key of one principal
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
    """Install the peers in build/bench once; return those that this machine can run."""
    peers = BUILD / "peers"
    shutil.copytree(HERE / "peers", peers, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    if shutil.which("npm") is None:
        print("npm is not installed: the peers that need Node.js or Bun are left out.", flush=True)
        return tuple(peer for peer in PEERS if peer.command[0] == sys.executable)
    requirements, marker = (peers / "package.json").read_text(), peers / "node_modules" / ".installed"
    if not marker.is_file() or marker.read_text() != requirements:
        print("Installing the peers from npm, once ...", flush=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=peers, check=True)
        marker.write_text(requirements)
    return PEERS


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@attrs.frozen
class RunningServer:
    """A running server, its port and its process."""

    server: Server
    port: int
    process: "subprocess.Popen[bytes]"
    key: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid


@contextlib.contextmanager
def running(server: Server, data: Path) -> Iterator[RunningServer]:
    """Start *server* on the first CPU and a free port, and stop it at the end. *data* is the data folder of a hub."""
    port = free_port()
    options: tuple[str, ...] = (str(port),)
    if server in (HUB, SIGNED_HUB):
        options = ("--port", str(port), "--agents", str(prepare_agents()), "--data", str(data))
    key = make_key(data) if server is SIGNED_HUB else ""
    environment = os.environ | (SIGN_IN if server is SIGNED_HUB else {})
    output = BUILD / f"{server.name.split()[0]}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ("taskset", "-c", "0", *server.command, *options),
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=BUILD,
            env=environment,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not is_listening(port):
            if process.poll() is not None or time.monotonic() > end:
                text = output.read_text(errors="replace").strip() or "nothing"
                raise SystemExit(
                    f"{server.name} did not start. Its last line: {text.splitlines()[-1]}. Complete output: {output}"
                )
            time.sleep(0.05)
        yield RunningServer(server, port, process, key)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# The limits of connections are off for a hub without sign-in on loopback.
MANY_CONNECTIONS = ("PRINCIPAL_CONNECTIONS", "ADDRESS_CONNECTIONS", "NODE_CONNECTIONS", "NEW_CONNECTIONS_PER_SECOND")
SIGN_IN = {"HUBBUB_SIGN_IN": "true"} | {f"HUBBUB_LIMITS_{name}": "1000000" for name in (*MANY_CONNECTIONS, "NODE_RUNS")}


def make_key(data: Path) -> str:
    """Return a new key for the hub of a data folder, on which no hub runs."""
    command = (sys.executable, "-m", "hub", "key", "create", "bench", "--data", str(data))
    result = subprocess.run(command, cwd=BUILD, env=os.environ | SIGN_IN, capture_output=True, text=True, check=True)
    return next(word for word in result.stdout.split() if word.startswith("hk_"))


def prepare_agents() -> Path:
    """Return a folder with the agents of the benchmark: bench.py and the shipped echo."""
    folder = BUILD / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "agents" / "bench.py", folder)
    shutil.copy(ROOT / "agents" / "echo.py", folder)
    return folder


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


def process_tree(pid: int) -> list[int]:
    """Return a process and all its children."""
    pids, queue = [], [pid]
    while queue:
        one = queue.pop()
        pids.append(one)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                queue += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return pids


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a server and its children."""
    ticks = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))  # its own time, and that of its reaped children
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_kb(pid: int) -> int:
    """Return the memory of a server and its children in kB."""
    total = 0
    for one in process_tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total
