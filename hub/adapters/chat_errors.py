"""What goes wrong between the hub and a model's endpoint, in words for the person who asked.

The code and the sentence go to clients. What else is known (the status, the endpoint's own code, the kind of the
exception) is added as a note for the hub's output. Of the endpoint's text nothing is taken: it may quote the key.
"""

import asyncio
import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from hub.errors import AgentError

ERROR_BYTES = 64 * 1024  # read of an error's body
ERROR_SECONDS = 5.0
A_DAY_MS = 24 * 3600 * 1000
TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}  # OpenAI's and llama.cpp's names
NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}
BUSY = {"rate_limit_exceeded", "rate_limit_error", "429"}
CUT_OFF = "The model's answer broke off before its end."
DOWN = {"server_error", "overloaded_error", "unavailable_error"}


async def refusal(response: aiohttp.ClientResponse, key_env: str, model: str) -> AgentError:
    """Return the error for an answer that is no stream."""
    status = response.status
    names = _names(await _start_of_body(response))
    error = _by_name(names) or _by_status(status, key_env, model, _retry_after_ms(response.headers))
    return _noted(error, f"HTTP {status}", *sorted(names))


def _by_status(status: int, key_env: str, model: str, wait_ms: int | None) -> AgentError:
    if status in (401, 403):
        return AgentError(f"The model's endpoint did not accept the key: check {key_env}.", "model_unauthorized")
    if status == 429:
        return AgentError(
            "The model gets too many requests: try again later.",
            "model_rate_limited",
            retryable=True,
            retry_after_ms=wait_ms,
        )
    if status >= 500 or status == 408:
        return AgentError(
            "The model is not available: try again later.", "model_unavailable", retryable=True, retry_after_ms=wait_ms
        )
    if status == 404:
        return AgentError(
            f"The endpoint has no model {model!r}, or its address is wrong: check the model and the base URL.",
            "model_refused",
        )
    if status == 413:
        return _too_long()
    if status < 400:
        return AgentError("What is at the model's base URL does not stream chat completions.", "model_refused")
    return AgentError(f"The model's endpoint refused the request (HTTP {status}).", "model_refused")


def in_stream(error: Any) -> AgentError:
    """Return the error for an `error` object that came where a chunk should."""
    names = _names({"error": error})
    found = _by_name(names)
    if found is None and names & BUSY:
        found = _by_status(429, "", "", None)
    if found is None and names & DOWN:
        found = _by_status(503, "", "", None)
    return _noted(found or _broken("The model's endpoint failed while it answered."), "in the stream", *sorted(names))


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
        found = _broken(CUT_OFF)
    return _noted(found, type(error).__name__, f"at {at.with_query(None)}")


def cut_off() -> AgentError:
    """Return the error for a stream that ended before the answer did."""
    return _noted(_broken(CUT_OFF), "no [DONE] and no finish_reason")


def _broken(message: str) -> AgentError:
    return AgentError(message, "model_stream_broken", retryable=True)


def _too_long() -> AgentError:
    return AgentError("The conversation is too long for the model: start a new session.", "model_refused")


def _by_name(names: set[str]) -> AgentError | None:
    if names & TOO_LONG:
        return _too_long()
    if names & NO_QUOTA:
        return AgentError("The account at the model's endpoint has no quota left.", "model_rate_limited")
    return None


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
        return msgspec.json.decode(body)
    except (ValueError, RecursionError, TimeoutError, aiohttp.ClientError):
        return None


def _names(body: Any) -> set[str]:
    """Return what an error calls itself: its `code` and `type`, where they look like names."""
    error = body.get("error") if isinstance(body, dict) else None
    found = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return {str(name) for name in found if re.fullmatch(r"[a-z0-9_]{1,60}", str(name))}


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
