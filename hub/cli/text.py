"""Make text safe for a terminal, and split growing Markdown into complete blocks."""

import json
import re
from collections.abc import Iterator

import attrs

# A terminal obeys these characters: C0 (without tab and newline), DEL, C1, and signs that change the direction of
# text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def to_printable(text: str) -> str:
    """Replace each control character by a visible sign that a terminal does not obey, such as ␛ for ESC. Remove CRs."""
    return CONTROL.sub(_visible_sign, text)


def _visible_sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 13:
        return ""  # a CR is part of CRLF; a single CR would overwrite the line
    return chr(0x2400 + code) if code < 32 else "␡" if code == 127 else "\ufffd"


@attrs.define
class BlockSplitter:
    """Splits growing Markdown after each paragraph, list and fenced block; no text is lost or added.

    Text that add() has returned is final, and can be printed. *rest* may still change.
    """

    rest: str = ""

    def add(self, text: str) -> str:
        """Append text; return the blocks that are complete now."""
        self.rest += text
        end = max(self._block_starts(), default=0)
        blocks, self.rest = self.rest[:end], self.rest[end:]
        return blocks

    def _block_starts(self) -> Iterator[int]:
        """Yield the offset of each block except the first.

        The first line of such a block is outside fences, follows a blank line, is not indented, and is no list item.
        """
        fence, is_blank, offset = "", False, 0
        for line in self.rest.splitlines(keepends=True):
            if not line.endswith("\n"):
                return  # an unfinished line may become anything
            match = FENCE.match(line)
            if is_blank and not fence and line.strip() and not line[0].isspace() and not _is_item(line):
                yield offset
            if match and not fence:
                fence = match[1]
            elif match and match[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            is_blank, offset = not line.strip(), offset + len(line)


def _is_item(line: str) -> bool:
    """Return whether a line is a list item. A list item may belong to the list before it."""
    return re.match(r"([-*+]|\d{1,9}[.)])\s", line) is not None


def to_printable_json(value: object, indent: int | None = 2) -> str:
    """Return a value as JSON, in which control characters are escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
