"""Turn failures of a model's endpoint into errors for the person who chats.

The code and the message of an error go to clients. Details for the operator (the HTTP status, the endpoint's own error
code, the type of the exception) are added with add_note(), and go to the hub's output. The endpoint's own message goes
neither to clients nor to the output, because it may quote the key.
"""

import asyncio
import json
import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import attrs
from multidict import CIMultiDictProxy
from yarl import URL

from hub.errors import AgentError

MAX_ERROR_BODY_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 5.0
MAX_RETRY_AFTER_MS = 24 * 3600 * 1000
TOO_LONG_NAMES = {"context_length_exceeded", "exceed_context_size_error"}  # the names of OpenAI and of llama.cpp
NO_QUOTA_NAMES = {"insufficient_quota", "billing_hard_limit_reached"}
TRUNCATED_MESSAGE = "The model's answer broke off before its end: try again."
# For each name of an error in a stream, the HTTP status with the same meaning.
STATUS_BY_NAME = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server_error": 503,
    "overloaded_error": 503,
    "unavailable_error": 503,
}
OPTION_REFUSED_STATUSES = (None, 400, 422)  # None: the endpoint sent the error in a stream, without a status


class WrongAddress(AgentError):
    """Nothing at the URL serves chat completions."""


class OptionRefused(AgentError):
    """The endpoint refused the request because of *option*."""

    option = ""


@attrs.frozen(kw_only=True)
class RequestFacts:
    """The facts about a request that decide the class and the text of its error.

    *path* is the path of the URL. *options* are the names of the options in the request. *key_env* is the name of the
    environment variable that holds the key.
    """

    path: str
    model: str
    options: frozenset[str]
    key_env: str


async def response_error(response: aiohttp.ClientResponse, request: RequestFacts) -> AgentError:
    """Return the error for a response whose status is not 200."""
    status = response.status
    body = await _read_error_body(response)
    names = _error_names(body)
    error = _choose_error(status, body, names, request, _retry_after_ms(response.headers))
    return _with_note(error, f"HTTP {status}", *sorted(names))


def find_error(document: dict[str, Any], event_name: str) -> Any:
    """Return the error in a JSON document of a stream, or None. Each endpoint has its own form of an error."""
    choices = document.get("choices")
    for source in (document, *(choices if isinstance(choices, list) else ())):  # OpenRouter: also in a choice
        if isinstance(source, dict) and source.get("error"):
            return source["error"]
    if event_name == "error" or document.get("object") == "error":  # DashScope; vLLM
        return document
    status = document.get("base_resp")  # MiniMax
    return status if isinstance(status, dict) and status.get("status_code") else None


def stream_error(endpoint_error: Any, request: RequestFacts) -> AgentError:
    """Return the AgentError for an error that the endpoint sent inside a stream."""
    names = _error_names({"error": endpoint_error})
    statuses = (
        STATUS_BY_NAME.get(name) or (int(name) if re.fullmatch("[45][0-9][0-9]", name) else None) for name in names
    )
    status = next(filter(None, statuses), None)
    error = _choose_error(status, endpoint_error, names, request, None)
    return _with_note(error, "in the stream", *sorted(names))


def _choose_error(
    status: int | None, body: Any, names: set[str], request: RequestFacts, retry_after_ms: int | None
) -> AgentError:
    return (
        _error_by_name(names)
        or _error_by_option(status, body, request)
        or _error_by_route(status, body, request)
        or _error_by_status(status, request, retry_after_ms)
    )


def _error_by_name(names: set[str]) -> AgentError | None:
    if names & TOO_LONG_NAMES:
        return _too_long_error()
    return _no_quota_error() if names & NO_QUOTA_NAMES else None


def _error_by_option(status: int | None, body: Any, request: RequestFacts) -> AgentError | None:
    """Return OptionRefused if the endpoint refused an option of the request, else None.

    OpenAI names the option in `param`. Other endpoints name it anywhere in the body; the first name counts.
    """
    if status not in OPTION_REFUSED_STATUSES:
        return None
    error = body.get("error", body) if isinstance(body, dict) else body
    param = error.get("param") if isinstance(error, dict) else None
    text = param if isinstance(param, str) and param else json.dumps(body)
    # xAI writes `frequencyPenalty`. `max_tokens_to_sample` does not name `max_tokens`.
    patterns = {name: rf"(?<![a-z_]){name.replace('_', '_?')}(?![a-z_])" for name in request.options}
    offsets = {name: match.start() for name in patterns if (match := re.search(patterns[name], text, re.IGNORECASE))}
    if not offsets:
        return None
    option = min(offsets, key=offsets.__getitem__)
    refusal = OptionRefused(f"The model's endpoint refused `{option}`: leave it out, or change it.", "model_refused")
    refusal.option = option
    return refusal


def _error_by_route(status: int | None, body: Any, request: RequestFacts) -> AgentError | None:
    """Return WrongAddress if the endpoint has no such route, else None.

    A 404 whose body has the name of the model means a missing model. For a missing route, LM Studio sends status 200
    and a text that names the route.
    """
    text = json.dumps(body, ensure_ascii=False)
    if (status in (404, 405) and request.model not in text) or f"{request.path})" in text:
        return wrong_address_error()
    return None


