"""Runs slowhttptest, which attacks a server of HTTP with slow clients."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest
from support.proxy_servers import INSTALL_HINT
from support.waiting import PATIENCE

CONNECTIONS = 200
ATTACK_SECONDS = 30  # at most; an attack ends when the server has closed all its connections
ALL_CLOSED = "No open connections left"
# New connections in the first 4 seconds; each sends or reads a few bytes every second.
OPTIONS = ("-c", str(CONNECTIONS), "-r", "50", "-i", "1", "-l", str(ATTACK_SECONDS), "-p", "5")

COLORS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

needs_slowhttptest = pytest.mark.skipif(
    shutil.which("slowhttptest") is None, reason=f"no slowhttptest here: {INSTALL_HINT}"
)


async def attack(folder: Path, url: str, *options: str) -> str:
    """Run an attack to its end, and return why it ended."""
    process = await asyncio.create_subprocess_exec(
        *("slowhttptest", *OPTIONS, "-u", url, *options), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(ATTACK_SECONDS + PATIENCE):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = COLORS.sub("", output.decode(errors="replace"))
    status = re.search(r"Exit status:\s*(.+)", text)
    assert process.returncode == 0 and status is not None, text
    return status[1]
