"""The command line as a process: its output and its exit code."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.documents import ROOT
from support.process import BANNER_END

import hub

COMMAND = (sys.executable, "-m", "hub")
GOOD = '''"""Says it again."""


def answer(message):
    yield message
'''


def environment(**more: str) -> dict[str, str]:
    """Return the environment of this process without HUBBUB_* variables, with enough columns for a table."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HUBBUB_")}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more


def hubbub(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in *folder*, and wait until it ends."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=60
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Assert that a refused command printed only one error line; return the line."""
    assert done.returncode == 2 and done.stdout == "", done
    assert done.stderr.startswith("hubbub: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one agent that works."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "parrot.py").write_text(GOOD, encoding="utf-8")
    return tmp_path


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a hub; yield the process and the lines of its banner."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if BANNER_END.search(line):
                break
        else:
            pytest.fail("the hub ended: " + "".join(lines))
        yield process, lines
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_without_a_command_the_help_is_shown(tmp_path: Path) -> None:
    """The name alone lists the commands, and is no error."""
    done = hubbub(tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "serve" in done.stdout and "agents" in done.stdout and "--version" in done.stdout


def test_the_version_is_shown(tmp_path: Path) -> None:
    """It is the version of the package, whether the package is installed or not."""
    done = hubbub(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"hubbub {hub.__version__}\n")


@pytest.mark.parametrize("library", ["click", "prompt_toolkit", "rich"])
def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path, library: str) -> None:
    """The core package does not require the command line. The command then names the extra, without a traceback."""
    program = f"import sys; sys.modules[{library!r}] = None; from hub.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"hubbub: the command line needs {library}: run {sys.executable} -m pip install ")
    assert done.stderr.count("\n") == 1


def test_serve_announces_itself_answers_and_ends_with_ctrl_c(place: Path) -> None:
    """The printed address works, and Ctrl-C ends the hub with exit code 0."""
    with serving(place) as (process, lines):
        found = re.search(r"http://localhost:(\d+)", "".join(lines))
        assert found and found[1] != "0"
        with urlopen(f"http://localhost:{found[1]}/health", timeout=30) as response:
            assert response.read() == b"OK"
        assert "parrot" in "".join(lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def test_serve_uses_its_flags(place: Path) -> None:
    """The flags set the folders and the log."""
    (place / "agents").rename(place / "birds")
    flags = ("--host", "127.0.0.1", "--agents", "birds", "--data", "kept", "--log", "sqlite:///own.db", "--reload")
    with serving(place, *flags) as (process, lines):
        banner = "".join(lines)
        assert "http://127.0.0.1:" in banner and "parrot" in banner and str(place / "kept") in banner
        assert (place / "own.db").exists() and not (place / "kept" / "hub.db").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_serve_refuses_a_port_in_use(place: Path) -> None:
    """One line names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refusal(hubbub(place, "serve", "--host", "127.0.0.1", "--port", port))
    assert port in line and "Errno" not in line and "--port" in line and "--data" in line


def test_serve_refuses_a_log_that_cannot_be_used(place: Path) -> None:
    """One line names the log, without the password in its address."""
    line = refusal(hubbub(place, "serve", "--port", "0", "--log", "nosuch://name:secret@log/x"))
    assert "nosuch://log/x" in line and "secret" not in line


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--data", "file"), "file"),
        (("--data", "file/data"), "file/data"),
        (("--data", "full"), "full/files"),
        (("--log", "sqlite:///file/hub.db"), "file"),
    ],
)
def test_serve_refuses_a_folder_that_is_a_file(place: Path, flags: tuple[str, ...], named: str) -> None:
    """One line names the folder, says that a file has its name, and what to do."""
    (place / "file").touch()
    (place / "full").mkdir()
    (place / "full" / "files").touch()
    line = refusal(hubbub(place, "serve", "--port", "0", *flags))
    assert re.search(f"{named} cannot be made, because a file is in its place: .*--data", line)


@pytest.mark.parametrize("command", ["serve", "agents"])
def test_a_missing_folder_of_agents_is_refused(tmp_path: Path, command: str) -> None:
    """One line names the missing folder."""
    assert "nowhere" in refusal(hubbub(tmp_path, command, "--agents", "nowhere", HUBBUB_PORT="0"))


def test_serve_refuses_a_public_address_without_sign_in(place: Path) -> None:
    """Other machines could reach such an address."""
    assert "sign_in = true" in refusal(hubbub(place, "serve", "--port", "0", "--host", "0.0.0.0"))


