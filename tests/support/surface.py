"""List the public names of Hubbub, which docs/stability.md keeps from one release to the next.

`make surface` runs this module, and writes the list to tests/docs/surface.txt.
"""

import re
from collections.abc import Iterator
from typing import Any

import attrs
import click
import msgspec
from support.documents import DOCS, ROOT, rows

import hub
import hub.client
import hub.messages
from hub.cli.main import cli
from hub.errors import HubError
from hub.limits import Limits
from hub.messages import BODIES, COMMANDS, NOTICES
from hub.protocols import PROTOCOLS
from hub.setting_sources import LIMIT_TYPES, SETTING_TYPES
from hub.web.api.openapi import build_openapi
from hub.web.app import ROUTES

SURFACE_FILE = ROOT / "tests" / "docs" / "surface.txt"
TYPES_FILES = [ROOT / "hub" / "client_js" / name for name in ("client.d.ts", "react.d.ts")]


def list_surface() -> set[str]:
    """Return all public names, each as one line."""
    parts = (_wire(), _http(), _operator(), _exports(), _javascript())
    return {line for part in parts for line in part}


def _wire() -> Iterator[str]:
    yield from (f"protocol {name}" for name in PROTOCOLS)
    for kind, table in (("command", COMMANDS), ("event", BODIES), ("notice", NOTICES)):
        for name, record in table.items():
            yield f"{kind} {name}"
            yield from (f"{kind} {name}.{field}" for field in _fields(record))
    yield from (f"error {code}" for code in _codes(HubError))


def _http() -> Iterator[str]:
    for route in ROUTES:
        yield from (f"route {route.method} {prefix}{route.path}" for prefix in route.prefixes)
    document = build_openapi(ROUTES, Limits())
    yield from (f"operation {one['operationId']}" for path in document["paths"].values() for one in path.values())
    yield from (f"schema {name}" for name in document["components"]["schemas"])
    for row in rows(DOCS["operations"]):
        yield from (f"metric {name}" for name in re.findall("`(hubbub_[a-z_]+)`", row[0]))


def _operator() -> Iterator[str]:
    yield from (f"setting {name}" for name in SETTING_TYPES)
    yield from (f"limit {name}" for name in LIMIT_TYPES)
    yield from _commands(cli, "hubbub")


def _exports() -> Iterator[str]:
    for module in (hub, hub.client, hub.messages):
        yield from (f"python {module.__name__}.{name}" for name in module.__all__)


def _javascript() -> Iterator[str]:
    text = "".join(re.sub(r"/\*\*.*?\*/", "", file.read_text(), flags=re.DOTALL) for file in TYPES_FILES)
    for kind, name, body in re.findall(
        r"^export (\w+) (\w+)(.*?)(?=^export|^interface|\Z)", text, re.MULTILINE | re.DOTALL
    ):
        yield f"javascript {name}"
        if kind in ("class", "interface"):
            members = re.findall(r"^  (?:readonly |get )?([a-zA-Z]\w*)\??[(:<]", body, re.MULTILINE)
            yield from (f"javascript {name}.{member}" for member in members if member != "constructor")


def _fields(record: type[Any]) -> list[str]:
    fields = attrs.fields(record) if attrs.has(record) else msgspec.structs.fields(record)
    return [field.name for field in fields]


def _codes(kind: type[HubError]) -> set[str]:
    return {kind.code}.union(*(_codes(one) for one in kind.__subclasses__()))


def _commands(command: click.Command, words: str) -> Iterator[str]:
    """Yield the commands and their options."""
    yield f"terminal {words}"
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield from (f"terminal {words} {option}" for option in parameter.opts)
    if isinstance(command, click.Group):
        for name, member in command.commands.items():
            yield from _commands(member, f"{words} {name}")


if __name__ == "__main__":
    lines = sorted(list_surface())
    SURFACE_FILE.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} names in {SURFACE_FILE.relative_to(ROOT)}")
