"""Programs that use a client of another project, each with its packages in an environment of its own.

A program is a file of Python or JavaScript in tests/clients/programs/. Its header names its packages with exact
versions, in the form of inline script metadata (PEP 723), also in JavaScript. There the table `overrides` has packages
of packages that are installed in another version, or not: `file:./nothing` is an empty package. The packages are
installed once into build/clients/. A program is called with a URL and the name of one of its functions, and prints
the result as JSON.
"""

import asyncio
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.documents import ROOT

PROGRAMS = ROOT / "tests" / "clients" / "programs"
ENVIRONMENTS = ROOT / "build" / "clients"
INSTALL_SECONDS, RUN_SECONDS = 500, 100


@attrs.frozen
class ForeignClient:
    """One program. Its id is the stem of its file. *environments* has the environments of all programs."""

    file: Path
    environments: Path = ENVIRONMENTS

    @classmethod
    def find(cls, kind: str, name: str) -> "ForeignClient":
        """Return the client with an id, of the folder *kind*."""
        (file,) = (PROGRAMS / kind).glob(f"{name}.*")
        return cls(file)

    @property
    def id(self) -> str:
        return self.file.stem

    @property
    def is_python(self) -> bool:
        return self.file.suffix == ".py"

    @property
    def folder(self) -> Path:
        """The environment of this client."""
        return self.environments / self.id

    def list_packages(self) -> list[str]:
        """Return the packages with their versions."""
        packages: list[str] = self._read_header()["dependencies"]
        return packages

    def _read_header(self) -> dict[str, Any]:
        mark = "#" if self.is_python else "//"
        block = re.search(rf"^{mark} /// script\n(.*?)^{mark} ///$", self.file.read_text(), re.MULTILINE | re.DOTALL)
        assert block is not None, f"{self.file} has no header with its packages"
        text = re.sub(rf"^{mark} ?", "", block[1], flags=re.MULTILINE)
        return tomllib.loads(text)

    def list_functions(self) -> list[str]:
        """Return the names of the functions at the top level of the program."""
        return re.findall(r"^(?:async )?(?:def|function) (\w+)", self.file.read_text(), re.MULTILINE)

    async def run(self, function: str, url: str, *arguments: str) -> Any:
        """Call a function of the program, and return its result. If the program fails, fail with its output."""
        command = await asyncio.to_thread(self._install)
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("HUBBUB_", "OPENAI_"))}
        environ |= {"HOME": str(self.folder / "home"), "NO_COLOR": "1"}
        process = await asyncio.create_subprocess_exec(
            *(command, self._copy_program(), url, function, *arguments),
            cwd=self.folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, errors = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, errors.decode()[-4000:]
        return json.loads(out.decode().splitlines()[-1])

    def _copy_program(self) -> str:
        """Copy the program into its environment, under a name that is no package's, and return its path."""
        suffix = self.file.suffix
        for file in PROGRAMS.glob(f"*{suffix}"):  # what programs share
            shutil.copy(file, self.folder)
        return str(shutil.copy(self.file, self.folder / f"program{suffix}"))

    def _install(self) -> str:
        """Install the packages if necessary, and return the interpreter of the program."""
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several pytest workers can run this at the same time
            return self._install_python() if self.is_python else self._install_javascript()

    def _install_python(self) -> str:
        environment, packages = self.folder / "venv", self.list_packages()
        python, content = environment / "bin" / "python", "\n".join([sys.version, *packages])
        if not _is_complete(environment, content):
            _call(sys.executable, "-m", "venv", str(environment))
            _call(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
            _stamp(environment).write_text(content)
        return str(python)

    def _install_javascript(self) -> str:
        if shutil.which("npm") is None:
            pytest.skip("no Node.js here: install node and npm")
        environment, nothing = self.folder / "node_modules", self.folder / "nothing"
        versions = dict(package.rsplit("@", 1) for package in self.list_packages())
        overrides = self._read_header().get("overrides", {})
        manifest = {"private": True, "type": "module", "dependencies": versions, "overrides": overrides}
        content = json.dumps(manifest, indent=2)
        if not _is_complete(environment, content):
            (self.folder / "package.json").write_text(content)
            nothing.mkdir(exist_ok=True)
            (nothing / "package.json").write_text('{"version": "99.0.0"}')
            (nothing / "index.js").touch()
            _call(
                "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", folder=self.folder
            )
            _stamp(environment).write_text(content)
        newer_node = environment / ".bin" / "node"  # of the package `node`
        return str(newer_node) if newer_node.exists() else "node"


def _stamp(environment: Path) -> Path:
    """Return the file that a complete environment has."""
    return environment / "installed.txt"


def _is_complete(environment: Path, content: str) -> bool:
    """Return whether all packages of *content* are installed. If not, delete the environment."""
    stamp = _stamp(environment)
    if stamp.is_file() and stamp.read_text() == content:
        return True
    stamp.unlink(missing_ok=True)  # first: the deletion below may be interrupted
    shutil.rmtree(environment, ignore_errors=True)
    return False


def _call(*command: str, folder: Path | None = None) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]


def parametrize(kind: str, function: str) -> pytest.MarkDecorator:
    """Return a mark that runs a test with each client of *kind* (a folder of programs) that has *function*."""
    programs = [ForeignClient(file) for file in sorted((PROGRAMS / kind).iterdir()) if file.suffix in (".py", ".mjs")]
    clients = [client for client in programs if function in client.list_functions()]
    assert clients, f"no program in {kind} has the function {function}"
    return pytest.mark.parametrize("client", clients, ids=lambda client: client.id)
