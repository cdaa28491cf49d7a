"""The tables of clients of other projects in docs/clients.md have the versions that `make clients` runs."""

import re

import pytest
from support.documents import DOCS, rows
from support.foreign_clients import PROGRAMS, ForeignClient

# The folders of programs that use a client of another project, not one of our own.
KINDS = ("openai", "agui", "openapi")
CLIENTS = [
    ForeignClient(file)
    for kind in KINDS
    for file in sorted((PROGRAMS / kind).glob("*.*"))
    if file.suffix in (".py", ".mjs")
]
# Packages that a program needs beside its client.
TOOLS = ("zod", "node", "typescript", "esbuild", "react", "react-dom")


def split_package(package: str) -> tuple[str, str]:
    """Return the name and the exact version of a package of PyPI or npm."""
    match = re.fullmatch(r"(@?[\w./-]+)(?:\[\w+\])?(?:==|@)([\w.]+)", package)
    assert match is not None, f"{package} has no exact version"
    return match[1], match[2]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.id)
def test_a_client_is_in_the_table_with_its_versions(client: ForeignClient) -> None:
    packages = dict(map(split_package, client.list_packages()))
    versions = {f"{name} {version}" for name, version in packages.items() if name not in TOOLS}
    table = [{*row[1].split(", ")} for row in rows(DOCS["clients"]) if len(row) == 4]
    assert versions in table
