"""The wheel of this source tree, and a hub that runs from it: as another account, in a tree that is read-only."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import attrs
import pytest
from support.documents import ROOT
from support.process import BANNER_END

PACKAGES = ("hub", "hubbub_agents")
NOBODY: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
COMMAND_SECONDS = 100


def list_sources() -> set[str]:
    """Return the paths of all files that belong into the wheel."""
    files = (file for name in PACKAGES for file in (ROOT / name).rglob("*") if file.is_file())
    return {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}


def build_wheel(folder: Path) -> Path:
    """Build the wheel in *folder*, without an index of packages; skip the test if setuptools is missing or old.

    Builds a copy of the sources: setuptools adds files of an earlier build to a wheel, and writes into the sources.
    """
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    version = importlib.metadata.version("setuptools") if importlib.util.find_spec("setuptools") else "0"
    if int(version.partition(".")[0]) < 77:
        pytest.skip("no setuptools 77 here to build the wheel: make test installs it")
    flags = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    _python("-m", "pip", "wheel", *flags, str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _python(*arguments: str) -> str:
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": COMMAND_SECONDS}
    result = subprocess.run([sys.executable, *arguments], **options)
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


@attrs.frozen
class Installation:
    """A read-only *tree* with Hubbub, and a *folder* in which commands run. *command* is the command `hubbub`.

    *account* has the options of subprocess that run a command as another account. They are empty if the account of the
    tests cannot do that, or if the other account cannot reach Python.
    """

    tree: Path
    folder: Path
    command: tuple[str, ...]
    environ: dict[str, str]
    account: dict[str, Any]

    def run(self, *arguments: str, message: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of hubbub to its end, with *message* as its standard input."""
        return subprocess.run([*self.command, *arguments], **self._options, input=message, timeout=COMMAND_SECONDS)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Run the hub; yield its address."""
        options = self._options | {"stderr": subprocess.STDOUT, "stdout": subprocess.PIPE}
        del options["capture_output"]
        with subprocess.Popen([*self.command, "serve", "--port", "0"], **options) as process:
            try:
                assert process.stdout is not None
                lines = []
                for line in process.stdout:
                    lines.append(line)
                    if BANNER_END.search(line):
                        break
                match = re.search(r"listens on\s+(http://localhost:\d+)", "".join(lines))
                assert match, lines
                yield match[1]
            finally:
                process.terminate()
                process.communicate(timeout=COMMAND_SECONDS)
        assert process.returncode == 0

    @property
    def _options(self) -> dict[str, Any]:
        return {"cwd": self.folder, "env": self.environ, "capture_output": True, "text": True, **self.account}


def lock_tree(tree: Path) -> dict[str, tuple[int, int]]:
    """Make a tree read-only. Return the size and the time of each file, to compare them later."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    return list_tree(tree)


def list_tree(tree: Path) -> dict[str, tuple[int, int]]:
    states = {str(path): path.lstat() for path in tree.rglob("*")}
    return {path: (state.st_size, state.st_mtime_ns) for path, state in states.items()}


def find_account(python: str, folder: Path) -> dict[str, Any]:
    """Return NOBODY if this account can run *python* as that account in *folder*, else an empty dictionary."""
    if os.geteuid() != 0:
        return {}
    try:
        subprocess.run([python, "-c", ""], cwd=folder, check=True, timeout=COMMAND_SECONDS, **NOBODY)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return NOBODY


def fetch(url: str) -> bytes:
    with urlopen(url, timeout=COMMAND_SECONDS) as response:
        data: bytes = response.read()
    return data
