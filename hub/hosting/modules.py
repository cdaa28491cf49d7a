"""Track the author's own modules: files of the agents folder and the current folder that agent files import."""

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
AGENTS_VARIABLE = "_HUBBUB_AGENTS"  # the folder, for the package hubbub_agents in child processes
FOREIGN_PACKAGES = frozenset({*sys.stdlib_module_names, "hub"})

# The time of the last change of a file, in ns, and its size; None if there is no file.
FileStamp = tuple[int, int] | None


@attrs.define(eq=False, kw_only=True)
class AuthorModules:
    """The files that agent files import; the modules of changed files are forgotten, so that Python imports them again.

    Between open() and close() both folders are at the end of `sys.path`, so a `random.py` in one of them hides no other
    module. Imports are read from the source code, so those of broken files and inside functions are known too. Names
    made at run time, as for importlib.import_module(), are not.
    """

    folder: Path
    _roots: tuple[str, ...] = ()
    _added_roots: list[str] = attrs.Factory(list)
    _stamps: dict[str, FileStamp] = attrs.Factory(dict)  # by path, taken before the import
    _import_names: dict[str, tuple[FileStamp, frozenset[str]]] = attrs.Factory(dict)  # a cache, by path

    def open(self) -> None:
        """Make the modules importable, also in child processes."""
        folder = os.path.abspath(self.folder)
        self._roots = (folder, os.getcwd())
        self._added_roots = [root for root in self._roots if root not in sys.path]
        sys.path += self._added_roots
        os.environ[AGENTS_VARIABLE] = folder
        importlib.import_module(PACKAGE).__path__ = [folder]

    def close(self) -> None:
        """Undo open(), and forget all modules."""
        sys.path[:] = [entry for entry in sys.path if entry not in self._added_roots]
        os.environ.pop(AGENTS_VARIABLE, None)
        self._drop(self._groups(self._stamps))
        self._stamps.clear()

    # --- files and their imports --------------------------------------------------------------------------------------

    def imports_of(self, agent_id: str, path: Path) -> dict[str, FileStamp]:
        """Return the files that an agent file imports, directly or indirectly, with their stamps.

        The stamps are older than the import, so a later change is detected. The method reads files: call it with
        run_import().
        """
        files = self._closure(f"{PACKAGE}.{agent_id}", str(path))
        return {file: self._stamps.setdefault(file, stamp_of(file)) for file in files}

    def _closure(self, name: str, path: str) -> set[str]:
        """Return the files that a module imports, directly or indirectly."""
        files: set[str] = set()
        queue = [(name, path)]
        while queue:
            for module, file in self._direct_imports(*queue.pop()):
                if file not in files and file != path:
                    files.add(file)
                    queue.append((module, file))
        return files

    def _direct_imports(self, name: str, path: str) -> Iterator[tuple[str, str]]:
        package = name if os.path.basename(path) == "__init__.py" else name.rpartition(".")[0]
        for import_name in self._names_in(package, path):
            yield from self._resolve(import_name)

    def _names_in(self, package: str, path: str) -> frozenset[str]:
        """Return the dotted names that a file may import: for `from a import b`, both `a` and `a.b`."""
        stamp = stamp_of(path)
        if path not in self._import_names or self._import_names[path][0] != stamp:
            self._import_names[path] = stamp, frozenset(names_imported_by(package, path))
        return self._import_names[path][1]

    def _resolve(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the author's own modules that `import name` executes, with their files."""
        parts = name.split(".")
        first, folders = (1, [self._roots[0]]) if parts[0] == PACKAGE else (0, sys.path)
        if parts[0] in FOREIGN_PACKAGES:
            return
        for end in range(first + 1, len(parts) + 1):
            spec = PathFinder.find_spec(parts[end - 1], folders)  # by the last part: the packages are not imported yet
            if spec is None:
                return
            if spec.has_location and spec.origin:
                locations, folders = [spec.origin], list(spec.submodule_search_locations or ())
            else:  # a folder without an __init__.py
                locations = folders = [os.path.join(folder, parts[end - 1]) for folder in folders]
            # The first part must be in one of the two folders itself, not below it: an installed package of a .venv is.
            is_first = end == first + 1
            if is_first and not any(os.path.dirname(location) in self._roots for location in folders or locations):
                return
            if spec.origin:
                yield ".".join(parts[:end]), spec.origin
            if not folders:
                return

    def nearby_files(self) -> dict[str, FileStamp]:
        """Return the Python files that a broken agent may try to import, with their stamps."""
        files = [
            str(path) for root in self._roots for pattern in ("*.py", "*/*.py") for path in Path(root).glob(pattern)
        ]
        return {file: stamp_of(file) for file in files}

    # --- changes ------------------------------------------------------------------------------------------------------

    def changed_files(self) -> frozenset[str]:
        """Return the files that changed after their import."""
        return frozenset(file for file, stamp in self._stamps.items() if stamp_of(file) != stamp)

    def forget(self, files: Collection[str]) -> None:
        """Remove the modules of *files*, and all that import one of them, so that Python imports them again.

        The method reads files, so call it with run_import().
        """
        importlib.invalidate_caches()
        stale = set(files)
        stale |= {file for name, file in self._loaded_modules() if not stale.isdisjoint(self._closure(name, file))}
        self._drop(self._groups(stale))
        for file in files:
            self._stamps.pop(file, None)
            # Python compares a .pyc by seconds and size, and so misses a quick edit of the same length.
            Path(cache_from_source(file)).unlink(missing_ok=True)

    def _loaded_modules(self) -> list[tuple[str, str]]:
        """Return the names and files of the author's own modules in `sys.modules`."""
        modules = []
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__dict__", {}).get("__file__")  # getattr would make a lazy module import its target
            if file in self._stamps:
                modules.append((name, file))
        return modules

    def _groups(self, files: Collection[str]) -> set[str]:
        """Return the names that _drop() removes for these files: top-level packages, and single modules of agents."""
        names = [name.split(".") for name, file in self._loaded_modules() if file in files]
        return {".".join(parts[: 2 if parts[0] == PACKAGE else 1]) for parts in names}

    def _drop(self, groups: set[str]) -> None:
        for name in list(sys.modules):
            if any(name == group or name.startswith(f"{group}.") for group in groups):
                del sys.modules[name]
        package = importlib.import_module(PACKAGE)
        for group in groups:
            vars(package).pop(group.partition(".")[2], None)  # else `from . import NAME` would find the old module


def stamp_of(file: str) -> FileStamp:
    """Return the stamp of a file, which differs after a change of the file."""
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def have_changed(stamps: Mapping[str, FileStamp]) -> bool:
    """Return whether one of these files changed since its stamp was taken."""
    return any(stamp_of(file) != stamp for file, stamp in stamps.items())


def names_imported_by(package: str, path: str) -> Iterator[str]:
    """Yield the dotted names that the statements of a file may import: for `from a import b`, both `a` and `a.b`."""
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
            except ImportError:  # above the top-level package
                continue
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names if alias.name != "*")
