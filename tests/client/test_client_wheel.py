"""The Python client as a wheel, which every hub serves: `hub.client`, and nothing of the server.

tests/package/test_bare_client.py installs it from an index into a bare environment.
"""

import ast
import asyncio
import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import aiohttp
import pytest
from support.documents import DOCS, ROOT
from support.hub import Hub
from support.waiting import PATIENCE

import hub as hubbub
from hub.web.pages.python_client import CLIENT_PACKAGES, WHEEL_NAME, list_modules, make_wheel

PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import hub
from hub.client import connect
from hub.messages import Chunk, StoredFile

async def main():
    async with connect(sys.argv[2]) as client:
        session = await client.session("s1", agent="echo")
        print(await session.ask("From a wheel"), (await session.upload(b"x")).size)

asyncio.run(main())
servers = {"aiohttp_cors", "structlog", "uvloop", "prometheus_client"} & sys.modules.keys()
print(hub.__file__.startswith(sys.argv[1]), sorted(servers))
"""


@pytest.fixture
def wheel() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(make_wheel()))


async def test_the_hub_serves_the_wheel(hub: Hub) -> None:
    """Nobody needs to sign in to get it. The error for another version names the right file."""
    hub.options["sign_in"] = True
    await hub.start()
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}/wheels/{WHEEL_NAME}") as response:
            assert (response.status, await response.read()) == (200, make_wheel())
        async with http.get(f"{hub.url}/wheels/hubbub_client-9-py3-none-any.whl") as response:
            assert response.status == 404 and WHEEL_NAME in await response.text()


def test_the_wheel_needs_few_packages() -> None:
    """Its modules import the standard library, these packages, and one another."""
    names: set[str] = set()
    for path in list_modules():
        for node in ast.walk(ast.parse((ROOT / path).read_bytes())):
            if isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
    assert names - set(sys.stdlib_module_names) == {"hub", *CLIENT_PACKAGES}


def test_the_metadata_fits_the_files(wheel: zipfile.ZipFile) -> None:
    """pip checks each file against RECORD, and the version against the name of the wheel."""
    info = f"hubbub_client-{hubbub.__version__}.dist-info"
    record = wheel.read(f"{info}/RECORD").decode().splitlines()
    assert len(record) == len(wheel.namelist()) and record.pop() == f"{info}/RECORD,,"
    for line in record:
        name, digest, size = line.split(",")
        data = wheel.read(name)
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert int(size) == len(data)
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert f"\nName: hubbub-client\nVersion: {hubbub.__version__}\n" in metadata
    assert all(f"\nRequires-Dist: {name}" in metadata for name in CLIENT_PACKAGES)
    assert "hub/py.typed" in wheel.namelist() and not any("web" in name for name in wheel.namelist())


def test_the_page_has_the_name_of_the_last_release() -> None:
    assert ".dev" in hubbub.__version__ or WHEEL_NAME in DOCS["clients-python"].read_text(encoding="utf-8")


async def test_a_program_chats_with_the_modules_of_the_wheel(hub: Hub, tmp_path: Path) -> None:
    """They import nothing that only the server needs."""
    hub.agent("echo.py", "def echo(message): return message")
    await hub.start()
    path = tmp_path / WHEEL_NAME
    path.write_bytes(make_wheel())
    url = f"ws://127.0.0.1:{hub.port}/api/v1/ws"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", PROGRAM, str(path), url), stdout=subprocess.PIPE, env={"PYTHONPATH": ""}
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    assert output.decode() == "From a wheel 1\nTrue []\n"