@pytest.mark.parametrize("command", ["serve", "agents", "check"])
def test_wrong_settings_are_refused_in_one_line(place: Path, command: str) -> None:
    """Settings come from the file in the current folder and from the environment."""
    assert "HUBBUB_PROT" in refusal(hubbub(place, command, HUBBUB_PROT="1"))
    (place / "hubbub.toml").write_text("[hubbub]\nprot = 1\n", encoding="utf-8")
    assert "'prot'" in refusal(hubbub(place, command))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"A=\xff\n", ".env cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (b"A=x\0\n", ".env cannot be read: embedded null byte"),
        (b"HUBBUB_PORT=x\n", "HUBBUB_PORT in .env must be a whole number"),
    ],
)
def test_a_wrong_env_file_is_refused_in_one_line(place: Path, data: bytes, line: str) -> None:
    """The error has the name of the file."""
    (place / ".env").write_bytes(data)
    assert refusal(hubbub(place, "agents")).startswith(f"hubbub: {line}")


def test_a_line_of_the_env_file_that_is_no_assignment_is_ignored(place: Path) -> None:
    """With a warning that has the name of the file."""
    (place / ".env").write_text("A=1\nnot 'an assignment\n")
    done = hubbub(place, "agents")
    assert done.returncode == 0 and done.stderr.startswith(".env: ") and "line 2" in done.stderr


def test_a_wrong_flag_is_refused_in_one_line(place: Path) -> None:
    """The line names the flag of the invalid value."""
    assert "--port" in refusal(hubbub(place, "serve", "--port", "http"))


def test_agents_lists_all_agents_and_the_reasons_of_broken_ones(place: Path) -> None:
    """Each agent has a row. A broken agent has its reason there, and the exit code is then 1."""
    assert hubbub(place, "agents").returncode == 0
    (place / "agents" / "ill.py").write_text("raise RuntimeError('no [bold]wings[/] today')\n", encoding="utf-8")
    done = hubbub(place, "agents")
    assert done.returncode == 1, done
    rows = {
        name: line for line in done.stdout.splitlines() for name in ("parrot", "ill") if line.startswith(f"{name} ")
    }
    assert " ok " in rows["parrot"] and "Says it again." in rows["parrot"]
    assert "broken" in rows["ill"] and "no [bold]wings[/] today" in rows["ill"]


def test_check_lists_the_damage_even_while_a_hub_runs(place: Path) -> None:
    """Without damage the exit code is 0. Else each damage has a line, and the code is 1. It waits for no lock."""
    assert "there is no log" in refusal(hubbub(place, "check")) and not (place / "data").exists()
    with serving(place) as (process, _):
        done = hubbub(place, "check")
        assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is damaged\n", "")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    with closing(sqlite3.connect(place / "data" / "hub.db")) as db, db:
        db.execute("INSERT INTO sessions (id, epoch, floor, created) VALUES ('s1', 'e', 0, 0)")
        db.execute("INSERT INTO strips (session, seq, upto, ts, size, events) VALUES (1, 3, 5, 0, 0, '[[\x1b')")
        db.execute("INSERT INTO files VALUES ('f_1', 's1', 'x.txt', 'text/plain', 5, 'abc', 0)")
    done = hubbub(place, "check", "--data", "data")
    found = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "") and "\x1b" not in done.stdout
    assert found[0] == "events: session s1, seq 1 to 2: they are missing"
    assert found[1].startswith("strips row 1: session s1, seq 3 to 5: ")
    assert found[2:] == ["file f_1: session s1: the blob abc is missing"]


def test_agents_reports_an_empty_folder(tmp_path: Path) -> None:
    """An empty table would look like a failure."""
    (tmp_path / "birds").mkdir()
    done = hubbub(tmp_path, "agents", "--agents", "birds")
    assert (done.returncode, done.stdout) == (0, "no agents here yet\n")


def test_the_banner_of_serve_matches_the_docs(place: Path) -> None:
    """The banner of docs/start.md, but for its port, its agents and its folder."""
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    shown = page[page.index("Hubbub listens on") : page.index("Press Ctrl-C to stop.")].splitlines()
    with serving(place) as (_, lines):
        banner = [re.sub(r":\d+", ":9527", line.rstrip()) for line in lines]
    assert banner[:3] == shown[:3]
    assert banner[3] == "  agent parrot        Says it again." and shown[3].startswith("  agent echo          ")
    assert banner[4].startswith("Data folder         /") and shown[6].startswith("Data folder         /")


def test_agents_starts_no_model(place: Path) -> None:
    """An agent with a local model is listed, but its model is not loaded."""
    (place / "agents" / "main.toml").write_text('adapter = "openai_chat"\ndescription = "A model."\n')
    (place / "agents" / "off.toml").write_text('adapter = "openai_chat"\napi_key_env = "NO_SUCH_KEY"\n')
    done = hubbub(place, "agents")
    rows = {name: line for line in done.stdout.splitlines() for name in ("main", "off") if line.startswith(f"{name} ")}
    assert " ok " in rows["main"] and "A model." in rows["main"] and "no model" not in done.stdout
    assert " broken " in rows["off"] and "NO_SUCH_KEY" in rows["off"]
