"""Extract text, reasoning and refusals from one choice of a chunk, in the dialect of each endpoint."""

from collections.abc import Iterator
from typing import Any, Literal

DeltaKind = Literal["text", "reasoning", "refusal"]

# The fields that may hold reasoning. The first one with text counts: some endpoints send the same text in two fields.
REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks")
# Prefixes of the types of reasoning parts: Mistral's `thinking`, OpenRouter's `reasoning.text` and others.
REASONING_TYPES = ("thinking", "reasoning", "redacted_thinking")
# The fields of a part, or of a detail of reasoning, that may hold its text.
PART_TEXT_FIELDS = ("text", "thinking", "summary", "content", "refusal")


def delta_of(choice: dict[str, Any], has_output: bool) -> dict[str, Any]:
    """Return the delta of a choice. If it is missing or empty, return the choice's `message`, or its `text`.

    Perplexity and MiniMax repeat all deltas in a complete `message`, so a `message` after the first output is ignored.
    Together repeats each delta as `text` in the same choice, so a `text` beside a delta is ignored, too.
    """
    delta, message = choice.get("delta"), choice.get("message")
    if isinstance(delta, dict) and delta:
        return delta
    if isinstance(message, dict):
        return {} if has_output else message
    return {"content": choice.get("text")}


def read_texts(delta: dict[str, Any]) -> Iterator[tuple[DeltaKind, str]]:
    """Yield the texts of a delta or message with their kinds: of the reasoning fields, the content and the refusal.

    A text may be empty.
    """
    yield "reasoning", next((text for name in REASONING_FIELDS if (text := text_of(delta.get(name)))), "")
    content = delta.get("content")
    for part in content if isinstance(content, list) else [content]:
        yield _kind_of(part), text_of(part)
    yield "refusal", text_of(delta.get("refusal"))


def _kind_of(part: Any) -> DeltaKind:
    part_type = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part_type, str):
        return "text"
    return "refusal" if part_type == "refusal" else "reasoning" if part_type.startswith(REASONING_TYPES) else "text"


def text_of(value: Any) -> str:
    """Return the text of a string, of a part, or of a list of strings, parts and lists. Other values have no text."""
    if isinstance(value, list):
        return "".join(map(text_of, value))
    if isinstance(value, dict):
        return next((text for name in PART_TEXT_FIELDS if (text := text_of(value.get(name)))), "")
    return value if isinstance(value, str) else ""
