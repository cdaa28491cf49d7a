"""The output of `hubbub doctor`."""

from pathlib import Path
from typing import Any

import attrs
from support.process import CommandOutput, run_hubbub

from hub.cli.doctor.findings import Finding

END = "nothing to fix"


@attrs.frozen
class Report:
    """The output of the doctor: its findings, and its exit code."""

    code: int
    findings: tuple[Finding, ...]

    def find(self, fragment: str) -> Finding:
        """Return the finding whose text has *fragment*."""
        (finding,) = [finding for finding in self.findings if fragment in finding.text]
        return finding

    @property
    def problems(self) -> list[str]:
        return [finding.text for finding in self.findings if finding.level == "wrong"]


def read_report(output: CommandOutput) -> Report:
    findings: list[Finding] = []
    for line in output.out.splitlines()[:-1]:
        level, _, text = line.partition(" ")
        if line.startswith("        -> "):
            remedy = "\n".join(filter(None, [findings[-1].remedy, line.removeprefix("        -> ")]))
            findings[-1] = attrs.evolve(findings[-1], remedy=remedy)
        else:
            findings.append(Finding(level, text.strip()))  # type: ignore[arg-type]
    report = Report(output.code, tuple(findings))
    assert (output.code, output.err) == (1 if report.problems else 0, ""), output
    assert output.out.splitlines()[-1] == (f"{len(report.problems)} to fix" if report.problems else END)
    return report


async def examine(folder: Path, *arguments: str, **variables: Any) -> Report:
    return read_report(await run_hubbub(folder, "doctor", *arguments, **variables))
