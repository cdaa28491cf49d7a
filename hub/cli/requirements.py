"""Find the lines of requirements.txt in the agents folder that the installed packages do not meet."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

REQUIREMENTS_FILE = "requirements.txt"


def find_missing_lines(file: Path) -> tuple[str, ...]:
    """Return the lines of a requirements file that the installed packages do not meet.

    If the file does not exist, there are no such lines. Options of pip (`-r`, `-e`) and addresses are ignored, because
    only pip understands them.
    """
    return tuple(line for line in _read_lines(file) if not is_line_met(line))


def has_pip_lines(file: Path) -> bool:
    """Return whether the file has lines that only pip understands."""
    return any(_parse(line) is None for line in _read_lines(file))


def _read_lines(file: Path) -> list[str]:
    """Return the lines of a requirements file, without comments, `--hash` options and empty lines.

    As in pip, a line that ends with a backslash goes on in the next line, but a comment line does not.
    """
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return []
    lines = re.sub(r"(?m)^[ \t]*#.*", "", text).replace("\\\n", " ").splitlines()
    return [text for line in lines if (text := re.sub(r"\s(#|--hash).*", "", line).strip())]


def _parse(line: str) -> "Requirement | None":
    """Return the requirement of a line; None if only pip understands the line."""
    # Here, because packaging loads slowly, and few commands read requirements.
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def is_line_met(line: str) -> bool:
    """Return whether the installed packages meet a line. A line for other machines, or for pip alone, is met."""
    requirement = _parse(line)
    if requirement is None or requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
