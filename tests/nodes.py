"""Runs a script of tests/node/ with the packages that its package.json names, installed once into build/node."""

import asyncio
import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes import PATIENCE

SCRIPTS = Path(__file__).parent / "node"
PLACE = Path(__file__).parent.parent / "build" / "node"
needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js here: install node and npm")


async def run_node(script: str, *arguments: str) -> str:
    """Return what the script printed; fails with what it said where it fails."""
    await asyncio.to_thread(node_packages)
    process = await asyncio.create_subprocess_exec(
        "node", str(PLACE / script), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return out.decode()


def node_packages() -> None:
    """Copy the scripts to build/node, and install what they need there, once."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of pytest may be here at once
        shutil.copytree(SCRIPTS, PLACE, dirs_exist_ok=True)
        done, wanted = PLACE / "node_modules" / ".installed", (SCRIPTS / "package.json").read_text()
        if not done.is_file() or done.read_text() != wanted:
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=PLACE, check=True, timeout=90)
            done.write_text(wanted)
