"""What goes wrong between the hub and a model's endpoint, in words for the person who asked.

The code and the sentence go to clients. What else is known (the status, the endpoint's own code, the kind of the
exception) is added as a note for the hub's output. Of the endpoint's text nothing is taken: it may quote the key.
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

ERROR_BYTES = 64 * 1024  # read of an error's body
ERROR_SECONDS = 5.0
A_DAY_MS = 24 * 3600 * 1000
TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}  # OpenAI's and llama.cpp's names
NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}
CUT_OFF = "The model's answer broke off before its end."
# The HTTP status that says the same as a name in a stream.
STATUS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server_error": 503,
    "overloaded_error": 503,
    "unavailable_error": 503,
}
REFUSES_OPTIONS = (None, 400, 422)  # None: an error in a stream that names no status


class WrongAddress(AgentError):
    """Nothing at this address takes chat completions."""


class OptionRefused(AgentError):
    """The endpoint does not take the option of the request that *option* names."""

    option = ""


@attrs.frozen(kw_only=True)
class RequestFacts:
    """What the reader of an answer needs to know of the request: its path, its model, its options by their names."""

    path: str
    model: str
    options: frozenset[str]
    key_env: str


async def refusal(response: aiohttp.ClientResponse, request: RequestFacts) -> AgentError:
    """Return the error for an answer whose status is not 200."""
    status = response.status
    body = await _start_of_body(response)
    names = _names(body)
    error = _error(status, body, names, request, _retry_after_ms(response.headers))
    return _noted(error, f"HTTP {status}", *sorted(names))


def fault_of(document: dict[str, Any], event: str) -> Any:
    """Return what a document in an answer says of a failure, in each dialect; None where it says nothing of one."""
    choices = document.get("choices")
    for place in (document, *(choices if isinstance(choices, list) else ())):  # OpenRouter: in the choice, too
        if isinstance(place, dict) and place.get("error"):
            return place["error"]
    if event == "error" or document.get("object") == "error":  # DashScope; vLLM
        return document
    status = document.get("base_resp")  # MiniMax
    return status if isinstance(status, dict) and status.get("status_code") else None


def in_stream(fault: Any, request: RequestFacts) -> AgentError:
    """Return the error for a failure that came where a chunk should."""
    names = _names({"error": fault})
    numbers = (STATUS.get(name) or (int(name) if re.fullmatch("[45][0-9][0-9]", name) else None) for name in names)
    status = next(filter(None, numbers), None)
    return _noted(_error(status, fault, names, request, None), "in the stream", *sorted(names))


def _error(status: int | None, body: Any, names: set[str], request: RequestFacts, wait_ms: int | None) -> AgentError:
    return (
        _by_name(names)
        or _refused_option(status, body, request)
        or _missing_route(status, body, request)
        or _by_status(status, request, wait_ms)
    )


def _by_name(names: set[str]) -> AgentError | None:
    if names & TOO_LONG:
        return _too_long()
    return _no_quota() if names & NO_QUOTA else None


def _refused_option(status: int | None, body: Any, request: RequestFacts) -> AgentError | None:
    """Find the option that the error names: as its `param` (OpenAI), else somewhere in its text."""
    if status not in REFUSES_OPTIONS:
        return None
    error = body.get("error", body) if isinstance(body, dict) else body
    param = error.get("param") if isinstance(error, dict) else None
    text = param if isinstance(param, str) and param else json.dumps(body)
    # xAI writes `frequencyPenalty`; no other word may begin or end there, as in `max_completion_tokens`.
    patterns = {name: rf"(?<![a-z_]){name.replace('_', '_?')}(?![a-z_])" for name in request.options}
    places = {name: place.start() for name in patterns if (place := re.search(patterns[name], text, re.IGNORECASE))}
    if not places:
        return None
    error = OptionRefused(f"The model's endpoint refused the request (HTTP {status or 200}).", "model_refused")
    error.option = min(places, key=places.__getitem__)
    return error


def _missing_route(status: int | None, body: Any, request: RequestFacts) -> AgentError | None:
    """Tell a missing route from a missing model, which the error names; LM Studio names the route, with status 200."""
    text = json.dumps(body, ensure_ascii=False)
    if (status in (404, 405) and request.model not in text) or f"{request.path})" in text:
        return wrong_address()
    return None


def _by_status(status: int | None, request: RequestFacts, wait_ms: int | None) -> AgentError:
    if status is None:
        return _aborted("The model's endpoint failed while it answered.")
    if status in (401, 403):
        return AgentError(
            f"The model's endpoint did not accept the key: check {request.key_env}.", "model_unauthorized"
        )
    if status in (402, 413):
        return _no_quota() if status == 402 else _too_long()
    if status == 404:
        return AgentError(f"The endpoint has no model {request.model!r}: check the agent's `model`.", "model_refused")
    if status == 429:
        text = "The model gets too many requests: try again later."
        return AgentError(text, "model_rate_limited", retryable=True, retry_after_ms=wait_ms)
    if status >= 500 or status == 408:
        text = "The model is not available: try again later."
        return AgentError(text, "model_unavailable", retryable=True, retry_after_ms=wait_ms)
    if status < 400:
        return wrong_address()
    return AgentError(f"The model's endpoint refused the request (HTTP {status}).", "model_refused")


def lost(error: Exception, at: URL) -> AgentError:
    """Return the error for a connection that was not made, fell silent, broke, or brought something else.

    The address is noted without its query, which may hold a key; clients need not know it.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        found = AgentError(
            "The model's endpoint cannot be reached: the hub's output names its address.",
            "model_unreachable",
            retryable=True,
        )
    elif isinstance(error, TimeoutError):
        found = AgentError("The model's endpoint fell silent.", "model_timeout", retryable=True)
    else:
        found = _aborted(CUT_OFF)
    return _noted(found, type(error).__name__, f"at {at.with_query(None)}")


