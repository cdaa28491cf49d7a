"""Meter the answers of agents: their texts, and the tokens that the agents report."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from hub.hosting.faults import is_count
from hub.messages import TOKEN_BYTES, Usage
from hub.messages.parts import ToolCallPart


def count_bytes(text: object) -> int:
    """Return the size of a text in UTF-8, with 3 bytes for a lone surrogate; or 0 for what is no text."""
    if not isinstance(text, str):  # agents can call each other with anything
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count_input_bytes(message: object, parts: Iterable[Mapping[str, Any]]) -> int:
    """Return the size of a message: of its text, and of the results of tool calls in its parts."""
    results = (part["content"] for part in parts if part["type"] == "tool_result")
    return count_bytes(message) + sum(map(count_bytes, results))


def count_call_bytes(calls: Iterable[ToolCallPart]) -> int:
    """Return the size of the names and the arguments of tool calls."""
    return sum(count_bytes(call.toolCallName) + count_bytes(call.arguments) for call in calls)


@attrs.frozen(kw_only=True)
class TokenCount:
    """Tokens that were used. *estimated* of them are an estimate, because the agent reported no number."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: int = 0

    def __add__(self, more: "TokenCount") -> "TokenCount":
        return TokenCount(
            input_tokens=self.input_tokens + more.input_tokens,
            output_tokens=self.output_tokens + more.output_tokens,
            estimated=self.estimated + more.estimated,
        )


def count_tokens(usage: object, input_bytes: int, output_bytes: int) -> TokenCount:
    """Return the tokens of an answer: those in *usage*, which an agent may have reported, or else an estimate."""
    reports = (usage.inputTokens, usage.outputTokens) if isinstance(usage, Usage) else (None, None)
    estimates = [-(-size // TOKEN_BYTES) for size in (input_bytes, output_bytes)]
    counts = [report if is_count(report) else None for report in reports]
    input_tokens, output_tokens = [
        estimate if count is None else count for count, estimate in zip(counts, estimates, strict=True)
    ]
    estimated = sum(estimate for count, estimate in zip(counts, estimates, strict=True) if count is None)
    return TokenCount(input_tokens=input_tokens, output_tokens=output_tokens, estimated=estimated)


@attrs.define(eq=False)
class Meter:
    """Measures one answer outside a session. *usage* is what its agent reported, or None."""

    agent_id: str
    input_bytes: int
    output_bytes: int = 0
    usage: object = None

    def count(self) -> TokenCount:
        """Return the tokens of the answer so far."""
        return count_tokens(self.usage, self.input_bytes, self.output_bytes)


@attrs.define(eq=False)
class AnswerMeters:
    """Measures the answers outside sessions that serve one message: the first one, and those that it calls."""

    _running: set[Meter] = attrs.Factory(set)
    _totals: dict[str, TokenCount] = attrs.Factory(dict)  # of the answers that have ended, by agent

    @contextmanager
    def measure(self, meter: Meter) -> Iterator[None]:
        """Within the context, the answer of *meter* runs."""
        self._running.add(meter)
        try:
            yield
        finally:
            self._running.remove(meter)
            self._totals[meter.agent_id] = self._totals.get(meter.agent_id, TokenCount()) + meter.count()

    def count(self) -> Mapping[str, TokenCount]:
        """Return the tokens so far, by agent."""
        totals = dict(self._totals)
        for meter in self._running:
            totals[meter.agent_id] = totals.get(meter.agent_id, TokenCount()) + meter.count()
        return totals
