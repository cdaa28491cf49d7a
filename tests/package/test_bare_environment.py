"""The commands of docs/start.md install the wheel into a bare environment of Python, which then is read-only."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documents import DOCS, of_kind
from support.wheel import Installation, build_wheel, fetch, find_account, list_tree, lock_tree

INSTALL_SECONDS = 500


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other accounts can open; those of pytest are private."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.timeout(2 * INSTALL_SECONDS)
def test_the_commands_of_the_page_work(place: Path, tmp_path: Path) -> None:
    """The account that installs the wheel owns the environment, and another account fetches the model and runs the hub.

    pip gets the packages from its index. The environment does not change while the hub runs.
    """
    (block,) = of_kind(DOCS["start"], "sh", "wheel")
    make, install, *commands = map(shlex.split, block.lines)
    assert [command[1] for command in commands] == ["init", "model", "serve"]
    wheel = build_wheel(tmp_path)
    install[-1] = re.sub(r"hubbub-.*\.whl", wheel.name, install[-1])  # the page has the last release
    project = place / "project"
    project.mkdir()
    shutil.copy(wheel, project)
    python = Path(sys.base_prefix) / "bin" / "python3"
    for command in ([str(python), *make[1:]], install):
        subprocess.run(command, cwd=project, check=True, timeout=INSTALL_SECONDS)
    project.chmod(0o777)
    before = lock_tree(project / ".venv")
    environ = {"PATH": os.defpath, "HUBBUB_CACHE": "cache"} | {
        name: value for name, value in os.environ.items() if name.startswith("PIP_")
    }
    account = find_account(str(project / ".venv/bin/python"), project)
    installation = Installation(project / ".venv", project, (str(project / ".venv/bin/hubbub"),), environ, account)
    for command in commands[:2]:
        result = installation.run(*command[1:])
        assert result.returncode == 0, result.stderr
    with installation.serve() as url:
        assert b"<!doctype html>" in fetch(url).lower() and fetch(url + "/client.js") and fetch(url + "/docs")
        result = installation.run("chat", "main", "--url", url, message="Say hello.")
        assert result.returncode == 0 and len(result.stdout) > 5 and "No model" not in result.stdout, result
    assert list_tree(project / ".venv") == before
