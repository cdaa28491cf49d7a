"""The control socket: who can connect, and what a request gets."""

import inspect
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from support.documents import ROOT
from support.hub import Hub

from hub.commands.operator import OPERATOR_COMMANDS
from hub.commands.table import USE_CASES
from hub.web.control import listen_privately, start_control

# Binds a private socket, and prints the modes of its folder at bind() and of the socket when it gets its name.
WATCH_MODES = """
import os, sys
from pathlib import Path
from hub.web.control import listen_privately

def watch(event, values):
    if event == "socket.bind":
        print(oct(Path(os.fsdecode(values[1])).parent.stat().st_mode & 0o777))
    if event == "os.rename":
        print(oct(Path(values[0]).stat().st_mode & 0o777), Path(values[1]).name)

os.umask(0)
sys.addaudithook(watch)
listen_privately(Path(sys.argv[1]))
"""
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@pytest.fixture
async def control(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client of the control socket of a hub in this process."""
    await hub.start()
    server = await start_control(hub.door)
    assert server is not None
    async with aiohttp.ClientSession("http://hub", connector=aiohttp.UnixConnector(str(server.path))) as http:
        yield http
    await server.stop()


async def post(http: aiohttp.ClientSession, name: str, data: Any) -> tuple[int, Any]:
    body = data if isinstance(data, bytes) else msgspec.json.encode(data)
    async with http.post(f"/commands/{name}", data=body) as response:
        return response.status, await response.json()


@pytest.mark.exact
def test_the_socket_is_private_from_its_first_moment(tmp_path: Path) -> None:
    """It begins in a private folder, and gets its name when it is private itself. The umask plays no part."""
    result = subprocess.run(
        [sys.executable, "-c", WATCH_MODES, str(tmp_path / "control.sock")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.split() == ["0o700", "0o600", "control.sock"], result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["control.sock"]


def test_another_account_cannot_connect(tmp_path: Path) -> None:
    """Even if it can open the folder. Only root can run a program as another account."""
    path = tmp_path / "control.sock"
    with listen_privately(path):
        assert path.stat().st_mode & 0o777 == 0o600
        if os.geteuid() == 0:
            folder = os.open(tmp_path, os.O_RDONLY)
            tmp_path.chmod(0o755)
            command = [
                os.path.realpath(sys.executable),
                "-I",
                "-S",
                "-c",
                CONNECT,
                f"/proc/self/fd/{folder}/{path.name}",
            ]
            options: dict[str, Any] = {"pass_fds": [folder], "capture_output": True, "text": True, "timeout": 60}
            assert subprocess.run(command, **options).returncode == 0
            result = subprocess.run(command, user=65534, group=65534, extra_groups=[], **options)
            os.close(folder)
            assert "PermissionError" in result.stderr, result


async def test_a_failed_start_leaves_nothing(hub: Hub) -> None:
    """The hub runs without the socket."""
    await hub.start()
    (hub.folder / "data" / "control.sock").mkdir()
    (hub.folder / "data" / "control.sock" / "x").touch()
    names = sorted(os.listdir(hub.folder / "data"))
    assert await start_control(hub.door) is None
    assert sorted(os.listdir(hub.folder / "data")) == names


async def test_a_command_gets_its_result(control: aiohttp.ClientSession) -> None:
    """With JSON. Lists have no digests of secrets."""
    status, body = await post(control, "create_key", {"name": "ci", "agents": ["echo"], "days": 90})
    assert status == 200 and body["result"]["key"].startswith("hk_") and body["isSignInOn"] is False
    status, body = await post(control, "list_credentials", {})
    (credential,) = body["result"]
    assert (credential["kind"], credential["agents"]) == ("key", ["echo"]) and "digest" not in credential
    status, body = await post(control, "revoke_credential", {"credentialId": credential["id"]})
    assert body["result"]["revoked"] > 0 and "digest" not in body["result"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("nosuch", {}, "use one of create_key"),
        ("read_metrics", {}, "unknown command"),
        ("create_key", {}, "name"),
        ("create_key", {"name": "x", "principal": "y"}, "unknown field"),
        ("create_key", {"name": "x", "role": "operator"}, "observer"),
        ("create_key", {"name": "x", "days": "9"}, "days"),
        ("create_key", {"name": "x", "days": 0}, "days"),
        ("create_key", {"name": "x", "agents": []}, "agents"),
        ("create_key", {"name": ""}, "name"),
        ("change_principal", {"name": "x", "newName": "y" * 101}, "newName"),
        ("list_principals", [], "JSON object"),
        ("list_principals", b"{", "not JSON"),
    ],
)
async def test_wrong_arguments_are_refused(control: aiohttp.ClientSession, name: str, data: Any, words: str) -> None:
    """The error says what is wrong."""
    status, body = await post(control, name, data)
    assert status == 400 and words in body["error"], body
    assert (await post(control, "list_principals", {}))[1]["result"] == []


async def test_a_refusal_has_its_status_and_code(control: aiohttp.ClientSession) -> None:
    assert await post(control, "remove_principal", {"name": "nobody"}) == (
        404,
        {"error": "there is no principal nobody: hubbub principal list shows all", "code": "unknown_principal"},
    )


async def test_the_metrics_are_on_the_control_socket(control: aiohttp.ClientSession) -> None:
    """Other routes are not: clients have their own address."""
    async with control.get("/metrics") as response:
        assert response.status == 200 and "hubbub_connections" in await response.text()
    async with control.get("/api/v1/agents") as response:
        assert response.status == 404


@pytest.mark.parametrize("name", OPERATOR_COMMANDS)
def test_the_arguments_of_a_command_are_the_parameters_of_its_use_case(name: str) -> None:
    """None is missing, and none is too many."""
    command = OPERATOR_COMMANDS[name]
    assert command.use_case is USE_CASES[name]
    parameters = [*inspect.signature(command.use_case.function).parameters][2:]
    assert sorted(parameters) == sorted(command.arguments.__struct_fields__)
    msgspec.json.decode(command.arguments.example, type=command.arguments)
