"""The JavaScript client as a package, which npm installs from the hub."""

import asyncio
import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

import aiohttp
from support.hub import Hub
from support.node import install_packages, needs_node
from support.waiting import PATIENCE

import hub as hubbub
from hub.web.pages.client_package import NPM_TIME, PACKAGE_NAME, pack_client
from hub.web.pages.javascript_client import CLIENT_FILES, CLIENT_SCRIPT, CLIENT_TYPES, PACKAGE_MODULES

PACKAGE_FILES = {"client.js": CLIENT_SCRIPT, "client.d.ts": CLIENT_TYPES, **PACKAGE_MODULES}

# The Node.js of the tests may have no WebSocket of its own.
PROGRAM = """
import WebSocket from 'WS'
import { connect, HubError } from 'hubbub-client'

const hub = connect(process.argv[2], { WebSocket })
console.log(await hub.session('s1', { agent: 'echo' }).ask('From a package'), HubError.name)
hub.close()
"""


async def download(hub: Hub) -> bytes:
    async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/client.tgz") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "application/gzip")
        return await response.read()


async def test_the_package_has_the_client_its_types_and_the_version_of_the_hub(hub: Hub) -> None:
    """package.json names files of the package only. Nobody needs to sign in to get it."""
    hub.options["sign_in"] = True
    await hub.start()
    data = await download(hub)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        entries = {entry.name.removeprefix("package/"): entry for entry in tar}
        contents = {name: file.read() for name, entry in entries.items() if (file := tar.extractfile(entry))}
    package = json.loads(contents.pop("package.json"))
    assert contents == PACKAGE_FILES
    assert (package["name"], package["version"]) == (PACKAGE_NAME, hubbub.__version__)
    names = {name for entry in package["exports"].values() for name in entry.values()} | {package["types"]}
    assert {name.removeprefix("./") for name in names} == contents.keys()


def test_equal_clients_give_equal_bytes() -> None:
    """They have no time, no account and no system in them, and do not depend on the version of zlib."""
    data = CLIENT_FILES["/client.tgz"][1]
    assert data == pack_client(PACKAGE_FILES)
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff" and data[10] & 0b110 == 0  # a stored block
    archive = gzip.decompress(data)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            assert (entry.mtime, entry.mode, entry.uid, entry.gid) == (NPM_TIME, 0o644, 0, 0)
            assert entry.uname == entry.gname == ""


def test_a_large_file_has_several_blocks() -> None:
    """A stored block has at most 65,535 bytes."""
    text = bytes(200_000)
    with tarfile.open(fileobj=io.BytesIO(pack_client({"x": text})), mode="r:gz") as tar:
        file = tar.extractfile("package/x")
        assert file is not None and file.read() == text


@needs_node
async def test_npm_installs_the_package_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    """A program imports the client by its name, and chats."""
    packages = await install_packages()
    hub.agent("echo.py", "def echo(message): return message")
    await hub.start()
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "chat.js").write_text(PROGRAM.replace("WS", (packages / "node_modules/ws/wrapper.mjs").as_uri()))
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--silent")
    await run(tmp_path, "npm", "install", *quiet, f"{hub.url}/client.tgz")
    assert PACKAGE_NAME in json.loads((tmp_path / "package.json").read_text())["dependencies"]
    output = await run(tmp_path, "node", "chat.js", f"ws://127.0.0.1:{hub.port}/api/v1/ws")
    assert output == "From a package HubError\n"


async def run(folder: Path, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    async with asyncio.timeout(3 * PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
