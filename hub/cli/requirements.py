"""What the requirements.txt beside the agents asks for, and what of it is missing."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

FILE = "requirements.txt"


def missing(file: Path) -> tuple[str, ...]:
    """Return the lines of a requirements file that this Python's environment does not fulfil; none without the file.

    Only pip knows what its options (`-r`, `-e`) and addresses mean: such lines are passed over.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").replace("\\\n", " ").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(line for line in map(_without_comment, lines) if line and not _is_met(line))


def has_others(file: Path) -> bool:
    """Return whether the file has lines that pip alone understands."""
    lines = file.read_text(encoding="utf-8-sig").splitlines() if file.exists() else []
    return any(_read(line) is None for line in map(_without_comment, lines) if line)


def _without_comment(line: str) -> str:
    text = "" if line.startswith("#") else line.partition(" #")[0]
    return text.partition(" --hash")[0].strip()


def _read(line: str) -> Requirement | None:
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def _is_met(line: str) -> bool:
    requirement = _read(line)
    if requirement is None or requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
