"""The documents and their examples: fenced blocks. The words after the opening fence identify a block."""

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
DOCS = {
    name: ROOT / "docs" / f"{name}.md"
    for name in (
        *("start", "agents", "project", "clients", "react", "copilotkit", "assistant-ui", "clients-python", "console"),
        *("operations", "api", "protocol", "stability", "architecture", "performance"),
    )
}
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [README, README_ZH, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.values()]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@attrs.frozen
class Block:
    """One fenced block. *info* has the words after the fence; *line* is the number of its first line."""

    info: tuple[str, ...]
    text: str
    page: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def value(self, name: str) -> str:
        return next(word.partition("=")[2] for word in self.info if word.startswith(f"{name}="))


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(tuple(match[1].split()), match[2], path.name, text.count("\n", 0, match.start()) + 1)
        for match in FENCE.finditer(text)
    ]


def of_kind(path: Path, *words: str) -> list[Block]:
    """Return the blocks whose info begins with *words*. `agent=` matches any agent."""
    return [block for block in blocks(path) if _fits(block.info, words)]


def pairs(path: Path, first: str, second: str) -> Iterator[tuple[Block, Block | None]]:
    """Yield each block of the first kind, together with the next block if that is of the second kind, else None."""
    page_blocks = blocks(path)
    for block, after in zip(page_blocks, [*page_blocks[1:], None]):
        if _fits(block.info, first.split()):
            yield block, after if after is not None and _fits(after.info, second.split()) else None


def _fits(info: tuple[str, ...], words: "tuple[str, ...] | list[str]") -> bool:
    return len(info) >= len(words) and all(
        have.startswith(want) if want.endswith("=") else have == want for have, want in zip(info, words)
    )


def rows(path: Path) -> list[list[str]]:
    """Return the rows of all tables of the page; a row is a list of cells."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
