"""Read the tokens that an endpoint counted; a count that is not known is None, never 0."""

from collections.abc import Iterator
from typing import Any

import attrs

from hub.messages import Usage

INPUT = ("prompt_tokens", "input_tokens")
OUTPUT = ("completion_tokens", "output_tokens")
MOST = 2**53  # larger integers are not exact in JSON


def blocks(chunk: dict[str, Any]) -> Iterator[Any]:
    """Yield the places of a chunk that may hold its usage: OpenAI's, Groq's and Moonshot's."""
    yield chunk.get("usage")
    groq = chunk.get("x_groq")
    if isinstance(groq, dict):
        yield groq.get("usage")
    for choice in chunk.get("choices") or ():
        if isinstance(choice, dict):
            yield choice.get("usage")


def count(value: Any) -> int | None:
    """Return a number of tokens, written as an integer, a whole float or a string of these; None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 0 <= number <= MOST else None


@attrs.define
class Counts:
    """The last counts of a stream: some endpoints repeat them, growing, in each chunk, or begin with zeros."""

    input: int | None = None
    output: int | None = None

    def take(self, chunk: dict[str, Any]) -> None:
        """Read the usage of one chunk; what it leaves out stays as it was."""
        for block in blocks(chunk):
            if isinstance(block, dict):
                self.input = _first(block, INPUT, self.input)
                self.output = _first(block, OUTPUT, self.output)

    def usage(self) -> Usage | None:
        """Return what is known. No request has 0 tokens, so an input of 0 means that nobody counted."""
        output = self.output or (self.output if self.input else None)
        return Usage(self.input or None, output) if self.input or output is not None else None


def _first(block: dict[str, Any], names: tuple[str, ...], before: int | None) -> int | None:
    known = (number for name in names if (number := count(block.get(name))) is not None)
    return next(known, before)
