"""SIGHUP: without a terminal it reloads settings, agents and the certificate; with one it ends the hub."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.certificates import make_certificate
from support.documents import DOCS, ROOT, rows
from support.hub import AGENTS, Client, Hub
from support.process import HubProcess
from support.terminal import terminal
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.commands.reloading import FIXED_LIMITS, RELOADABLE_SETTINGS
from hub.limits import Limits
from hub.setting_sources import LIMIT_TYPES, SETTING_TYPES
from hub.settings import ConfigError, Settings

READS_VARIABLE = """
import os

async def reads(message: str):
    yield os.environ.get(message, "missing")
"""
PRINT_END = "from hub.web.ending import _has_terminal; print(_has_terminal())"


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    running.agent("echo.py", AGENTS["echo"])
    running.agent("reads.py", READS_VARIABLE)
    try:
        yield running
    finally:
        await running.kill()


def write_settings(process: HubProcess, text: str) -> None:
    (process.folder / "hubbub.toml").write_text(text)


async def reload(process: HubProcess) -> list[str]:
    """Send SIGHUP, wait until the hub has reloaded, and return the lines of its output since then."""
    before = len(process.output_lines)
    # The line about the settings comes before those about agents, and each reload ends with that of the new agent.
    marker = f"marker{before}"
    process.agent(f"{marker}.py", AGENTS["echo"].replace("echo", marker))
    process.signal(signal.SIGHUP)
    await eventually(lambda: f"agent={marker}" in process.log)
    return process.output_lines[before:]


async def get_status(process: HubProcess, **headers: str) -> int:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        async with http.get(f"{process.url}/health", headers=headers) as response:
            return response.status


async def ask(process: HubProcess, agent: str, message: str) -> str:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        body = {"agentId": agent, "message": message}
        async with http.post(f"{process.url}/api/v1/sessions/s-{agent}/chat?wait=true", json=body) as response:
            answer = await response.json()
            return str(answer["content"])


async def test_settings_and_agents_change_while_the_hub_runs(process: HubProcess) -> None:
    """Open connections stay. A line names what has changed."""
    write_settings(process, "[hubbub]\naccess_log = true\n")
    await process.start()
    assert await get_status(process, Host="hub.example") == 403
    async with aiohttp.ClientSession() as http:
        client = Client(http, await http.ws_connect(f"{process.url}/api/v1/ws"))
        settings = 'hosts = ["hub.example"]\norigins = ["https://chat.example"]\nlog_level = "debug"\n'
        write_settings(process, f"[hubbub]\n{settings}[limits]\nqueued_runs = 5\n")
        lines = await reload(process)
        assert await get_status(process, Host="hub.example") == 200
        assert await get_status(process, Origin="https://chat.example") == 200
        await client.send(type="ping")
        await client.until_type("pong")
        ws = await http.ws_connect(f"{process.url}/api/v1/ws", protocols=["hubbub.v1"])
        assert (await ws.receive_json())["limits"]["queuedRuns"] == 5
        await ws.close()
    (line,) = [line for line in lines if "settings reloaded" in line]
    assert "log_level, access_log, origins, hosts, limits.queued_runs" in line
    assert "restart to change" not in process.log
    assert process.log.count("/health") == 1  # the access log is off


async def test_an_agent_is_loaded_at_sighup(process: HubProcess) -> None:
    """A changed file is used, and a removed one is gone."""
    await process.start()
    assert await ask(process, "echo", "hello") == "hello "
    process.agent("echo.py", 'async def echo(message: str):\n    yield "changed"\n')
    (process.folder / "agents" / "reads.py").unlink()
    await reload(process)
    assert await ask(process, "echo", "hello") == "changed"
    assert "agent removed" in process.log


async def test_the_variables_of_env_are_read_again(process: HubProcess) -> None:
    """Settings and agents get the new ones. A variable of the environment still wins."""
    env = process.folder / ".env"
    env.write_text("FIRST=1\nSECOND=2\nHUBBUB_HOSTS=one.example\nHUBBUB_CACHE=ignored\n")
    await process.start()
    assert [await ask(process, "reads", name) for name in ("FIRST", "SECOND")] == ["1", "2"]
    env.write_text("FIRST=3\nHUBBUB_HOSTS=two.example\nHUBBUB_CACHE=ignored, too\n")
    lines = await reload(process)
    assert [await ask(process, "reads", name) for name in ("FIRST", "SECOND")] == ["3", "missing"]
    assert await get_status(process, Host="one.example") == 403
    assert await get_status(process, Host="two.example") == 200
    assert not any("restart" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[hubbub]\nhosts = 1\n", "hubbub.toml: hosts must be a list of host names"),
        ("[hubbub\n", "hubbub.toml cannot be read"),
        ('[hubbub]\nhosts = ["new.example"]\nport = "x"\n', "hubbub.toml: port must be"),
        ('[hubbub]\nhosts = ["new.example"]\ntls_key = "x"\n', "tls_key needs its certificate"),
    ],
)
async def test_wrong_settings_change_nothing(process: HubProcess, text: str, reason: str) -> None:
    """Neither settings nor agents. One line has the reason; the next reload works."""
    write_settings(process, '[hubbub]\nhosts = ["old.example"]\n')
    await process.start()
    write_settings(process, text)
    process.agent("late.py", AGENTS["echo"].replace("echo", "late"))
    before = len(process.output_lines)
    process.signal(signal.SIGHUP)
    await eventually(lambda: "nothing reloaded" in process.log)
    assert await get_status(process, Host="old.example") == 200
    assert await get_status(process, Host="new.example") == 403
    async with aiohttp.ClientSession() as http, http.get(f"{process.url}/api/v1/agents/late") as response:
        assert response.status == 404
    lines = [line for line in process.output_lines[before:] if "refused" not in line]
    assert len(lines) == 1 and reason in lines[0]
    write_settings(process, '[hubbub]\nhosts = ["new.example"]\n')
    await reload(process)
    assert await get_status(process, Host="new.example") == 200


async def test_what_cannot_change_needs_a_restart(process: HubProcess) -> None:
    """A line names each such setting, and what can change has changed. Flags still win over the file."""
    await process.start()
    settings = 'sign_in = true\nport = 1\ndata = "elsewhere"\nhosts = ["hub.example"]\n'
    write_settings(process, f"[hubbub]\n{settings}[limits]\nagent_threads = 7\n")
    lines = await reload(process)
    names = [match[1] for line in lines if (match := re.search(r"restart to change (\S+)", line))]
    assert names == ["sign_in", "limits.agent_threads"]
    assert await get_status(process, Host="hub.example") == 200
    assert await ask(process, "echo", "still without sign-in") == "still without sign-in "


async def test_the_certificate_is_read_at_sighup(process: HubProcess) -> None:
    """A program that renews it can send the signal."""
    files, new = make_certificate(process.folder), make_certificate(process.folder, "renewed")
    await process.start(tls_certificate=files.file, tls_key=files.key_file)
    new.copy_to(files)
    await reload(process)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=new.trust())) as http:
        async with http.get(f"{process.url}/health") as response:
            assert response.status == 200


async def test_links_have_the_new_public_address(process: HubProcess) -> None:
    """And connections have the new limits of addresses."""
    settings = "[hubbub]\nsign_in = true\n"
    write_settings(process, settings)
    await process.start()
    write_settings(process, f'{settings}public_url = "https://hub.example"\n[limits]\naddress_connections = 1\n')
    await reload(process)
    _, first = await asyncio.open_connection("127.0.0.1", process.port)
    reader, second = await asyncio.open_connection("127.0.0.1", process.port)
    async with asyncio.timeout(PATIENCE):
        assert (await reader.readline()).startswith(b"HTTP/1.1 429")
    for writer in (first, second):
        writer.close()


async def test_a_closed_terminal_ends_the_hub(tmp_path: Path) -> None:
    """In order: the answers that run have an end."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text(AGENTS["echo"].replace("        async", "async").strip() + "\n")
    async with terminal(tmp_path, "serve", "--port", "0") as tty:
        await tty.until("Press Ctrl-C to stop.")
        tty.hang_up()
        assert await tty.wait_until_ended() == 0


