"""One name has one meaning: things are nouns, questions begin with `is_` or `has_`, functions are verbs."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from support.documents import ROOT

from hub.commands.table import USE_CASES
from hub.messages import BODIES, COMMANDS, NOTICES

HUB = ROOT / "hub"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(HUB.rglob("*.py"))}

# Public names that several modules define, with the reason. Single letters are type variables. The rows of
# commands/table.py have the names of their functions.
SHARED = {
    "log": "each module's logger",
    "ROUTES": "each file of HTTP routes has one table of this name, which web/app.py reads",
}

IRREGULAR = set(
    "asked begun broken brought built chosen drawn done driven fallen felt found given gone grown heard held kept "
    "known left lost made meant met paid said seen sent shown spoken sold sought stood taken taught thought thrown "
    "told torn understood undone won written".split()
)
REGULAR = re.compile(r"[a-z]{2,}[^e]ed")
NOUNS = {"feed", "seed", "need", "speed", "embed", "accepted", "subscribed"}  # the last two are notices
# A word before the participle that makes the name a question, an event, or a wait.
OPENERS = set("is has have was are can on if until when while not".split())
# Names that other libraries or the wire protocols require.
EXPECTED = {
    "connection_made": "asyncio.Protocol",
    "connection_lost": "asyncio.Protocol",
    "eof_received": "asyncio.Protocol",
    "created": "OpenAI's field, and ours of files",
    "data_received": "asyncio.Protocol",
    "estimated": "a field of the usage over HTTP",
    "parsed": "rich.markdown.Markdown",
    "revoked": "a field of keys and invites over HTTP, beside `created`",
    "writing_paused": "aiohttp's protocol class",
}
PRONOUNS = set("it its they them their this that these those who whom what which one ones other others both".split())


def public_names(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def wire_fields(tree: ast.Module) -> set[str]:
    """Return the fields of the records of hub/messages: the wire protocol names them."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    fields = [node for kind in classes for node in kind.body if isinstance(node, ast.AnnAssign)]
    return {field.target.id for field in fields if isinstance(field.target, ast.Name)}


WIRE = {*BODIES, *COMMANDS, *NOTICES} | {
    name for path, tree in TREES.items() if path.parent.name == "messages" for name in wire_fields(tree)
}


def bound_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each name that a module binds, with its line: variables, parameters, attributes, functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno


def is_participle(name: str) -> bool:
    """Return whether a name is or ends with a participle that no noun follows, as `said` or `last_kept`."""
    words = name.strip("_").split("_")
    if name in EXPECTED or name in WIRE or name.isupper() or set(words[:-1]) & OPENERS:
        return False
    last = words[-1]
    return last in IRREGULAR or (REGULAR.fullmatch(last) is not None and last not in NOUNS)


def test_no_public_name_is_defined_twice() -> None:
    """A reader who searches for a name finds one thing."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path, tree in TREES.items():
        for name in public_names(tree):
            is_row = path.name == "table.py" and name in USE_CASES
            if len(name) > 1 and name not in SHARED and not is_row:
                homes[name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_each_shared_name_is_shared() -> None:
    """Each exception is still needed."""
    for name in SHARED:
        assert sum(name in public_names(tree) for tree in TREES.values()) > 1, name


def test_names_are_no_participles_and_no_pronouns() -> None:
    """`said`, `kept` and `it` do not name the thing that they contain."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, tree in TREES.items()
        for name, line in bound_names(tree)
        if is_participle(name) or (name.strip("_") in PRONOUNS and name not in WIRE)
    ]
    assert wrong == []


def test_a_participle_is_recognised() -> None:
    wrong = ["said", "_kept", "last_found", "answered"]
    right = [
        "is_kept",
        "has_spoken",
        "sent_bytes",
        "feed",
        "on_closed",
        "wait_until_settled",
        "ENDED",
        "connection_lost",
    ]
    assert [name for name in wrong if is_participle(name)] == wrong
    assert [name for name in right if is_participle(name)] == []
