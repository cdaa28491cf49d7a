"""The hub is built in floors: a module knows its own floor and those below it, and nothing above."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest
from support.documents import ROOT

from hub.commands.table import USE_CASES

HUB, TESTS = ROOT / "hub", ROOT / "tests"

# The ground: all folders may import it. It imports nothing of the hub but itself.
GROUND = {"errors", "forks", "ids", "limits", "plugins", "pools", "seams", "settings", "text", "messages", "observe"}
# What each folder of hub/ may import of the hub, beside itself and the ground. The order is that of the floors: what a
# folder imports stands before it. A name with a dot is one module of a folder, not the whole of it.
FOLDERS: dict[str, set[str]] = {
    "access": set(),
    "protocols": set(),
    "storage": set(),
    "hosting": set(),
    "adapters": {"hosting.contract"},
    "client": set(),
    "delivery": {"protocols", "storage.log", "storage.records"},
    "sessions": {"delivery.channel", "hosting", "storage"},
    "node": {"delivery", "hosting", "protocols", "sessions", "storage"},
    "commands": {"access", "delivery", "hosting", "node", "protocols", "sessions", "storage"},
    "web": {"access", "commands", "protocols", "storage.records"},
    "cli": {"access", "client", "commands", "storage.log", "web.server"},
    "": {"hosting.contract", "cli"},  # the package itself: what agent files import; and `python -m hub`
}


def module_name(path: Path) -> str:
    parts = path.relative_to(HUB.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(HUB.rglob("*.py"))}


def folder(module: str) -> str:
    """Return the folder a module is in, or its name where it lies in none: `storage` for `hub.storage.sqlite.log`."""
    name = (module.split(".") + [""])[1]
    return "" if name == "__main__" else name


def allowed(module: str) -> set[str]:
    own = folder(module)
    return GROUND if own in GROUND else GROUND | {own, ""} | FOLDERS[own]


def fits(name: str, rules: set[str]) -> bool:
    return folder(name) in rules or any(f"{name}.".startswith(f"hub.{rule}.") for rule in rules)


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


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_folder_may(module: str) -> None:
    """A folder is a floor: the table above says what each may import, and everything else is refused."""
    ours = {name for name in imports(module, everywhere(parsed(module))) if name in MODULES}
    wrong = sorted(name for name in ours if not fits(name, allowed(module)))
    assert not wrong, f"{module} may not import {wrong}: see the table in {Path(__file__).name}"


def test_the_table_is_in_the_order_of_the_floors() -> None:
    """No folder may import one that stands after it, so that there is no way up."""
    for number, (own, rules) in enumerate(FOLDERS.items()):
        before = {*list(FOLDERS)[:number]}
        assert {rule.partition(".")[0] for rule in rules} <= before, own


@pytest.mark.parametrize("module", [module for module in MODULES if folder(module) in ("web", "cli")])
def test_what_is_above_the_door_calls_rows_of_its_table(module: str) -> None:
    """Not the functions behind them, which ask nobody whether the principal may."""
    stray = []
    for node in everywhere(parsed(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hub.commands"):
            whole = node.module == "hub.commands"
            stray += [
                alias.name for alias in node.names if alias.name in USE_CASES or (whole and alias.name != "table")
            ]
        elif isinstance(node, ast.Import):
            stray += [alias.name for alias in node.names if alias.name.startswith("hub.commands")]
    assert not stray


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """What happens at import time has an order."""
    graph = {module: imports(module, at_import(parsed(module))) & MODULES.keys() - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle: " + " <- ".join(error.args[1]))


AIOHTTP = {"access", "web", "adapters", "client", "cli"}


def test_only_the_server_and_what_dials_out_know_aiohttp() -> None:
    """Sessions, runs and logs can be used and tested without a web server."""
    stray = {module for module in importers("aiohttp") if folder(module) not in AIOHTTP}
    assert not stray


def test_only_the_sqlite_log_knows_sqlite() -> None:
    """Any other log can take its place."""
    stray = {module for module in importers("sqlite3") if not module.startswith("hub.storage.sqlite.")}
    assert not stray


def trees_of_tests() -> Iterator[tuple[str, ast.Module]]:
    """Yield the path of each file in tests/, and what it holds."""
    for path in sorted(TESTS.rglob("*.py")):
        yield path.relative_to(TESTS).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_test_imports_another() -> None:
    """What two test files share is in tests/support."""
    stems = {path.stem for path in TESTS.rglob("test_*.py")}
    for path, tree in trees_of_tests():
        names: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names += [alias.name for alias in node.names]
        tests = [name for name in names if stems & {*name.split(".")}]
        assert not tests, f"{path} imports {tests}: move what they share to tests/support"


def test_there_is_one_eventually() -> None:
    """A test waits for a condition in one way, with one limit."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        path
        for path, tree in trees_of_tests()
        for node in ast.walk(tree)
        if isinstance(node, functions) and node.name == "eventually"
    ]
    assert found == ["support/waiting.py"], f"eventually is defined in {found}: take that of tests/support/waiting.py"
