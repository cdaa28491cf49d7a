"""Say how to install the packages of an extra, such as `jwt`."""

import importlib.metadata
import re
import shlex
import sys

EXTRA_PATTERN = re.compile(r"(.+?)\s*;\s*extra == [\"']([\w-]+)[\"']")


def list_extra(extra: str) -> list[str]:
    """Return the requirements of an extra, as in setup.cfg. The list is empty if Hubbub is not installed."""
    try:
        requirements = importlib.metadata.requires("hubbub") or []
    except importlib.metadata.PackageNotFoundError:  # the source tree is only on the import path
        return []
    matches = filter(None, map(EXTRA_PATTERN.fullmatch, requirements))
    return [match[1] for match in matches if match[2] == extra]


def make_install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra into this Python environment.

    It names the packages: Hubbub itself is in no package index, and may come from a wheel or from a clone.
    """
    packages = list_extra(extra)
    words = [sys.executable, "-m", "pip", "install", *(packages or [f".[{extra}]"])]
    return shlex.join(words) + ("" if packages else " (in a clone of Hubbub)")
