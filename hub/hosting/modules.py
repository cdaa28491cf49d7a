"""Track the author's own modules: agent files import them from the agents folder and the current folder."""

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
AGENTS_VARIABLE = "_HUBBUB_AGENTS"  # the agents folder, for the package hubbub_agents in child processes
FOREIGN_PACKAGES = frozenset({*sys.stdlib_module_names, "hub"})

# The time of the last change of a file, in ns, and its size; None if there is no file.
FileStamp = tuple[int, int] | None


@attrs.define(eq=False, kw_only=True)
class AuthorModules:
    """The author's modules that agent files import. forget() removes modules, so that Python imports them again.

    Between open() and close(), the agents folder and the current folder are at the end of `sys.path`. So a `random.py`
    in one of them hides no other module. Imports are read from the source code, so imports of broken files and imports
    inside functions are known, too. Imports by a name that is made at run time, as with importlib.import_module(), are
    not known.
    """

    folder: Path
    _roots: tuple[str, ...] = ()
    _added_roots: list[str] = attrs.Factory(list)
    _stamps: dict[str, FileStamp] = attrs.Factory(dict)  # by path, read before the import
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
        """Undo the changes of `sys.path`, and empty the variable. Remove the author's modules from `sys.modules`."""
        sys.path[:] = [entry for entry in sys.path if entry not in self._added_roots]
        # Not removed: another thread that iterates over os.environ now, such as the one that sends traces, would fail.
        os.environ[AGENTS_VARIABLE] = ""
        self._drop(self._find_groups(self._stamps))
        self._stamps.clear()

    # --- files and their imports --------------------------------------------------------------------------------------

    def find_imports(self, agent_id: str, path: Path) -> dict[str, FileStamp]:
        """Return the files that an agent file imports, directly or indirectly, with their stamps.

        Call this before the import, so that the stamps show each later change. The method reads files: call it with
        run_import().
        """
        files = self._find_all_imports(f"{PACKAGE}.{agent_id}", str(path))
        return {file: self._stamps.setdefault(file, read_stamp(file)) for file in files}

    def _find_all_imports(self, name: str, path: str) -> set[str]:
        """Return the files that a module imports, directly or indirectly, without the file of the module itself."""
        files: set[str] = set()
        queue = [(name, path)]
        while queue:
            for module, file in self._find_direct_imports(*queue.pop()):
                if file not in files and file != path:
                    files.add(file)
                    queue.append((module, file))
        return files

    def _find_direct_imports(self, name: str, path: str) -> Iterator[tuple[str, str]]:
        package = name if os.path.basename(path) == "__init__.py" else name.rpartition(".")[0]
        for import_name in self._read_import_names(package, path):
            yield from self._resolve(import_name)

    def _read_import_names(self, package: str, path: str) -> frozenset[str]:
        """Return the dotted names that a file may import: for `from a import b`, both `a` and `a.b`."""
        stamp = read_stamp(path)
        if path not in self._import_names or self._import_names[path][0] != stamp:
            self._import_names[path] = stamp, frozenset(parse_import_names(package, path))
        return self._import_names[path][1]

    def _resolve(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the author's own modules that `import name` executes, with their files."""
        parts = name.split(".")
        first_index, folders = (1, [self._roots[0]]) if parts[0] == PACKAGE else (0, sys.path)
        if parts[0] in FOREIGN_PACKAGES:
            return
        for end in range(first_index + 1, len(parts) + 1):
            # Not importlib.util.find_spec() of the dotted name: it would import the packages.
            spec = PathFinder.find_spec(parts[end - 1], folders)
            if spec is None:
                return
            if spec.has_location and spec.origin:
                locations, folders = [spec.origin], list(spec.submodule_search_locations or ())
            else:  # a folder without an __init__.py
                locations = folders = [os.path.join(folder, parts[end - 1]) for folder in folders]
            # The top-level module must be directly in one of the two folders: a .venv below has installed packages.
            is_first = end == first_index + 1
            if is_first and not any(os.path.dirname(location) in self._roots for location in folders or locations):
                return
            if spec.origin:
                yield ".".join(parts[:end]), spec.origin
            if not folders:
                return

    def list_nearby_files(self) -> dict[str, FileStamp]:
        """Return the Python files that a broken agent may try to import, with their stamps."""
        files = [
            str(path) for root in self._roots for pattern in ("*.py", "*/*.py") for path in Path(root).glob(pattern)
        ]
        return {file: read_stamp(file) for file in files}

    # --- changes ------------------------------------------------------------------------------------------------------

    def list_changed_files(self) -> frozenset[str]:
        """Return the files that changed since their stamps were read."""
        return frozenset(file for file, stamp in self._stamps.items() if read_stamp(file) != stamp)

    def forget(self, files: Collection[str]) -> None:
        """Remove the modules of *files* and the modules that import them, so that Python imports them all again.

        The method reads files, so call it with run_import().
        """
        importlib.invalidate_caches()
        stale_files = set(files)
        stale_files |= {
            file
            for name, file in self._list_loaded_modules()
            if not stale_files.isdisjoint(self._find_all_imports(name, file))
        }
        self._drop(self._find_groups(stale_files))
        for file in files:
            self._stamps.pop(file, None)
            # Python compares a .pyc only by seconds and size: it would miss a quick edit of the same length.
            Path(cache_from_source(file)).unlink(missing_ok=True)

    def _list_loaded_modules(self) -> list[tuple[str, str]]:
        """Return the names and files of the author's own modules in `sys.modules`."""
        modules = []
        for name, module in list(sys.modules.items()):
            # Not getattr(module, "__file__"): a lazy module would import its target.
            file = getattr(module, "__dict__", {}).get("__file__")
            if file in self._stamps:
                modules.append((name, file))
        return modules

    def _find_groups(self, files: Collection[str]) -> set[str]:
        """Return the names for _drop(): the top-level module of each file, or the module directly below PACKAGE."""
        names = [name.split(".") for name, file in self._list_loaded_modules() if file in files]
        return {".".join(parts[: 2 if parts[0] == PACKAGE else 1]) for parts in names}

    def _drop(self, groups: set[str]) -> None:
        """Remove the modules named in *groups*, and all modules below them, from `sys.modules`."""
        for name in list(sys.modules):
            if any(name == group or name.startswith(f"{group}.") for group in groups):
                del sys.modules[name]
        package = importlib.import_module(PACKAGE)
        for group in groups:
            vars(package).pop(group.partition(".")[2], None)  # else `from . import NAME` would find the old module


def read_stamp(file: str) -> FileStamp:
    """Return the stamp of a file, or None if there is no file. A change of the file changes its stamp."""
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def have_changed(stamps: Mapping[str, FileStamp]) -> bool:
    """Return whether a file in *stamps* changed since its stamp was read."""
    return any(read_stamp(file) != stamp for file, stamp in stamps.items())


def parse_import_names(package: str, path: str) -> Iterator[str]:
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
