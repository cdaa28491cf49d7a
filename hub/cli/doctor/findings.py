"""What `hubbub doctor` finds, and how it is printed."""

from collections.abc import Iterable
from typing import Literal

import attrs
import click

from hub.cli.text import to_printable

Level = Literal["wrong", "advice", "ok"]
COLORS = {"wrong": "red", "advice": "yellow", "ok": "green"}


@attrs.frozen
class Finding:
    """One line of the doctor. *remedy* has the lines that fix it: commands, or lines of a file."""

    level: Level
    text: str
    remedy: str = ""


def count_problems(findings: Iterable[Finding]) -> int:
    """Return the number of findings that are wrong."""
    return sum(finding.level == "wrong" for finding in findings)


def print_findings(findings: Iterable[Finding]) -> int:
    """Print findings as they come, and return the number of those that are wrong."""
    problems = 0
    for finding in findings:
        problems += count_problems([finding])
        click.echo(f"{click.style(f'{finding.level:<7}', fg=COLORS[finding.level])} {_to_line(finding.text)}")
        for line in finding.remedy.splitlines():
            click.echo(f"        {click.style('->', bold=True)} {_to_line(line)}")
    return problems


def _to_line(text: str) -> str:
    return to_printable(" ".join(text.split()))
