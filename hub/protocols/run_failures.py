"""Runs without a complete answer, as errors with an HTTP status: one table for OpenAI's routes and those of the hub."""

import attrs

from hub.errors import RequiresAction
from hub.messages import OpenQuestion, RunOutcome
from hub.text import cut

QUESTION_LENGTH = 200  # of a question's text in the message of its error

# The stop reasons of runs that were stopped before their end, with the HTTP status and the error text for clients.
EARLY_ENDS: dict[str, tuple[int, str]] = {
    "timeout": (504, "the answer took longer than the hub allows: try again, or ask for less"),
    "cancelled": (499, "the answer was stopped before its end"),
    "aborted": (503, "the hub stopped before the end of the answer: try again"),
}
# The HTTP status by the code of an agent's error. All other errors of agents get 422, after which no client tries
# again.
AGENT_ERROR_STATUS: dict[str, int] = {
    "agent_broken": 503,
    "storage_unavailable": 503,
    "model_aborted": 502,
    "model_rate_limited": 429,
    "model_timeout": 504,
    "model_unavailable": 503,
    "model_unreachable": 502,
} | {reason: status for reason, (status, _) in EARLY_ENDS.items()}


@attrs.frozen
class RunFailure:
    """The error for a run without a complete answer."""

    status: int
    code: str
    message: str


def find_status(code: str) -> int:
    """Return the HTTP status for the code of an agent's error."""
    return AGENT_ERROR_STATUS.get(code, 422)


def find_failure(outcome: RunOutcome) -> RunFailure | None:
    """Return the error for a run that failed, was stopped, or asks a question; None if its answer is complete."""
    if outcome.error is not None:
        return RunFailure(find_status(outcome.error.code), outcome.error.code, outcome.error.message)
    if outcome.stopReason in EARLY_ENDS:
        status, message = EARLY_ENDS[outcome.stopReason]
        return RunFailure(status, outcome.stopReason, message)
    if outcome.interrupts:
        return make_question_failure(outcome.sessionId, outcome.interrupts[0])
    return make_dropped_failure() if outcome.stopReason is None else None


def make_question_failure(session_id: str, question: OpenQuestion) -> RunFailure:
    """Return the error for a run that asks a question, and so has no answer yet."""
    text = cut(question.message or question.reason, QUESTION_LENGTH, "…")
    message = f"the agent asks {text!r}: reply in session {session_id}, then the answer goes on"
    return RunFailure(RequiresAction.status, RequiresAction.code, message)


def make_dropped_failure() -> RunFailure:
    """Return the error for a repeated idempotency key whose answer retention has deleted."""
    text = "the hub no longer stores the answer to this message: send the message with another idempotency key"
    return RunFailure(422, "answer_gone", text)
