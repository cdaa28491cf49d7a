"""Child processes of agents do not inherit the hub's sockets and files, and do not block its shutdown."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.documents import ROOT
from support.hub import Client
from support.process import HubProcess
from support.waiting import PATIENCE, eventually

from hub.unix_sockets import open_address

PARENT = """
import multiprocessing, os, pathlib, time

def wait() -> None:
    for descriptor in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    pathlib.Path("begun").write_text(str(os.getpid()))
    while not pathlib.Path("gate").exists():
        time.sleep(0.01)

async def parent(message: str):
    multiprocessing.get_context("fork").Process(target=wait).start()
    yield "begun"
"""
RUNNER = """
import subprocess, sys

async def runner(message: str):
    code = "import os; print(*(os.readlink(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd')[:-1]))"
    yield subprocess.run([sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE, text=True).stdout
"""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    for name, code in {"parent": PARENT, "runner": RUNNER}.items():
        running.agent(f"{name}.py", code)
    await running.start()
    try:
        yield running
    finally:
        (tmp_path / "gate").touch()
        await running.kill()


async def connect(http: aiohttp.ClientSession, hub: HubProcess) -> Client:
    return Client(http, await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",)))


async def answer(client: Client, agent: str) -> str:
    await client.send(type="chat", agentId=agent, message="x")
    return client.text((await client.until_type("run_finished"))["runId"])


async def test_a_forked_child_keeps_nothing_of_a_killed_hub_open(hub: HubProcess) -> None:
    """The connections of clients end at once, nothing listens, and the next hub gets the port and the lock."""
    async with aiohttp.ClientSession() as http:
        client = await connect(http, hub)
        with socket.create_connection(("127.0.0.1", hub.port)) as idle:
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(1 << 16)
            assert await answer(client, "parent") == "begun"
            await eventually(lambda: (hub.folder / "begun").exists() and (hub.folder / "begun").read_text())
            await hub.kill()
            os.kill(int((hub.folder / "begun").read_text()), 0)  # the child still runs
            assert await client.wait_closed() == 1006
            idle.settimeout(PATIENCE)
            assert idle.recv(1) == b""
        with open_address(hub.folder / "data" / "control.sock") as address, pytest.raises(ConnectionRefusedError):
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(address)
        await hub.start(port=hub.port)
        assert await answer(await connect(http, hub), "runner")


async def test_the_hub_serves_its_clients_beside_a_forked_child(hub: HubProcess) -> None:
    """The child closes only its own copies of the sockets."""
    async with aiohttp.ClientSession() as http:
        client = await connect(http, hub)
        assert await answer(client, "parent") == "begun"
        await eventually((hub.folder / "begun").exists)
        assert await answer(client, "runner")
        assert await answer(await connect(http, hub), "runner")
        other = HubProcess(hub.folder)
        with pytest.raises(AssertionError, match=rf"hub.db is in use by another hub \(pid {hub.pid}\)"):
            await other.start()
        assert await other.wait_until_ended() == 2


async def test_an_executed_child_inherits_nothing(hub: HubProcess) -> None:
    """Not even with close_fds=False."""
    async with aiohttp.ClientSession() as http:
        names = (await answer(await connect(http, hub), "runner")).split()
    assert len(names) == 3 and not any(name.startswith("socket") or "data" in name for name in names), names


async def test_the_error_names_the_process_that_uses_the_port(hub: HubProcess) -> None:
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "serve", "--host", "127.0.0.1", "--port", str(hub.port), "--data", "data-2"),
        cwd=hub.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(second.communicate(), PATIENCE)
    assert second.returncode == 2
    name = Path(f"/proc/{hub.pid}/comm").read_text().strip()
    assert output.decode() == (
        f"hubbub: cannot listen on 127.0.0.1 port {hub.port}: Address already in use by {name} (pid {hub.pid}); "
        "stop it, or choose another --port, and another --data\n"
    )
