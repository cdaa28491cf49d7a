"""What others have written, made fit to be shown: no control sequences, and Markdown in pieces that are whole."""

import re
from collections.abc import Iterator

import attrs

# C0 but for tab and newline, DEL, C1, and what turns the direction of text: a terminal would obey them.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def safe(text: str) -> str:
    """Return text that a terminal only shows: each control character as a sign for it, ESC as ␛."""
    return CONTROL.sub(_sign, text)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code == 13:
        return ""  # of a CRLF; alone it would go back and write over the line
    return chr(0x2400 + code) if code < 32 else "␡" if code == 127 else "\ufffd"


@attrs.define
class Blocks:
    """Cuts Markdown, as it grows, where a paragraph, list or fenced block has ended; nothing is lost or added.

    What `add` returned will not change any more, and can be printed for good; `rest` may still.
    """

    rest: str = ""

    def add(self, text: str) -> str:
        """Take more text; return the part that is whole now."""
        self.rest += text
        cut = 0
        for cut in self._cuts():
            pass
        done, self.rest = self.rest[:cut], self.rest[cut:]
        return done

    def _cuts(self) -> Iterator[int]:
        """Yield where a block begins: a line that is not indented, after a blank one, outside of fences."""
        fence, blank, at = "", False, 0
        for line in self.rest.splitlines(keepends=True):
            if not line.endswith("\n"):
                return  # it may become anything
            found = FENCE.match(line)
            if blank and not fence and line.strip() and not line[0].isspace() and not _item(line):
                yield at
            if found and not fence:
                fence = found[1]
            elif found and found[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            blank, at = not line.strip(), at + len(line)


def _item(line: str) -> bool:
    """Tell whether a line may go on with the list before it."""
    return re.match(r"([-*+]|\d{1,9}[.)])\s", line) is not None
