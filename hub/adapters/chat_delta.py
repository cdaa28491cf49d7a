"""What one choice of a chunk says, in each dialect: text, thoughts, refusals."""

from collections.abc import Iterator
from typing import Any, Literal

Channel = Literal["text", "thought", "refusal"]

# Where a model's thoughts stand: the first name that holds text counts, as some endpoints say the same under two.
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks")
# How the types of parts begin that are thoughts: Mistral's `thinking`, OpenRouter's `reasoning.text` and others.
THINKING = ("thinking", "reasoning", "redacted_thinking")
# The text of a part, or of a detail of reasoning.
TEXTS = ("text", "thinking", "summary", "content", "refusal")


def turn_of(choice: dict[str, Any], has_spoken: bool) -> dict[str, Any]:
    """Return what holds the text of a choice.

    A whole `message` beside or after deltas repeats them (Perplexity, MiniMax), and so does a `text` beside a delta
    (Together).
    """
    delta, message = choice.get("delta"), choice.get("message")
    if isinstance(delta, dict) and delta:
        return delta
    if isinstance(message, dict):
        return {} if has_spoken else message
    return {"content": choice.get("text")}


def texts_of(turn: dict[str, Any]) -> Iterator[tuple[Channel, str]]:
    """Yield the pieces of a delta or message, thoughts first."""
    yield "thought", next((text for name in THOUGHTS if (text := text_of(turn.get(name)))), "")
    content = turn.get("content")
    for part in content if isinstance(content, list) else [content]:
        yield _channel(part), text_of(part)
    yield "refusal", text_of(turn.get("refusal"))


def _channel(part: Any) -> Channel:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return "text"
    return "refusal" if kind == "refusal" else "thought" if kind.startswith(THINKING) else "text"


def text_of(value: Any) -> str:
    """Return the text of a string, of a part, or of a list of these, however deep."""
    if isinstance(value, list):
        return "".join(map(text_of, value))
    if isinstance(value, dict):
        return next((text for name in TEXTS if (text := text_of(value.get(name)))), "")
    return value if isinstance(value, str) else ""
