"""What an endpoint's `finish_reason` means here: the one table of these words."""

from typing import Literal

Reason = Literal["end_turn", "max_tokens", "refused", "tool_calls", "error"]

REASONS: dict[str, Reason] = {
    "stop": "end_turn",
    "eos": "end_turn",
    "eos_token": "end_turn",
    "end_turn": "end_turn",
    "stop_sequence": "end_turn",
    "complete": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "content_filter": "refused",
    "refusal": "refused",
    "safety": "refused",
    "sensitive": "refused",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "error": "error",
    "abort": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
}


def word_of(value: object) -> str:
    """Return the word of a `finish_reason`; empty for what says nothing yet.

    Gemini's endpoint writes `content_filter: SAFETY`, DashScope's the string `null`.
    """
    word = value.partition(":")[0].strip().lower() if isinstance(value, str) else ""
    return "" if word == "null" else word
