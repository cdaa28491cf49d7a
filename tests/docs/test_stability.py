"""What docs/stability.md promises: public names stay, and one place has the version."""

import re
from pathlib import Path

import pytest
from support.documents import DOCS, ROOT, rows
from support.surface import SURFACE_FILE, list_surface

import hub
from hub.web.pages.client_package import PACKAGE_JSON


def test_no_public_name_of_the_last_release_is_gone() -> None:
    """A name that goes on purpose is removed from the file too, and the changelog says what to do instead."""
    gone = {*SURFACE_FILE.read_text(encoding="utf-8").splitlines()} - list_surface()
    assert not gone, f"these public names are gone, which {SURFACE_FILE.name} has: {sorted(gone)}"


@pytest.mark.parametrize(
    "line",
    [
        "command chat.message",
        "event stream.content",
        "notice welcome.agents",
        "error unknown_session",
        "route GET /api/v1/sessions",
        "operation post_chat",
        "schema ChatBody",
        "metric hubbub_connections",
        "setting port",
        "limit queued_runs",
        "terminal hubbub key create --expires",
        "python hub.Run",
        "python hub.client.connect",
        "javascript connect",
        "javascript Session.ask",
        "javascript useHubbub",
    ],
)
def test_the_list_has_the_names_of_each_interface(line: str) -> None:
    """So a removed name is noticed."""
    assert line in list_surface()


def test_each_interface_of_the_page_links_to_its_chapter() -> None:
    """A reader finds the names there."""
    table = [row for row in rows(DOCS["stability"]) if len(row) == 3 and "](" in row[0]]
    assert len(table) >= 9
    assert {page for row in table for page in re.findall(r"\((\w[\w-]*)\.md", row[0])} == {
        *("protocol", "api", "agents", "clients", "react", "assistant-ui", "clients-python", "start", "operations")
    }


def test_one_place_has_the_version() -> None:
    """No other file of the package, of deploy/ and of the build has it. The newest heading of the changelog has it."""
    assert PACKAGE_JSON["version"] == hub.__version__
    suffixes = {".py", ".js", ".ts", ".html", ".json", ".yaml", ".service", ".cfg", ".toml"}
    files = [path for name in ("hub", "deploy") for path in (ROOT / name).rglob("*") if path.suffix in suffixes]
    files += [ROOT / "setup.cfg", ROOT / "pyproject.toml", ROOT / "Makefile"]
    places = [path for path in files if hub.__version__ in path.read_text(encoding="utf-8")]
    assert places == [Path(hub.__file__)]
    heading, *_ = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading == hub.__version__
