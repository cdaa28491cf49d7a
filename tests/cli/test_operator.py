"""The operator's commands: `hubbub key`, `invite` and `principal`, with a running hub and without one."""

import asyncio
import json
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from support.process import CommandOutput, HubProcess, make_environment, run_hubbub
from support.waiting import PATIENCE

from hub.storage.lockfile import take_lock


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub that is not started; killed after the test."""
    running = HubProcess(tmp_path)
    running.agent("echo.py", "def echo(message):\n    yield message\n")
    yield running
    await running.kill()


async def succeed(folder: Path, *arguments: str, **variables: str) -> str:
    """Run a command that succeeds, and return its standard output."""
    output = await run_hubbub(folder, *arguments, **variables)
    assert output.code == 0, output
    return output.out.strip()


def read_refusal(output: CommandOutput, code: int = 1) -> str:
    """Return the one line of a command that failed."""
    assert (output.code, output.out) == (code, "") and output.err.count("\n") == 1, output
    assert output.err.startswith("hubbub: ")
    return output.err


def read_cells(table: str, name: str) -> list[str]:
    """Return the cells of the row that has the cell *name*."""
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines()]
    (row,) = [row for row in rows if name in row]
    return row


async def connect_with(http: aiohttp.ClientSession, process: HubProcess, key: str) -> aiohttp.ClientWebSocketResponse:
    return await http.ws_connect(f"{process.url}/api/v1/ws", headers={"Authorization": f"Bearer {key}"})


# --- with and without a running hub -----------------------------------------------------------------------------------

# Each command with its exit code.
SCRIPT = {
    "principal list": 0,
    "key create ci --agents echo --expires 90d": 0,
    "key create bot --role observer --tenant acme": 0,
    "key create ci --role admin": 1,
    "key create ci --tenant a/b": 1,
    "invite ann": 0,
    "principal set ann --role admin --name Anna": 0,
    "principal set ann --role admin": 1,
    "principal adopt Anna": 0,
    "key list --all": 0,
    "key revoke 0123456789abcdef": 1,
    "principal remove bot": 0,
    "principal list --tenant default": 0,
}


# Runs each argument as a command of hubbub, in one process.
RUN_LINES = """
import json, sys
from click.testing import CliRunner
from hub.cli.main import cli

results = [CliRunner().invoke(cli, line.split(), prog_name="hubbub") for line in sys.argv[1:]]
print(json.dumps([(result.exit_code, result.stdout + result.stderr) for result in results]))
"""


async def run_lines(folder: Path, *lines: str) -> list[tuple[int, str]]:
    """Return the exit code and the output of each command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN_LINES, *lines),
        cwd=folder,
        env=make_environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * PATIENCE):
        out, _ = await process.communicate()
    return [(code, hide_random_parts(text)) for code, text in json.loads(out)]


