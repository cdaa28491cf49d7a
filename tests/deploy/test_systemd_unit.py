"""The units of deploy/systemd/ fit the hub, and the lines of docs/operations.md that install them."""

import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from support.documents import DOCS, ROOT, of_kind

from hub.cli.main import cli
from hub.limits import Limits
from hub.setting_sources import ENV_FILE, SETTINGS_FILE, load_settings
from hub.settings import Settings
from hub.web.ending import EXIT_SECONDS
from hub.web.listening import LISTEN_BACKLOG

FOLDER = ROOT / "deploy" / "systemd"
MAX_EXPOSURE = 2.0  # of 10, as `systemd-analyze security` counts

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd here: apt-get install systemd"
)


def read_unit(name: str) -> dict[str, list[str]]:
    """Return the values of each key of a unit."""
    values = defaultdict(list)
    for line in (FOLDER / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values[key].append(value)
    return values


SERVICE, SOCKET = read_unit("hubbub.service"), read_unit("hubbub.socket")
(COMMAND,) = SERVICE["ExecStart"]
(HOME,) = SERVICE["WorkingDirectory"]
((*LINES,),) = (block.lines for block in of_kind(DOCS["operations"], "sh", "server"))


def analyze(folder: Path, *arguments: str) -> None:
    """Run systemd-analyze on the units. It wants the program of the service to exist."""
    for name in ("hubbub.service", "hubbub.socket"):
        text = (FOLDER / name).read_text()
        (folder / name).write_text(text.replace(COMMAND.split()[0], sys.executable))
    result = subprocess.run(["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "verify" not in arguments or result.stderr == ""


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Without a warning about an unknown key or value."""
    analyze(tmp_path, "verify", "./hubbub.service", "./hubbub.socket")


@needs_systemd
def test_the_service_has_few_rights(tmp_path: Path) -> None:
    flags = ("--offline=true", "--no-pager", f"--threshold={MAX_EXPOSURE * 10:.0f}")
    analyze(tmp_path, "security", *flags, "./hubbub.service")


def test_the_service_runs_a_command_of_the_hub() -> None:
    """It reports that it is ready. An error of the settings or the log has the exit code that ends the restarts."""
    program, name = COMMAND.split()
    assert Path(program).name == "hubbub" and name in cli.commands
    assert SERVICE["Type"] == ["notify"] and SERVICE["RestartPreventExitStatus"] == ["2"]


def test_a_reload_of_the_service_reloads_the_hub() -> None:
    """tests/web/test_reloading.py shows what the signal does. Before it, wrong settings fail the reload."""
    assert SERVICE["ExecReload"] == [f"{COMMAND.split()[0]} settings --check", "/bin/kill -HUP $MAINPID"]


def test_the_service_has_the_time_that_its_stop_takes() -> None:
    """The first signal goes to the hub only: its children work for answers that may still end."""
    assert int(SERVICE["TimeoutStopSec"][0]) > Limits().drain_seconds + EXIT_SECONDS
    assert SERVICE["KillMode"] == ["mixed"]


def test_the_service_may_open_a_descriptor_for_each_connection() -> None:
    assert int(SERVICE["LimitNOFILE"][0]) > 2 * Limits().node_connections


def test_the_address_is_that_of_the_settings() -> None:
    """So the commands of the terminal find it, and a proxy."""
    assert SOCKET["ListenStream"] == [f"127.0.0.1:{Settings().port}"]
    assert SOCKET["Backlog"] == [str(LISTEN_BACKLOG)]


def test_the_service_writes_only_into_its_folder() -> None:
    """And not to the settings and the agents."""
    assert SERVICE["StateDirectory"] == [Path(HOME).name] and SERVICE["ProtectSystem"] == ["strict"]
    names = [path.removeprefix(f"-{HOME}/") for path in SERVICE["ReadOnlyPaths"][0].split()]
    assert names == [str(Settings().agents), SETTINGS_FILE, ENV_FILE]


# --- the ten lines ----------------------------------------------------------------------------------------------------


def test_there_are_ten_lines() -> None:
    assert len(LINES) == 10


def test_the_lines_make_what_the_units_need() -> None:
    """The Python environment, the account with its folder, and both units."""
    text = "\n".join(LINES)
    assert f"/usr/bin/python3 -m venv {Path(COMMAND.split()[0]).parents[1]}\n" in text
    assert f"useradd --system --create-home --home-dir {HOME} {SERVICE['User'][0]}\n" in text
    files = re.findall(r"deploy/\S+", text)
    assert files == ["deploy/systemd/hubbub.service", "deploy/systemd/hubbub.socket", "deploy/caddy/Caddyfile"]
    assert all((ROOT / file).is_file() for file in files)
    (extras,) = re.findall(r"\.\[([a-z,]+)\]", text)
    assert all(f"\n{extra} =\n" in (ROOT / "setup.cfg").read_text() for extra in extras.split(","))
    commands = [words.split()[1] for line in re.findall("--command '(.*?)'", text) for words in line.split(" && ")]
    assert commands == ["init", "model", "invite"] and cli.commands.keys() >= {*commands}


def test_the_settings_of_the_lines_are_accepted(tmp_path: Path) -> None:
    """They require sign-in, and trust the proxy on this machine."""
    parts = [line.replace(f"{HOME}/{SETTINGS_FILE}", SETTINGS_FILE) for line in LINES if SETTINGS_FILE in line]
    assert all(shlex.split(part)[0] == "printf" for part in parts)
    subprocess.run("\n".join(parts), shell=True, cwd=tmp_path, check=True, timeout=60)
    settings = load_settings({}, {}, tmp_path)
    assert settings.is_sign_in_on and settings.trusted_proxies == ("127.0.0.1",)
    assert settings.public_url == "https://hub.example.com"
    caddy = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text()
    assert "\nhub.example.com {\n" in caddy and f"reverse_proxy {SOCKET['ListenStream'][0]} " in caddy
