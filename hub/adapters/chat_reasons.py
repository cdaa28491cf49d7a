"""Map the words that endpoints send as `finish_reason` to the reasons of the hub. Only this module lists the words."""

from typing import Literal

EndReason = Literal["end_turn", "max_tokens", "refused", "tool_calls", "error"]

END_REASONS: dict[str, EndReason] = {
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


def normalize_reason(value: object) -> str:
    """Return a `finish_reason` in lower case, without details; empty if the choice has not ended.

    Gemini's endpoint sends `content_filter: SAFETY`, and DashScope's sends the string `null`.
    """
    word = value.partition(":")[0].strip().lower() if isinstance(value, str) else ""
    return "" if word == "null" else word