def hide_random_parts(text: str) -> str:
    """Replace secrets, ids, addresses and times."""
    text = re.sub(r"[0-9a-f]{16,40}", lambda match: "0" * len(match[0]), text)
    return re.sub(r"http://[a-z0-9.]+:\d+/", "URL/", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", text))


async def test_a_running_hub_and_a_stopped_one_give_the_same_results(process: HubProcess, tmp_path: Path) -> None:
    """Also the errors are the same."""
    stopped = tmp_path / "stopped"
    (stopped / "data").mkdir(parents=True)
    await process.start()
    first, second = [await run_lines(folder, *SCRIPT) for folder in (tmp_path, stopped)]
    assert first == second and [code for code, _ in first] == [*SCRIPT.values()]


async def test_a_key_made_while_the_hub_is_stopped_works(process: HubProcess, tmp_path: Path) -> None:
    """Standard output has nothing but the key. What a stopped hub changes, the next start knows."""
    output = await run_hubbub(tmp_path, "key", "create", "ci")
    assert re.fullmatch(r"hk_[0-9a-f]{16}_[0-9a-f]{40}\n", output.out)
    key = output.out.strip()
    assert "makes it" in output.err and "sign_in = true" in output.err and key not in output.err
    revoked = await succeed(tmp_path, "key", "create", "ci")
    await succeed(tmp_path, "key", "revoke", revoked)
    await process.start(sign_in=True)
    async with aiohttp.ClientSession() as http:
        for text, status in ((key, 200), (revoked, 401)):
            headers = {"Authorization": f"Bearer {text}"}
            async with http.get(f"{process.url}/api/v1/me", headers=headers) as response:
                assert response.status == status


async def test_a_revoked_key_is_useless_when_the_command_ends(process: HubProcess, tmp_path: Path) -> None:
    """Its open connections are closed with 4503. Those of another key stay."""
    await process.start(sign_in=True)
    key, other = [await succeed(tmp_path, "key", "create", name) for name in ("ann", "ann")]
    async with aiohttp.ClientSession() as http:
        ws, other_ws = [await connect_with(http, process, text) for text in (key, other)]
        assert "is revoked" in await succeed(tmp_path, "key", "revoke", key.split("_")[1])
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await connect_with(http, process, key)
        assert (await ws.receive(PATIENCE)).type is aiohttp.WSMsgType.TEXT
        close = await ws.receive(PATIENCE)
        assert (close.type, close.data) == (aiohttp.WSMsgType.CLOSE, 4503)
        await other_ws.send_json({"type": "ping"})
        assert (await other_ws.receive_json(timeout=PATIENCE))["type"] == "pong"


async def test_a_changed_role_applies_at_once(process: HubProcess, tmp_path: Path) -> None:
    """A removed principal can do nothing more."""
    await process.start(sign_in=True)
    headers = {"Authorization": f"Bearer {await succeed(tmp_path, 'key', 'create', 'ann')}"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def call() -> tuple[int, str | None]:
            async with http.get(f"{process.url}/api/v1/me") as response:
                return response.status, (await response.json()).get("role")

        assert await call() == (200, "member")
        assert await succeed(tmp_path, "principal", "set", "ann", "--role", "admin") == "ann has the role admin"
        assert await call() == (200, "admin")
        assert "is removed" in await succeed(tmp_path, "principal", "remove", "ann")
        assert await call() == (401, None)


async def test_lists_have_no_secrets(process: HubProcess, tmp_path: Path) -> None:
    """A list shows who has the key, its agents, its end, its last use and its state."""
    await process.start(sign_in=True)
    key = await succeed(tmp_path, "key", "create", "ci", "--agents", "echo", "--expires", "12h")
    link = await succeed(tmp_path, "invite", "ann")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        await (await http.get(f"{process.url}/api/v1/me")).read()
    table = await succeed(tmp_path, "key", "list", "--all")
    ids = [text.split("_")[1] for text in (key, link)]
    row = read_cells(table, ids[0])
    assert row[1:4] == ["ci", "key", "echo"] and row[6] == "valid"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", cell) for cell in row[4:6])
    assert read_cells(table, ids[1])[1:4] == ["ann", "invite", "all"]
    for text in (key, link):
        assert text.rpartition("_")[2] not in table
    await succeed(tmp_path, "key", "revoke", ids[0])
    assert read_cells(await succeed(tmp_path, "key", "list", "ci"), ids[0])[6] == "revoked"


async def test_an_agent_that_the_hub_does_not_have_gets_a_warning(process: HubProcess, tmp_path: Path) -> None:
    """The key is made, because the agent may come later. The warning has the agents of the hub."""
    await process.start(sign_in=True)
    output = await run_hubbub(tmp_path, "key", "create", "ci", "--agents", "echo,ecko")
    assert output.code == 0 and re.fullmatch(r"hk_\w+\n", output.out)
    warning, _ = output.err.splitlines()
    assert warning == (
        "there is no agent ecko; there are: echo; the key can use this agent as soon as its file is there"
    )


async def test_lists_fit_80_columns(process: HubProcess, tmp_path: Path) -> None:
    """Ids stay in one piece, and columns are left out by name."""
    await process.start(sign_in=True)
    name = "the build server of the team"
    key = await succeed(tmp_path, "key", "create", name, "--agents", "echo,main,writer,translator", "--expires", "90d")
    headers = {"Authorization": f"Bearer {key}"}
    session = "0123456789abcdef" * 2
    async with aiohttp.ClientSession(headers=headers) as http:
        url = f"{process.url}/api/v1/sessions/{session}/chat?wait=true"
        async with http.post(url, json={"agentId": "echo", "message": "hello " * 20}) as response:
            assert response.status == 200
    for command, text in (("key list --all", key[3:19]), ("principal list", "p_"), ("audit", session)):
        output = await run_hubbub(tmp_path, *command.split(), COLUMNS=80)
        assert max(map(len, output.out.splitlines())) <= 80 and text in output.out, output.out
        assert "left out: " in output.err and "wider terminal" in output.err
    output = await run_hubbub(tmp_path, "sessions", "--url", process.url, COLUMNS=80, HUBBUB_KEY=key)
    assert session in output.out and max(map(len, output.out.splitlines())) <= 80


async def test_links_have_the_public_url(process: HubProcess, tmp_path: Path) -> None:
    """In both ways. Without `public_url`, a hub for the network says that the link is for this machine."""
    public = {"HUBBUB_PUBLIC_URL": "https://hub.example"}
    pattern = r"https://hub\.example/sign-in#hi_[0-9a-f_]+"
    assert re.fullmatch(pattern, await succeed(tmp_path, "invite", "ann", **public))
    output = await run_hubbub(tmp_path, "invite", "ann", HUBBUB_HOST="0.0.0.0", HUBBUB_SIGN_IN="true")
    assert output.out.startswith("http://localhost:9527/sign-in#hi_") and "set public_url" in output.err
    await process.start(public_url="https://hub.example")
    assert re.fullmatch(pattern, await succeed(tmp_path, "invite", "ann"))


# --- the socket -------------------------------------------------------------------------------------------------------


async def test_the_socket_is_private_and_goes_with_the_hub(process: HubProcess, tmp_path: Path) -> None:
    """Only its own account can connect."""
    await process.start()
    path = tmp_path / "data" / "control.sock"
    assert stat.S_ISSOCK(path.stat().st_mode) and path.stat().st_mode & 0o777 == 0o600
    process.signal(signal.SIGTERM)
    assert await process.wait_until_ended() == 0
    assert not [name.name for name in (tmp_path / "data").iterdir() if "control" in name.name]


async def test_the_socket_of_a_killed_hub_is_in_nobodys_way(process: HubProcess, tmp_path: Path) -> None:
    """A command sees that no hub listens. The next hub replaces the socket, and still closes the folder to others."""
    await process.start()
    await process.kill()
    assert (tmp_path / "data" / "control.sock").exists()
    await succeed(tmp_path, "key", "create", "ci")
    (tmp_path / "data").chmod(0o755)
    await process.start()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert read_cells(await succeed(tmp_path, "principal", "list"), "ci")[2] == "program"


async def test_the_path_of_the_data_folder_may_be_long(tmp_path: Path) -> None:
    """An address of a unix socket has at most 107 bytes on Linux."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    process = HubProcess(folder)
    try:
        await process.start()
        assert (folder / "data" / "control.sock").stat().st_mode & 0o777 == 0o600
        assert len(str(folder / "data" / "control.sock")) > 107 and "control" not in process.log
        await succeed(folder, "key", "create", "ci")
        assert read_cells(await succeed(folder, "principal", "list"), "ci")[2] == "program"
    finally:
        await process.kill()


async def test_a_hub_that_is_starting_or_stopping_is_named_in_one_line(tmp_path: Path) -> None:
    """It has the lock of the log, and no socket yet, or no more."""
    (tmp_path / "data").mkdir()
    with ExitStack() as undo:
        take_lock(tmp_path / "data" / "hub.db", undo)
        line = read_refusal(await run_hubbub(tmp_path, "key", "list"))
    assert "starting or stopping" in line and "try again" in line and re.search(r"pid \d+", line)
    assert await succeed(tmp_path, "key", "list") == "no keys yet"


async def test_a_hub_without_a_socket_runs_and_says_so(process: HubProcess, tmp_path: Path) -> None:
    """For example because a folder has the name of the socket. The commands say where to look."""
    (tmp_path / "data" / "control.sock" / "x").mkdir(parents=True)
    await process.start()
    (line,) = [line for line in process.output_lines if "no control socket" in line]
    assert "control.sock" in line and "stopped" in line
    assert "no control socket" in read_refusal(await run_hubbub(tmp_path, "key", "list"))


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("principal remove nobody", 1, "no principal nobody"),
        ("principal adopt nobody", 1, "hubbub principal list"),
        ("key list nobody", 1, "no principal nobody"),
        ("key revoke nothing", 1, "hubbub key list"),
        ("key create x --tenant a/b", 1, "the tenant 'a/b' is not a valid id"),
        ("key list --log nosuch://x", 2, "nosuch"),
    ],
)
async def test_a_mistake_is_one_line(tmp_path: Path, arguments: str, code: int, words: str) -> None:
    (tmp_path / "data").mkdir()
    assert words in read_refusal(await run_hubbub(tmp_path, *arguments.split()), code)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("key create x --expires 90", "90d"),
        ("key create x --expires 0d", "90d"),
        ("key create x --agents ,", "--agents"),
        ("key create x --agents main,a/b", "'a/b' is not a valid id"),
        ("invite x --role boss", "observer"),
        ("principal set x", "--role or --name"),
    ],
)
async def test_a_wrong_option_is_explained(tmp_path: Path, arguments: str, words: str) -> None:
    output = await run_hubbub(tmp_path, *arguments.split())
    assert output.code == 2 and words in output.err and not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["invite ann", "key create ci"])
async def test_a_folder_without_a_hub_stays_as_it_is(tmp_path: Path, command: str) -> None:
    """Nothing in it says that a hub belongs there. The line names the folder, and what to do."""
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "far.toml").write_text("[hubbub]\nsign_in = true\n")
    for options in ((), ("--config", str(tmp_path / "far.toml"))):
        line = read_refusal(await run_hubbub(other, *command.split(), *options))
        assert f"no hub is in {other}" in line and "--data" in line and not [*other.iterdir()]
    (other / "hubbub.toml").touch()
    await succeed(other, *command.split())


async def test_only_the_first_commands_make_a_data_folder(tmp_path: Path) -> None:
    """A wrong --data is found out."""
    for arguments in ("key list", "principal list", "key revoke x", "principal remove x"):
        assert "--data" in read_refusal(await run_hubbub(tmp_path, *arguments.split(), "--data", "typo"))
    assert not (tmp_path / "typo").exists()
    output = await run_hubbub(tmp_path, "invite", "ann", "--data", "new")
    assert output.code == 0 and f"no data folder {tmp_path}/new yet" in output.err
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
