"""Fetch the console's packages from npm into hub/console/vendor/, unchanged, with their licences and a table.

Run it after a change of a version below: `.venv/bin/python scripts/vendor.py`. It needs npm.
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
class VendoredFile:
    """One file of a package, and its licence."""

    name: str
    version: str
    path: str
    licence: str  # the SPDX name; the text is the file LICENSE of the package


FILES = (
    VendoredFile("preact", "11.2.0", "dist/preact.mjs", "MIT"),
    VendoredFile("htm", "3.1.1", "dist/htm.module.js", "Apache-2.0"),
    VendoredFile("marked", "18.2.1", "lib/marked.esm.js", "MIT"),
)


def fetch(file: VendoredFile) -> str:
    """Fetch and write a file and its licence; return its row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", f"{file.name}@{file.version}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            code, licence = (read(archive, f"package/{path}") for path in (file.path, "LICENSE"))
    (VENDOR / f"{file.name}.js").write_bytes(code)
    (VENDOR / f"{file.name}.LICENSE").write_bytes(licence)
    digest = hashlib.sha256(code).hexdigest()
    return f"| `{file.name}.js` | {file.name} | {file.version} | `{file.path}` | {file.licence} | `{digest}` |\n"


def read(archive: tarfile.TarFile, path: str) -> bytes:
    member = archive.extractfile(path)
    assert member is not None
    return member.read()


if __name__ == "__main__":
    VENDOR.mkdir(exist_ok=True)
    (VENDOR / "README.md").write_text(INTRO + "".join(map(fetch, FILES)))
