"""Clean the values of agents for spans: short, in valid UTF-8, and no content in place of a name."""

import re

import attrs

from hub.text import replace_surrogates

MAX_TEXT_LENGTH = 16_384  # characters of a message, an answer, or the arguments or the result of a tool
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")


def clean_name(value: object) -> str:
    """Return a name, such as that of a tool. Return "" for any other value, which may be text of a model."""
    return value if isinstance(value, str) and NAME_PATTERN.fullmatch(value) else ""


def clean_text(text: str) -> str:
    """Return the beginning of a text, in valid UTF-8."""
    return replace_surrogates(text[:MAX_TEXT_LENGTH])


@attrs.define(eq=False)
class BoundedText:
    """Joins pieces of a text, and drops what is after MAX_TEXT_LENGTH."""

    _pieces: list[str] = attrs.Factory(list)
    _length: int = 0

    def add(self, text: str) -> None:
        """Append a piece."""
        if self._length < MAX_TEXT_LENGTH:
            self._pieces.append(text)
            self._length += len(text)

    def join(self) -> str:
        """Return the beginning of the text, in valid UTF-8."""
        return clean_text("".join(self._pieces))
