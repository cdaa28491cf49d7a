"""The commands that install the packages of an extra."""

import re
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError

import pytest
from support.documents import PAGES, ROOT

from hub.cli import model
from hub.extras import make_install_command


def test_the_command_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """It works for a wheel and for a clone, in this Python environment."""
    lines = ["aiohttp<4,>=3.14.4", 'PyJWT[crypto]>=2.13; extra == "jwt"', 'click; extra == "cli"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    assert make_install_command("jwt") == f"{sys.executable} -m pip install 'PyJWT[crypto]>=2.13'"


def test_without_an_installation_the_command_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source tree may be only on the import path."""

    def requires(name: str) -> list[str]:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.requires", requires)
    assert make_install_command("jwt") == f"{sys.executable} -m pip install '.[jwt]' (in a clone of Hubbub)"


def test_the_extra_of_the_local_model_has_the_version_that_the_command_installs() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["options.extras_require"]["model"].strip() == f"{model.ENGINE_NAME}=={model.ENGINE_VERSION}"


def test_nothing_names_a_package_that_is_in_no_index() -> None:
    """Somebody else may own the name there. A path and an address of the package have a slash or a dot."""
    pattern = re.compile(r"(?:pip|npm) install(?: [^`\n]*)? ['\"]?hubbub(?:-client)?(?![-\w./])")
    assert pattern.search("pip install -q 'hubbub[jwt]'") and not pattern.search(
        "pip install './hubbub-0.1.0.whl[jwt]'"
    )
    files = [*PAGES, *(path for path in (ROOT / "hub").rglob("*") if path.suffix in (".py", ".js", ".html", ".toml"))]
    assert [str(path) for path in files if pattern.search(path.read_text(encoding="utf-8"))] == []
