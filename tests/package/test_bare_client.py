"""The commands of docs/clients-python.md install the Python client alone, from a hub, into a bare environment."""

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import DOCS, of_kind
from support.hub import Hub

from hub.web.pages.python_client import CLIENT_PACKAGES, WHEEL_NAME

INSTALL_SECONDS = 500
PROGRAM = """
import asyncio, sys
from hub.client import connect

async def main():
    async with connect(sys.argv[1]) as client:
        session = await client.session("s1", agent="echo")
        print(await session.ask("From a bare environment"))

asyncio.run(main())
"""


@pytest.mark.timeout(2 * INSTALL_SECONDS)
async def test_the_commands_of_the_page_work(hub: Hub, tmp_path: Path) -> None:
    """pip gets the packages that the client needs from its index. No package of the server comes with them."""
    hub.agent("echo.py", "def echo(message): return message")
    await hub.start()
    (block,) = of_kind(DOCS["clients-python"], "sh", "client")
    make, install = map(shlex.split, block.lines)
    install[-1] = re.sub(r"hubbub_client-.*\.whl", WHEEL_NAME, install[-1].replace("http://localhost:9527", hub.url))
    python = str(Path(sys.base_prefix) / "bin" / "python3")
    for command in ([python, *make[1:]], install, [".venv/bin/pip", "check"]):
        await run(tmp_path, *command)
    output = await run(tmp_path, ".venv/bin/python", "-c", PROGRAM, f"ws://127.0.0.1:{hub.port}/api/v1/ws")
    assert output == "From a bare environment\n"
    listing = await run(tmp_path, ".venv/bin/pip", "list", "--format", "freeze")
    packages = {line.split("==")[0].lower() for line in listing.splitlines()}
    assert {"hubbub-client", *CLIENT_PACKAGES} <= packages
    assert not {"hubbub", "aiohttp-cors", "structlog", "uvloop", "prometheus-client"} & packages


async def run(folder: Path, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    async with asyncio.timeout(INSTALL_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
