"""Run a script of tests/support/javascript/ with the packages of its package.json, installed once into build/node.

`make test` installs them before the tests, by `python -m support.node`: npm may need more time than a test has.
The JavaScript client lies beside the scripts, as the single file that the hub serves; its modules lie in client_js/.
"""

import asyncio
import fcntl
import shutil
import subprocess
from pathlib import Path
from secrets import token_hex

import pytest
from support.documents import ROOT
from support.waiting import PATIENCE

from hub.web.pages.javascript_client import CLIENT_FILES, CLIENT_FOLDER, PACKAGE_MODULES

SCRIPTS = Path(__file__).parent / "javascript"
CONSOLE = ROOT / "hub" / "console"
NODE_FOLDER = ROOT / "build" / "node"
PROGRAM_SECONDS = 3 * PATIENCE  # a program starts Node.js, and has waits of its own
needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js here: install node and npm")


async def run_node(script: str, *arguments: str) -> str:
    """Return the standard output of a script; if the script fails, fail with its standard error."""
    folder = await install_packages()
    process = await asyncio.create_subprocess_exec(
        "node", str(folder / script), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PROGRAM_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def run_code(code: str, *arguments: str) -> str:
    """Run code as a script. Its file has a name of its own: another pytest worker may run the same code now."""
    file = await install_packages() / f"program-{token_hex(8)}.mjs"
    file.write_text(code)
    try:
        return await run_node(file.name, *arguments)
    finally:
        file.unlink()


async def install_packages() -> Path:
    """Install the packages if necessary, and return the folder that contains them."""
    await asyncio.to_thread(_install)
    return NODE_FOLDER


def _install(seconds: float | None = 90) -> None:
    """Install the packages if necessary. npm gets *seconds*: by default, less than the time limit of a test."""
    NODE_FOLDER.mkdir(parents=True, exist_ok=True)
    with (NODE_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several pytest workers can run this at the same time
        shutil.copytree(SCRIPTS, NODE_FOLDER, dirs_exist_ok=True, copy_function=_renew)
        shutil.copytree(CLIENT_FOLDER, NODE_FOLDER / "client_js", dirs_exist_ok=True, copy_function=_renew)
        files = {path[1:]: body for path, (_, body) in CLIENT_FILES.items()} | PACKAGE_MODULES
        for name, body in files.items():
            if not (NODE_FOLDER / name).is_file() or (NODE_FOLDER / name).read_bytes() != body:
                (NODE_FOLDER / name).write_bytes(body)
        stamp, packages = NODE_FOLDER / "node_modules" / ".installed", (SCRIPTS / "package.json").read_text()
        if not stamp.is_file() or stamp.read_text() != packages:
            install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(install, cwd=NODE_FOLDER, check=True, timeout=seconds)
            stamp.write_text(packages)


def _renew(source: str, target: str) -> None:
    """Copy a file only if its content changed: a program of another pytest worker may be reading an unchanged one."""
    if not Path(target).is_file() or Path(source).read_bytes() != Path(target).read_bytes():
        shutil.copy(source, target)


if __name__ == "__main__" and shutil.which("npm") is not None:
    _install(None)
