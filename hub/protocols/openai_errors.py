"""Errors in the form of OpenAI's API, and what tells OpenAI's clients whether to repeat the request."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import attrs

from hub.errors import (
    AgentError,
    HubError,
    IdReused,
    PrincipalQuotaExceeded,
    ToolCallAnswered,
    ToolsUnsupported,
    Unauthenticated,
    UnknownAgent,
)
from hub.messages import OpenQuestion
from hub.messages.codes import RETRYABLE
from hub.protocols.extended import is_not_none
from hub.protocols.run_failures import AGENT_ERROR_STATUS, EARLY_ENDS, RunFailure

OPENAI_RETRY_MS = 1000
REPEATED_STATUSES = (408, 409, 429)  # after which clients repeat a request, and after all from 500 on
FINAL_STATUS = 422


class OpenAIError(Exception):
    """An error with OpenAI's body: `{"error": {"message", "type", "param", "code"}}`.

    After a *final* error, the same request fails again, so clients must not repeat it. *retry_ms* is the time after
    which the client may repeat the request.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        param: str | None = None,
        code: str | None = None,
        *,
        is_final: bool = True,
        retry_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.is_final, self.retry_ms = status, is_final, retry_ms
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def make_headers(self) -> Mapping[str, str]:
        """Return the headers about retries. Clients repeat most requests after 408, 409, 429 and 5xx."""
        if self.is_final:
            return {"x-should-retry": "false"}
        retry_ms = self.retry_ms if self.retry_ms is not None or self.status not in (429, 503) else OPENAI_RETRY_MS
        if retry_ms is None:
            return {}
        return {"Retry-After": str(max(1, ceil(retry_ms / 1000))), "retry-after-ms": str(retry_ms)}


def bad_request_error(message: str, param: str, code: str | None = None) -> OpenAIError:
    """Return the error for a wrong parameter of a request."""
    return OpenAIError(400, "invalid_request_error", message, param, code)


def openai_error_of(error: Exception) -> OpenAIError:
    """Convert a HubError, an AgentError or a TimeoutError to an OpenAIError. An OpenAIError is returned unchanged."""
    if isinstance(error, OpenAIError):
        return error
    if isinstance(error, HubError):
        return _convert_refusal(error)
    if isinstance(error, AgentError) and error.code not in EARLY_ENDS:
        return _convert_agent_error(error)
    return early_end_error(error.code if isinstance(error, AgentError) else "timeout")


def make_plain_error(status: int, message: str, code: str) -> OpenAIError:
    """Return the error for a request that the server refuses, such as one to an unknown path."""
    kind = "server_error" if status == 500 else "invalid_request_error"
    return OpenAIError(status, kind, message, None, code, is_final=code not in RETRYABLE)


def _convert_refusal(error: HubError) -> OpenAIError:
    message = error.message
    if isinstance(error, UnknownAgent):
        return OpenAIError(404, "invalid_request_error", message, "model", "model_not_found")
    if isinstance(error, Unauthenticated):
        return OpenAIError(401, "invalid_request_error", message, None, "invalid_api_key")
    if isinstance(error, PrincipalQuotaExceeded):
        return OpenAIError(429, "insufficient_quota", message, None, error.code)
    if isinstance(error, (IdReused, ToolCallAnswered)):  # not 409, after which clients repeat the request
        return OpenAIError(422, "invalid_request_error", message, None, error.code)
    if isinstance(error, ToolsUnsupported):
        return bad_request_error(message, "tool_choice", error.code)
    kind = "rate_limit_error" if error.status == 429 else "invalid_request_error"
    kind = kind if error.status < 500 else "server_error"
    retry_ms = error.fields.get("retryAfterMs")
    is_final = error.code not in RETRYABLE and retry_ms is None
    return OpenAIError(error.status, kind, message, None, error.code, is_final=is_final, retry_ms=retry_ms)


def _convert_agent_error(error: AgentError) -> OpenAIError:
    # Clients try again after most of these statuses, but never after 422.
    status = AGENT_ERROR_STATUS.get(error.code, 503) if error.retryable else FINAL_STATUS
    kind = "rate_limit_error" if status == 429 else "server_error"
    is_final, retry_ms = not error.retryable, error.retry_after_ms
    return OpenAIError(status, kind, error.message, None, error.code, is_final=is_final, retry_ms=retry_ms)


def early_end_error(reason: str) -> OpenAIError:
    """Return the error for a stop reason of EARLY_ENDS. Only an answer that the hub itself aborted is worth a retry."""
    status, message = EARLY_ENDS[reason]
    return OpenAIError(status, "server_error", message, None, reason, is_final=reason != "aborted")


def make_final(error: Exception) -> OpenAIError:
    """Convert an error as openai_error_of() does, into one after which no client repeats the request.

    The AI SDK decides by the status alone, so the error gets FINAL_STATUS if clients repeat a request after its status.
    """
    openai_error = openai_error_of(error)
    openai_error.is_final = True
    if openai_error.status in REPEATED_STATUSES or openai_error.status >= 500:
        openai_error.status = FINAL_STATUS
    return openai_error


def convert_failure(failure: RunFailure, questions: Sequence[OpenQuestion] = (), **details: str) -> OpenAIError:
    """Return the final error for a run in a session. If there are *questions*, the error has them and the *details*."""
    kinds = {409: "invalid_request_error", 429: "rate_limit_error"}
    kind = "invalid_request_error" if failure.code == "answer_gone" else kinds.get(failure.status, "server_error")
    error = OpenAIError(failure.status, kind, failure.message, None, failure.code)
    if questions:
        interrupts = [attrs.asdict(question, filter=is_not_none) for question in questions]
        error.body["error"] |= {**details, "interrupts": interrupts}
    return make_final(error)
