"""The hub is built in floors: a module knows its own floor and those below it, and nothing above."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

HUB = Path(__file__).parent.parent / "hub"

FLOORS = [
    {"errors", "messages", "parts", "config", "counts"},
    {"", "agent", "protocols", "logs"},  # "" is the package itself: what agent files import
    {
        "admission",
        "asking",
        "broadcast",
        "calls",
        "connection",
        "faults",
        "files",
        "loading",
        "once",
        "outbox",
        "pace",
        "pages",
        "recovery",
        "registry",
        "rewriting",
        "run",
        "session",
        "speech",
        "threads",
    },
    {"node", "dispatch", "deleting"},
    {"auth", "clients", "ws", "sse", "api", "app", "cli", "terminal", "__main__"},
]
ASIDE = {"adapters", "client"}
TOP = len(FLOORS) - 1


def module_name(path: Path) -> str:
    parts = path.relative_to(HUB.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(HUB.rglob("*.py"))}


def part(module: str) -> str:
    """Return what a module belongs to: `logs` for `hub.logs.sqlite`."""
    return (module.split(".") + [""])[1]


def floor(module: str) -> int | None:
    return next((number for number, parts in enumerate(FLOORS) if part(module) in parts), None)


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def everywhere(tree: ast.AST) -> Iterator[ast.AST]:
    yield from ast.walk(tree)


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when the module is imported: no function's body, nothing under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from at_import(node)


def imports(module: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Return the full names of the modules that *nodes* import."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            whole = {f"{origin}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else origin for name in whole}
    return found


def importers(library: str) -> set[str]:
    return {
        module
        for module in MODULES
        if any(name.split(".")[0] == library for name in imports(module, everywhere(parsed(module))))
    }


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) not in ASIDE])
def test_a_module_imports_nothing_from_the_floors_above(module: str) -> None:
    """Each module has a floor in the list above; what it imports of the hub lies there or lower."""
    own = floor(module)
    assert own is not None, f"{module} has no floor yet: give it one in {Path(__file__).name}"
    ours = {name for name in imports(module, everywhere(parsed(module))) if name in MODULES}
    above = {name for name in ours if part(name) not in ASIDE and (floor(name) or 0) > own}
    assert not above, f"{module} is on floor {own} and imports {sorted(above)}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """What happens at import time has an order."""
    graph = {module: imports(module, at_import(parsed(module))) & MODULES.keys() - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle: " + " <- ".join(error.args[1]))


def test_only_the_top_floor_and_adapters_and_the_client_know_aiohttp() -> None:
    """Sessions, runs and logs can be used and tested without a web server."""
    low = {module for module in importers("aiohttp") if part(module) not in ASIDE and floor(module) != TOP}
    assert not low


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) == "client"])
def test_the_client_knows_the_words_of_the_hub_and_nothing_else(module: str) -> None:
    """Whoever uses it loads no server."""
    ours = {part(name) for name in imports(module, everywhere(parsed(module))) if name in MODULES}
    assert ours <= FLOORS[0] | {"client"}


def test_only_the_sqlite_log_knows_sqlite() -> None:
    """Any other log can take its place."""
    stray = {module for module in importers("sqlite3") if not module.startswith("hub.logs.sqlite")}
    assert not stray