def _error_by_status(status: int | None, request: RequestFacts, retry_after_ms: int | None) -> AgentError:
    if status is None:
        return _aborted_error("The model's endpoint failed during the answer: try again.")
    if status in (401, 403):
        text = f"The model's endpoint rejected the key: check the environment variable {request.key_env}."
        return AgentError(text, "model_unauthorized")
    if status in (402, 413):
        return _no_quota_error() if status == 402 else _too_long_error()
    if status == 404:
        text = f"The model's endpoint has no model {request.model!r}: check `model` in the agent's file."
        return AgentError(text, "model_refused")
    if status == 429:
        text = "The model gets too many requests: try again later."
        return AgentError(text, "model_rate_limited", retryable=True, retry_after_ms=retry_after_ms)
    if status >= 500 or status == 408:
        text = "The model is not available: try again later."
        return AgentError(text, "model_unavailable", retryable=True, retry_after_ms=retry_after_ms)
    return wrong_address_error() if status < 400 else AgentError(_refused_message(status), "model_refused")


def connection_error(error: Exception, url: URL) -> AgentError:
    """Return the error for a connection that failed, timed out, broke, or sent invalid data.

    The note has the type of *error*, and the URL without its query, because a query may hold a key.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        text = "The model's endpoint cannot be reached: the hub's output names its address."
        result = AgentError(text, "model_unreachable", retryable=True)
    elif isinstance(error, TimeoutError):
        text = "The model's endpoint was silent for too long: try again, or raise `timeout` in the agent's file."
        result = AgentError(text, "model_timeout", retryable=True)
    else:
        result = _aborted_error(TRUNCATED_MESSAGE)
    return _with_note(result, type(error).__name__, f"at {url.with_query(None)}")


def truncated_error() -> AgentError:
    """Return the error for a stream that ended before the answer was complete."""
    return _with_note(_aborted_error(TRUNCATED_MESSAGE), "no [DONE] and no finish_reason")


def abort_error(reason: str) -> AgentError:
    """Return the error for an answer that the endpoint itself aborted; *reason* is its `finish_reason`."""
    return _with_note(_aborted_error(TRUNCATED_MESSAGE), f"finish_reason {reason}")


def wrong_address_error() -> AgentError:
    """Return the error for a URL that does not serve chat completions."""
    text = "Nothing at the model's base URL serves chat completions: the hub's output lists the URLs that were tried."
    return WrongAddress(text, "model_refused")


def redirect_error(advice: str) -> AgentError:
    """Return the error for a redirect that is not followed; *advice* is for the operator."""
    text = "The model's endpoint has moved: the hub's output says which base_url to write."
    return _with_note(AgentError(text, "model_refused"), advice)


def _aborted_error(message: str) -> AgentError:
    return AgentError(message, "model_aborted", retryable=True)


def _too_long_error() -> AgentError:
    return AgentError("The conversation is too long for the model: start a new session.", "model_refused")


def _no_quota_error() -> AgentError:
    text = "The account at the model's endpoint has no quota left: raise its limit, or use another key."
    return AgentError(text, "model_rate_limited")


def _refused_message(status: int) -> str:
    return f"The model's endpoint refused the request (HTTP {status}): the hub's output has the endpoint's error code."


def _with_note(error: AgentError, *details: str) -> AgentError:
    error.add_note(", ".join(details))
    return error


async def _read_error_body(response: aiohttp.ClientResponse) -> Any:
    body = b""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            async for part in response.content.iter_any():
                body += part
                if len(body) > MAX_ERROR_BODY_BYTES:
                    return None
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    except (RecursionError, TimeoutError, aiohttp.ClientError):
        return None


def _error_names(body: Any) -> set[str]:
    """Return the values of `code`, `type` and `status_code` in an error, if they look like a name or a number."""
    error = body.get("error", body) if isinstance(body, dict) else None
    values = [error.get(name) for name in ("code", "type", "status_code")] if isinstance(error, dict) else []
    return {str(value) for value in values if re.fullmatch(r"[a-z0-9_]{1,60}", str(value))}


def _retry_after_ms(headers: CIMultiDictProxy[str]) -> int | None:
    """Return the wait that the headers ask for, at most MAX_RETRY_AFTER_MS, or None if they ask for no valid wait.

    OpenAI's header `retry-after-ms` comes first. Retry-After holds seconds or a date (RFC 9110, section 10.2.3).
    """
    try:
        if "retry-after-ms" in headers:
            wait_ms = float(headers["retry-after-ms"])
        else:
            wait_ms = _seconds(headers.get("Retry-After", "")) * 1000
    except ValueError:
        return None
    return round(min(max(wait_ms, 0), MAX_RETRY_AFTER_MS)) if math.isfinite(wait_ms) else None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parsedate_to_datetime(text).timestamp() - time.time()
