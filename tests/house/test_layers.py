"""The hub is built in layers: a module imports only its own layer and the layers below."""

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

# The lowest layer: all folders may import it. It imports no other part of the hub.
BASE = {"days", "errors", "forks", "ids", "limits", "plugins", "pools", "seams", "setting_sources", "settings", "text"}
BASE |= {"unix_sockets", "extras", "messages", "observe"}
# The parts of the hub that each folder of hub/ may import, beside itself and the lowest layer. A folder imports only
# folders above it in this table. A name with a dot is one module of a folder, not all of it.
FOLDERS: dict[str, set[str]] = {
    "access": set(),
    "protocols": set(),
    "storage": {"access.records"},
    "hosting": set(),
    "adapters": {"hosting.contract"},
    "client": set(),
    "delivery": {"protocols", "storage.log", "storage.records"},
    "sessions": {"access.records", "delivery.channel", "hosting", "storage"},
    "node": {"access.records", "delivery", "hosting", "protocols", "sessions", "storage"},
    "commands": {"access", "delivery", "hosting", "node", "protocols", "sessions", "storage"},
    "web": {"access", "commands", "protocols", "storage.records"},
    "cli": {
        *("access", "adapters.local_model", "client", "commands", "storage.log"),
        *("web.app", "web.certificate", "web.jwt_sign_in", "web.server"),
    },
    "": {"hosting.contract", "cli"},  # the package itself, which agent files import; and `python -m hub`
}


def module_name(path: Path) -> str:
    parts = path.relative_to(HUB.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(HUB.rglob("*.py"))}


def folder(module: str) -> str:
    """Return the folder of a module, or the name of a top-level module: `storage` for `hub.storage.sqlite.log`."""
    name = (module.split(".") + [""])[1]
    return "" if name == "__main__" else name


def allowed_imports(module: str) -> set[str]:
    own = folder(module)
    return BASE if own in BASE else BASE | {own, ""} | FOLDERS[own]


def is_allowed(name: str, rules: set[str]) -> bool:
    return folder(name) in rules or any(f"{name}.".startswith(f"hub.{rule}.") for rule in rules)


@cache
def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def all_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    yield from ast.walk(tree)


def import_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported: no function's body, nothing under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from import_time_nodes(node)


def imports(module: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Return the full names of the modules that *nodes* import."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            targets = {f"{origin}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else origin for name in targets}
    return names


def modules_that_import(library: str) -> set[str]:
    return {
        module
        for module in MODULES
        if any(name.split(".")[0] == library for name in imports(module, all_nodes(parse(module))))
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_the_parts_that_its_folder_may(module: str) -> None:
    """The table FOLDERS lists them."""
    ours = {name for name in imports(module, all_nodes(parse(module))) if name in MODULES}
    wrong = sorted(name for name in ours if not is_allowed(name, allowed_imports(module)))
    assert not wrong, f"{module} may not import {wrong}: see the table in {Path(__file__).name}"


def test_the_table_is_in_the_order_of_the_layers() -> None:
    """No folder may import a later one: a lower layer does not know a higher one."""
    for number, (own, rules) in enumerate(FOLDERS.items()):
        before = {*list(FOLDERS)[:number]}
        assert {rule.partition(".")[0] for rule in rules} <= before, own


@pytest.mark.parametrize("module", [module for module in MODULES if folder(module) in ("web", "cli")])
def test_web_and_cli_call_commands_only_through_the_table(module: str) -> None:
    """The functions behind the table do not check the permissions of the principal."""
    stray = []
    for node in all_nodes(parse(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hub.commands"):
            whole = node.module == "hub.commands"
            stray += [
                alias.name for alias in node.names if alias.name in USE_CASES or (whole and alias.name != "table")
            ]
        elif isinstance(node, ast.Import):
            stray += [alias.name for alias in node.names if alias.name.startswith("hub.commands")]
    assert not stray


def test_modules_have_no_import_cycle() -> None:
    """Imports inside functions do not count."""
    graph = {
        module: imports(module, import_time_nodes(parse(module))) & MODULES.keys() - {module} for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("an import cycle: " + " <- ".join(error.args[1]))


AIOHTTP = {"access", "web", "adapters", "client", "cli"}


def test_only_the_server_and_clients_import_aiohttp() -> None:
    """Sessions, runs and logs can be used and tested without a web server."""
    stray = {module for module in modules_that_import("aiohttp") if folder(module) not in AIOHTTP}
    assert not stray


def test_only_the_sqlite_driver_imports_sqlite() -> None:
    """Another driver of the log can replace it."""
    stray = {module for module in modules_that_import("sqlite3") if not module.startswith("hub.storage.sqlite.")}
    assert not stray


def test_only_three_modules_import_opentelemetry() -> None:
    """They are imported only while `otel` is on, because its packages are an extra."""
    tracing_modules = {f"hub.observe.{name}" for name in ("otel", "span_processors", "tool_spans")}
    assert modules_that_import("opentelemetry") == tracing_modules
    for module in MODULES:
        names = imports(module, import_time_nodes(parse(module)))
        assert module == "hub.observe.otel" or not names & tracing_modules, module


def trees_of_test_files() -> Iterator[tuple[str, ast.Module]]:
    """Yield the path of each file in tests/, and its syntax tree."""
    for path in sorted(TESTS.rglob("*.py")):
        yield path.relative_to(TESTS).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_test_file_imports_another() -> None:
    """Code that two test files share is in tests/support."""
    stems = {path.stem for path in TESTS.rglob("test_*.py")}
    for path, tree in trees_of_test_files():
        names: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names += [alias.name for alias in node.names]
        tests = [name for name in names if stems & {*name.split(".")}]
        assert not tests, f"{path} imports {tests}: move the shared code to tests/support"


def test_eventually_is_defined_once() -> None:
    """All tests wait for a condition with the same function and the same time limit."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    paths = [
        path
        for path, tree in trees_of_test_files()
        for node in ast.walk(tree)
        if isinstance(node, functions) and node.name == "eventually"
    ]
    assert paths == ["support/waiting.py"], f"eventually is defined in {paths}: use the one of tests/support/waiting.py"
