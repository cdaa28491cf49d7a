"""Run a script of tests/support/javascript/ with the packages of its package.json, installed once into build/node.

The JavaScript client is beside the scripts, in one file, as the hub serves it.
"""

import asyncio
import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest
from support.documents import ROOT
from support.waiting import PATIENCE

from hub.web.pages.javascript_client import CLIENT_FILES

SCRIPTS = Path(__file__).parent / "javascript"
CONSOLE = ROOT / "hub" / "console"
PLACE = ROOT / "build" / "node"
needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js here: install node and npm")


async def run_node(script: str, *arguments: str) -> str:
    """Return what the script printed; fails with what it said where it fails."""
    place = await installed()
    process = await asyncio.create_subprocess_exec(
        "node", str(place / script), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def installed() -> Path:
    """Return the folder that has the packages."""
    await asyncio.to_thread(_install)
    return PLACE


def _install() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of pytest may be here at once
        shutil.copytree(SCRIPTS, PLACE, dirs_exist_ok=True, copy_function=_renew)
        for path, (_, body) in CLIENT_FILES.items():
            if not (PLACE / path[1:]).is_file() or (PLACE / path[1:]).read_bytes() != body:
                (PLACE / path[1:]).write_bytes(body)
        done, wanted = PLACE / "node_modules" / ".installed", (SCRIPTS / "package.json").read_text()
        if not done.is_file() or done.read_text() != wanted:
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=PLACE, check=True, timeout=90)
            done.write_text(wanted)


def _renew(source: str, target: str) -> None:
    """Copy what has changed: what has not may be read by another worker's program just now."""
    if not Path(target).is_file() or Path(source).read_bytes() != Path(target).read_bytes():
        shutil.copy(source, target)
