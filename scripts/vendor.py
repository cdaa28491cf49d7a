"""Fetch what the console takes from npm into hub/console/vendor/, byte for byte, with its licences and a table of it.

Run it after changing a version below: `.venv/bin/python scripts/vendor.py`. It needs npm.
"""

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

import attrs

VENDOR = Path(__file__).parent.parent / "hub" / "console" / "vendor"
INTRO = """# What the console takes from npm

Each file is the package's own, unchanged. `scripts/vendor.py` fetched them and wrote this table;
`tests/console/test_console_files.py` compares the sums.

| file | package | version | file in the package | licence | sha256 |
|---|---|---|---|---|---|
"""


@attrs.frozen
class Taken:
    """One file of a package, and its licence."""

    name: str
    version: str
    path: str
    licence: str  # its name by SPDX; the text is the package's file LICENSE


TAKEN = (
    Taken("preact", "11.2.0", "dist/preact.mjs", "MIT"),
    Taken("htm", "3.1.1", "dist/htm.module.js", "Apache-2.0"),
    Taken("marked", "18.2.1", "lib/marked.esm.js", "MIT"),
)


def fetch(taken: Taken) -> str:
    """Write the file and its licence; return the file's row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", f"{taken.name}@{taken.version}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            code, licence = (read(archive, f"package/{path}") for path in (taken.path, "LICENSE"))
    (VENDOR / f"{taken.name}.js").write_bytes(code)
    (VENDOR / f"{taken.name}.LICENSE").write_bytes(licence)
    digest = hashlib.sha256(code).hexdigest()
    return f"| `{taken.name}.js` | {taken.name} | {taken.version} | `{taken.path}` | {taken.licence} | `{digest}` |\n"


def read(archive: tarfile.TarFile, path: str) -> bytes:
    member = archive.extractfile(path)
    assert member is not None
    return member.read()


if __name__ == "__main__":
    VENDOR.mkdir(exist_ok=True)
    (VENDOR / "README.md").write_text(INTRO + "".join(map(fetch, TAKEN)))
