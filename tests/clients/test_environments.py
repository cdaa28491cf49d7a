"""The environments of the programs: they are made when a program runs, and made again if they are not complete."""

import shutil
from pathlib import Path

import pytest
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient

pytestmark = pytest.mark.timeout(2 * (INSTALL_SECONDS + RUN_SECONDS))

PYTHON = """
# /// script
# dependencies = ["idna=={version}"]
# ///
import idna
from scenario import run

def version():
    return idna.__version__

run(globals())
"""
JAVASCRIPT = """
// /// script
// dependencies = ["semver@{version}"]
// ///
import semver from 'semver'
import { createRequire } from 'node:module'
import { run } from './scenario.mjs'

const version = () => semver.valid(createRequire(import.meta.url)('semver/package.json').version)

run({ version })
"""
PROGRAMS = [
    pytest.param("small.py", PYTHON, ("3.17", "3.18"), "venv/lib/python*/site-packages/idna", id="python"),
    pytest.param("small.mjs", JAVASCRIPT, ("7.7.3", "7.7.4"), "node_modules/semver", id="javascript"),
]


@pytest.mark.parametrize(("name", "code", "versions", "package"), PROGRAMS)
async def test_an_environment_that_is_gone_or_not_complete_is_made_again(
    tmp_path: Path, name: str, code: str, versions: tuple[str, str], package: str
) -> None:
    """Also after an interrupted change to another version, and back."""
    client = ForeignClient(tmp_path / name, tmp_path / "clients")
    first, last = versions

    async def read_version(version: str) -> str:
        client.file.write_text(code.replace("{version}", version))
        result: str = await client.run("version", "http://unused")
        return result

    assert await read_version(first) == first
    (stamp,) = client.folder.glob("*/installed.txt")
    installed_at = stamp.stat().st_mtime_ns
    assert (
        await read_version(first) == first and stamp.stat().st_mtime_ns == installed_at
    )  # nothing is installed a second time
    shutil.rmtree(client.folder)
    assert await read_version(first) == first
    stamp.unlink()  # as if the installation had been killed, with half of a package
    (folder,) = client.folder.glob(package)
    shutil.rmtree(folder)
    folder.mkdir()
    assert await read_version(first) == first
    assert await read_version(last) == last
    client.file.write_text(code.replace("{version}", "0.0.0"))
    with pytest.raises(AssertionError, match="idna==0.0.0|ETARGET"):
        await client.run("version", "http://unused")
    assert await read_version(last) == last