def cut_error() -> AgentError:
    """Return the error for a stream that ended before the answer did."""
    return _noted(_aborted(CUT_OFF), "no [DONE] and no finish_reason")


def abort_error(word: str) -> AgentError:
    """Return the error for an answer that the endpoint itself gave up; *word* is its `finish_reason`."""
    return _noted(_aborted(CUT_OFF), f"finish_reason {word}")


def wrong_address() -> AgentError:
    """Return the error for an address where something else answers."""
    text = "Nothing takes chat completions at the model's base URL: the hub's output names the addresses it tried."
    return WrongAddress(text, "model_refused")


def redirect_error(to: str) -> AgentError:
    """Return the error for a redirect that is not followed; *to* says to the operator what to do."""
    text = "The model's endpoint has moved: the hub's output says which base_url to write."
    return _noted(AgentError(text, "model_refused"), to)


def _aborted(message: str) -> AgentError:
    return AgentError(message, "model_aborted", retryable=True)


def _too_long() -> AgentError:
    return AgentError("The conversation is too long for the model: start a new session.", "model_refused")


def _no_quota() -> AgentError:
    return AgentError("The account at the model's endpoint has no quota left.", "model_rate_limited")


def _noted(error: AgentError, *facts: str) -> AgentError:
    error.add_note(", ".join(facts))
    return error


async def _start_of_body(response: aiohttp.ClientResponse) -> Any:
    body = b""
    try:
        async with asyncio.timeout(ERROR_SECONDS):
            async for part in response.content.iter_any():
                body += part
                if len(body) > ERROR_BYTES:
                    return None
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    except (RecursionError, TimeoutError, aiohttp.ClientError):
        return None


def _names(body: Any) -> set[str]:
    """Return what an error calls itself, where that looks like a name."""
    error = body.get("error", body) if isinstance(body, dict) else None
    values = [error.get(name) for name in ("code", "type", "status_code")] if isinstance(error, dict) else []
    return {str(value) for value in values if re.fullmatch(r"[a-z0-9_]{1,60}", str(value))}


def _retry_after_ms(headers: CIMultiDictProxy[str]) -> int | None:
    """Read Retry-After (RFC 9110, section 10.2.3: seconds or a date) and OpenAI's own header in milliseconds."""
    try:
        if "retry-after-ms" in headers:
            wait = float(headers["retry-after-ms"])
        else:
            wait = _seconds(headers.get("Retry-After", "")) * 1000
    except ValueError:
        return None
    return round(min(max(wait, 0), A_DAY_MS)) if math.isfinite(wait) else None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parsedate_to_datetime(text).timestamp() - time.time()