@pytest.mark.parametrize(
    ("has_terminal", "command", "ends"), [(True, (), "True"), (True, ("nohup",), "False"), (False, (), "False")]
)
def test_only_the_signal_of_a_terminal_ends_the_hub(
    tmp_path: Path, has_terminal: bool, command: tuple[str, ...], ends: str
) -> None:
    """After nohup, the hub stays when its terminal goes: then the signal is for a reload."""
    master, slave = pty.openpty()

    def begin_session() -> None:
        os.setsid()
        if has_terminal:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    try:
        process = subprocess.run(
            [*command, sys.executable, "-c", PRINT_END],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            preexec_fn=begin_session,
            timeout=60,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert process.stdout.decode().strip() == ends


# --- the table --------------------------------------------------------------------------------------------------------


async def test_the_new_settings_must_fit_to_those_that_stay(hub: Hub) -> None:
    """A proxy of `user_header` must be trusted: a reload that takes it away changes nothing."""
    hub.options = {"user_header": "X-User", "trusted_proxies": ("127.0.0.1",), "hosts": ("old.example",)}
    await hub.start()
    before = hub.door.settings
    with pytest.raises(ConfigError, match="user_header without trusted_proxies"):
        await commands.change_settings(hub.door, OPERATOR, Settings(hosts=("new.example",)))
    assert hub.door.settings is before and hub.node.settings is before


def test_the_operations_page_has_the_settings_that_a_reload_changes() -> None:
    """And the limits that it does not change."""
    lists = {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in rows(DOCS["operations"]) if len(row) == 2}
    assert lists["settings that change"] == set(RELOADABLE_SETTINGS) <= set(SETTING_TYPES)
    assert lists["limits that need a restart"] == set(FIXED_LIMITS) <= set(LIMIT_TYPES)


async def test_each_setting_that_can_change_changes_everywhere(hub: Hub) -> None:
    """The hub and its node have the same settings, and keep those that cannot change."""
    await hub.start()
    new = Settings(
        port=1,
        log_level="error",
        log_format="json",
        access_log=True,
        origins=("https://a.example",),
        hosts=("a.example",),
        public_url="https://a.example",
        trusted_proxies=("10.0.0.0/8",),
        guests=False,
        allow_http=True,
        new_user_role="observer",
        frames_per_second=7.0,
        retention_days=3.0,
        retention_mb=5,
        limits=Limits(queued_runs=3, page_rows=7),
    )
    assert all(getattr(new, name) != getattr(Settings(), name) for name in RELOADABLE_SETTINGS)
    first = hub.door.settings
    change = await commands.change_settings(hub.door, OPERATOR, new)
    assert set(change.changed_names) == {*RELOADABLE_SETTINGS, "limits.queued_runs"}
    assert {"port", "limits.page_rows"} <= set(change.fixed_names)
    assert hub.door.settings is hub.node.settings
    for name in SETTING_TYPES:
        source = new if name in RELOADABLE_SETTINGS else first
        assert getattr(hub.door.settings, name) == getattr(source, name), name
    assert hub.door.limits == Limits(queued_runs=3)
    assert (hub.door.directory.new_user_role, hub.node.pace.seconds) == ("observer", 1 / 7)
