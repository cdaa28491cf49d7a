"""Packages as pip leaves them in a folder: modules, and metadata with entry points."""

import textwrap
from pathlib import Path


def add_package(folder: Path, name: str, entry_points: str, modules: dict[str, str] | None = None) -> None:
    """Write version 1.0 of a package into *folder*, which is on sys.path or will be.

    *entry_points* is the text of its entry_points.txt; *modules* are their names and their code.
    """
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    for module, code in (modules or {}).items():
        (folder / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
