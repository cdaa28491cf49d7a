"""systemd holds the listening socket of a hub, and gets its states."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from support.process import make_environment
from support.systemd import LAUNCH, Supervisor
from support.waiting import PATIENCE, eventually

from hub.client import connect
from hub.web import systemd

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text("def echo(message): return message")
    supervisor = Supervisor(tmp_path, socket.create_server(("127.0.0.1", 0), backlog=4096))
    yield supervisor
    supervisor.close()


async def request_health(port: int) -> bytes:
    """Return the response to a request over a new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    response = await reader.read()
    writer.close()
    await writer.wait_closed()
    return response


async def test_a_restart_refuses_nobody(supervisor: Supervisor) -> None:
    """Clients that connect while no hub runs wait for the next one. A session goes on."""
    port, responses, is_over = supervisor.sock.getsockname()[1], [], asyncio.Event()

    async def connect_again_and_again() -> None:
        while not is_over.is_set():
            async with asyncio.timeout(PATIENCE):
                responses.append(await request_health(port))

    await supervisor.start()
    async with connect(f"ws://127.0.0.1:{port}/api/v1/ws") as client:
        session = await client.session("s1", agent="echo")
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(connect_again_and_again())
            for number in range(3):
                count = len(responses)
                await eventually(lambda: len(responses) > count + 40)
                assert await session.ask(f"Restart {number}") == f"Restart {number}"
                await supervisor.stop()
                await supervisor.start()
            is_over.set()
        assert await session.ask("Done") == "Done"
    assert len(responses) > 120 and {response[:15] for response in responses} == {b"HTTP/1.1 200 OK"}
    await supervisor.stop()
    assert supervisor.states == ["READY=1", "STOPPING=1"] * 4
    assert f"Hubbub listens on   http://localhost:{port}  (the console)" in supervisor.outputs[0]


async def test_a_reload_is_reported_and_keeps_the_address_of_the_socket(supervisor: Supervisor) -> None:
    """`host` and `port` have no effect, before and after."""
    port = supervisor.sock.getsockname()[1]
    await supervisor.start()
    (supervisor.folder / "hubbub.toml").write_text('[hubbub]\nport = 1\nhosts = ["hub.example.com"]\n')
    await supervisor.reload()
    assert (await request_health(port)).startswith(b"HTTP/1.1 200 OK")
    await supervisor.stop()
    assert "changed=hosts\n" in supervisor.outputs[0] and "restart to change" not in supervisor.outputs[0]


async def test_children_of_agents_do_not_get_the_socket(supervisor: Supervisor) -> None:
    """Neither its descriptor nor the variables: a child that outlives the hub would accept connections."""
    (supervisor.folder / "agents" / "child.py").write_text(
        "import multiprocessing, os, subprocess, sys\n"
        'SHOW = \'import os; print([n for n in os.environ if n[:7] == "LISTEN_"], os.path.exists("/dev/fd/3"))\'\n'
        "def child(message): return subprocess.run([sys.executable, '-c', SHOW], capture_output=True, text=True,\n"
        "                                          close_fds=False).stdout\n"
    )
    await supervisor.start()
    async with connect(f"ws://127.0.0.1:{supervisor.sock.getsockname()[1]}/api/v1/ws") as client:
        session = await client.session("s1", agent="child")
        assert (await session.ask("Go")).split("\n")[0] == "[] False"
    await supervisor.stop()


def launch(folder: Path, sock: socket.socket, **variables: str) -> str:
    """Start a hub that refuses the socket, and return its line."""
    (folder / "agents").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(sock.fileno())],
        cwd=folder,
        env=make_environment(**variables),
        pass_fds=[sock.fileno()],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert result.returncode == 2 and result.stdout == "", result
    return result.stderr


def test_a_socket_that_is_open_to_the_network_needs_sign_in(tmp_path: Path) -> None:
    """The address of the socket counts, not the setting `host`."""
    with closing(socket.create_server(("0.0.0.0", 0))) as sock:
        assert launch(tmp_path, sock, HUBBUB_HOST="127.0.0.1").startswith("hubbub: host 0.0.0.0 would open the hub")


@pytest.mark.parametrize("kind", ["unix", "connection", "file"])
def test_a_socket_that_cannot_be_used_is_one_line(tmp_path: Path, kind: str) -> None:
    """A unix socket has no address that the hub could check, and Accept=yes passes connections."""
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "sock"))
        sock.listen()
    else:
        sock = socket.socket()
    with closing(sock):
        if kind == "file":
            os.dup2(os.open(os.devnull, os.O_RDWR), sock.fileno())
        line = launch(tmp_path, sock)
    assert re.fullmatch("hubbub: systemd passed .*: write it as ListenStream=.*\n", line)


def test_the_sockets_of_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that another service starts inherits the variables."""
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert systemd.take_sockets() == [] and "LISTEN_FDS" not in os.environ


def test_an_abstract_socket_gets_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name begins with a null, which the variable shows as @."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(f"\0hubbub-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@hubbub-test-{os.getpid()}")
        systemd.tell_systemd("READY=1")
        assert receiver.recv(100) == b"READY=1"


def test_a_lost_systemd_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (str(tmp_path / "gone"), "vsock:2:1234", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", value)
        systemd.tell_systemd("READY=1")
