"""The wheel works alone. `make package` tests it in a bare environment of Python, with the local model."""

import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documents import DOCS
from support.wheel import Installation, build_wheel, fetch, find_account, list_sources, list_tree, lock_tree

import hub
from hub.cli.model import ENGINE_NAME
from hub.web.pages.console import CONSOLE_FILES
from hub.web.pages.javascript_client import CLIENT_FILES


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def installation(wheel: Path) -> Iterator[Installation]:
    """The wheel, unpacked: the other packages are those of this environment."""
    place = Path(tempfile.mkdtemp())  # other accounts cannot open the folders of pytest
    place.chmod(0o755)
    folder = place / "project"
    folder.mkdir()
    folder.chmod(0o777)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "tree")
    path = os.pathsep.join([str(place / "tree"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {"PATH": os.defpath, "PYTHONPATH": path, "HUBBUB_CACHE": "cache"}
    try:
        yield Installation(
            tree=place / "tree",
            folder=folder,
            command=(sys.executable, "-m", "hub"),
            environ=environ,
            account=find_account(sys.executable, folder),
        )
    finally:
        for file in place.rglob("*"):
            file.chmod(0o755)
        shutil.rmtree(place)


def test_the_wheel_has_each_file_of_the_packages_and_no_other(wheel: Path) -> None:
    """Also the console, the JavaScript client, the reference and the first agents. The name has the version."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    assert names == list_sources()
    assert wheel.name == f"hubbub-{hub.__version__}-py3-none-any.whl"
    assert ".dev" in hub.__version__ or wheel.name in DOCS["start"].read_text()  # the page has the last release
    assert f"\nVersion: {hub.__version__}\n" in metadata and f"\nRequires-Dist: {ENGINE_NAME}==" in metadata


def test_the_wheel_serves_everything_from_a_read_only_tree(installation: Installation) -> None:
    """Another account than that of its files runs it. Only the folder of the project changes."""
    before = lock_tree(installation.tree)
    assert installation.run("init").returncode == 0
    with installation.serve() as url:
        for path in (*CONSOLE_FILES, *CLIENT_FILES, "/docs", "/docs.js", "/docs.css", "/openapi.json"):
            assert fetch(url + path), path
        answer = installation.run("chat", "echo", "--url", url, message="From a wheel")
        assert answer.stdout.strip() == "From a wheel", answer
    assert list_tree(installation.tree) == before
    owner = (installation.folder / "data" / "hub.db").stat().st_uid
    assert owner == installation.account.get("user", os.geteuid())
