"""Find the lines of requirements.txt in the agents folder that the installed packages do not meet."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

REQUIREMENTS_FILE = "requirements.txt"


def find_missing_lines(file: Path) -> tuple[str, ...]:
    """Return the lines of a requirements file that the installed packages do not meet.

    If the file does not exist, there are no such lines. Options of pip (`-r`, `-e`) and addresses are ignored, because
    only pip understands them.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").replace("\\\n", " ").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(line for line in map(_strip_comment, lines) if line and not _is_met(line))


def has_pip_lines(file: Path) -> bool:
    """Return whether the file has lines that only pip understands."""
    lines = file.read_text(encoding="utf-8-sig").splitlines() if file.exists() else []
    return any(_parse(line) is None for line in map(_strip_comment, lines) if line)


def _strip_comment(line: str) -> str:
    """Return a line without its comment and its `--hash` options."""
    text = "" if line.startswith("#") else line.partition(" #")[0]
    return text.partition(" --hash")[0].strip()


def _parse(line: str) -> Requirement | None:
    """Return the requirement of a line; None if only pip understands the line."""
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def _is_met(line: str) -> bool:
    requirement = _parse(line)
    if requirement is None or requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
