"""Read the token counts of an endpoint; an unknown count is None, never 0."""

from collections.abc import Iterator
from typing import Any

import attrs

from hub.messages import Usage

INPUT_FIELDS = ("prompt_tokens", "input_tokens")
OUTPUT_FIELDS = ("completion_tokens", "output_tokens")
MAX_TOKEN_COUNT = 2**53  # larger integers are not exact in JSON


def usage_blocks(chunk: dict[str, Any]) -> Iterator[Any]:
    """Yield the values of a chunk that may be its usage.

    OpenAI sends the usage in the chunk, Groq in `x_groq`, and Moonshot in a choice.
    """
    yield chunk.get("usage")
    groq = chunk.get("x_groq")
    if isinstance(groq, dict):
        yield groq.get("usage")
    for choice in chunk.get("choices") or ():
        if isinstance(choice, dict):
            yield choice.get("usage")


def token_count(value: Any) -> int | None:
    """Return *value* as a number of tokens, or None if it is not a whole number from 0 to MAX_TOKEN_COUNT.

    *value* may be an integer, a float, or a string that holds one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 0 <= number <= MAX_TOKEN_COUNT else None


@attrs.define
class TokenCounts:
    """The latest counts of a stream. Some endpoints send growing counts in each chunk, or start with zeros."""

    input: int | None = None
    output: int | None = None

    def update(self, chunk: dict[str, Any]) -> None:
        """Read the usage of one chunk. A count that the chunk lacks stays as it was."""
        for block in usage_blocks(chunk):
            if isinstance(block, dict):
                self.input = _first_count(block, INPUT_FIELDS, self.input)
                self.output = _first_count(block, OUTPUT_FIELDS, self.output)

    def usage(self) -> Usage | None:
        """Return the known counts, or None if no count is known.

        Every request has input tokens, so an input of 0 is unknown. An output of 0 is unknown if the input is.
        """
        output = self.output or (self.output if self.input else None)
        return Usage(self.input or None, output) if self.input or output is not None else None


def _first_count(block: dict[str, Any], names: tuple[str, ...], default: int | None) -> int | None:
    counts = (number for name in names if (number := token_count(block.get(name))) is not None)
    return next(counts, default)
