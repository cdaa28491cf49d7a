"""The author's own modules: what agent files import from the agents folder and from the current folder."""

import ast
import importlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.util import cache_from_source, resolve_name
from pathlib import Path

import attrs

PACKAGE = "hubbub_agents"
VARIABLE = "_HUBBUB_AGENTS"  # tells child processes the folder: see that package
NEVER_OWN = frozenset({*sys.stdlib_module_names, "hub"})

# When a file was changed, and its size; None where there is none.
Stamp = tuple[int, int] | None


@attrs.define(eq=False, kw_only=True)
class Modules:
    """Knows which files agent files import, and forgets the modules of files that have changed.

    Both folders are at the end of `sys.path` between open() and close(), so that a `random.py` in one of them hides
    nothing. Imports are read from the source: those of a broken file are known, too, and those inside of functions.
    Names that are made at run time, as for importlib.import_module(), are not seen.
    """

    folder: Path
    _roots: tuple[str, ...] = ()
    _added: list[str] = attrs.Factory(list)
    _stamps: dict[str, Stamp] = attrs.Factory(dict)  # by path, each from before its import
    _parsed: dict[str, tuple[Stamp, frozenset[str]]] = attrs.Factory(dict)

    def open(self) -> None:
        """Let the modules be imported, also by child processes."""
        folder = os.path.abspath(self.folder)
        self._roots = (folder, os.getcwd())
        self._added = [root for root in self._roots if root not in sys.path]
        sys.path += self._added
        os.environ[VARIABLE] = folder
        importlib.import_module(PACKAGE).__path__ = [folder]

    def close(self) -> None:
        """Undo open(), and forget all modules."""
        sys.path[:] = [entry for entry in sys.path if entry not in self._added]
        os.environ.pop(VARIABLE, None)
        self._drop(self._groups(self._stamps))
        self._stamps.clear()

    # --- which files ------------------------------------------------------------------------------------------------

    def imported_by(self, agent_id: str, path: Path) -> dict[str, Stamp]:
        """Return the files that an agent file imports, directly or not, with their stamps. It reads files.

        The stamps are those from before the import, so that a change after it is noticed.
        """
        files = self._closure(f"{PACKAGE}.{agent_id}", str(path))
        return {file: self._stamps.setdefault(file, stamp(file)) for file in files}

    def _closure(self, name: str, path: str) -> set[str]:
        found: dict[str, str] = {}
        waiting = [(name, path)]
        while waiting:
            for other, file in self._direct(*waiting.pop()):
                if file not in found and file != path:
                    found[file] = other
                    waiting.append((other, file))
        return set(found)

    def _direct(self, name: str, path: str) -> Iterator[tuple[str, str]]:
        package = name if os.path.basename(path) == "__init__.py" else name.rpartition(".")[0]
        for imported in self._names(package, path):
            yield from self._resolve(imported)

    def _names(self, package: str, path: str) -> frozenset[str]:
        """Return the dotted names that a file may import: of `from a import b`, both `a` and `a.b`."""
        now = stamp(path)
        if path not in self._parsed or self._parsed[path][0] != now:
            self._parsed[path] = now, frozenset(imported_names(package, path))
        return self._parsed[path][1]

    def _resolve(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the modules that `import name` executes, with their files, where they are the author's own."""
        parts = name.split(".")
        at, places = (1, [self._roots[0]]) if parts[0] == PACKAGE else (0, sys.path)
        if parts[0] in NEVER_OWN:
            return
        for end in range(at + 1, len(parts) + 1):
            spec = PathFinder.find_spec(parts[end - 1], places)  # by the last part: none of it is imported yet
            if spec is None:
                return
            if spec.has_location and spec.origin:
                found, places = [spec.origin], list(spec.submodule_search_locations or ())
            else:  # a folder without an __init__.py
                found = places = [os.path.join(place, parts[end - 1]) for place in places]
            # In one of the folders, not below, as what is installed in a .venv.
            if end == at + 1 and not any(os.path.dirname(place) in self._roots for place in places or found):
                return
            if spec.origin:
                yield ".".join(parts[:end]), spec.origin
            if not places:
                return

    def beside(self) -> dict[str, Stamp]:
        """Return the Python files that a broken agent may lack."""
        files = [
            str(path) for root in self._roots for pattern in ("*.py", "*/*.py") for path in Path(root).glob(pattern)
        ]
        return {file: stamp(file) for file in files}

    # --- what has changed -------------------------------------------------------------------------------------------

    def changed(self) -> frozenset[str]:
        """Return the files that have changed since they were imported."""
        return frozenset(file for file, before in self._stamps.items() if stamp(file) != before)

    def forget(self, files: Collection[str]) -> None:
        """Let each module of *files*, and each that imports one of them, be imported anew. It reads files."""
        importlib.invalidate_caches()
        stale = set(files)
        stale |= {file for name, file in self._loaded() if not stale.isdisjoint(self._closure(name, file))}
        self._drop(self._groups(stale))
        for file in files:
            self._stamps.pop(file, None)
            # Python trusts a .pyc by seconds and size: a quick edit of the same length would be missed.
            Path(cache_from_source(file)).unlink(missing_ok=True)

    def _loaded(self) -> list[tuple[str, str]]:
        """Return the names and the files of the author's own modules that are imported."""
        loaded = []
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__dict__", {}).get("__file__")  # getattr would import what a lazy module stands for
            if file in self._stamps:
                loaded.append((name, file))
        return loaded

    def _groups(self, files: Collection[str]) -> set[str]:
        """Return what goes together for these files: modules by their top-level names, those of agents one by one."""
        names = [name.split(".") for name, file in self._loaded() if file in files]
        return {".".join(parts[: 2 if parts[0] == PACKAGE else 1]) for parts in names}

    def _drop(self, groups: set[str]) -> None:
        for name in list(sys.modules):
            if any(name == group or name.startswith(f"{group}.") for group in groups):
                del sys.modules[name]
        package = importlib.import_module(PACKAGE)
        for group in groups:
            vars(package).pop(group.partition(".")[2], None)  # `from . import NAME` would take it from there


def stamp(file: str) -> Stamp:
    """Return what changes when a file does."""
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def differ(stamps: Mapping[str, Stamp]) -> bool:
    """Return whether one of these files has changed since."""
    return any(stamp(file) != before for file, before in stamps.items())


def imported_names(package: str, path: str) -> Iterator[str]:
    """Yield the dotted names that the statements of a file import, or may: of `from a import b`, both `a` and `a.b`."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                origin = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # past the top
                continue
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names if alias.name != "*")
