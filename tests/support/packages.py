"""Packages in a folder as pip installs them: modules, and metadata with entry points."""

import textwrap
from pathlib import Path


def add_package(folder: Path, name: str, entry_points: str, modules: dict[str, str] | None = None) -> None:
    """Write version 1.0 of a package into *folder*, a folder of sys.path.

    *entry_points* is the text of entry_points.txt; *modules* maps the names of modules to their code.
    """
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    for module, code in (modules or {}).items():
        (folder / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
