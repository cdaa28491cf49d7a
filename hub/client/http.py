"""Requests to the HTTP API of the hub: for files, and for the log that a slow reader must read."""

import re
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any

import aiohttp
import attrs
import orjson

from hub.client.failures import ConnectionCut, Refusal
from hub.client.tokens import TokenSource
from hub.messages.codes import RETRYABLE

RequestBody = AsyncIterable[bytes] | bytes | None
REQUEST_SECONDS = 30.0  # for a request and its response, without a body of bytes
HTTP_CONNECT_SECONDS, HTTP_SILENCE_SECONDS = 10.0, 60.0  # for a body of bytes: no limit in all
SHORT_TIMEOUT = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
LONG_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=HTTP_CONNECT_SECONDS, sock_read=HTTP_SILENCE_SECONDS)


@attrs.frozen(repr=False)  # no repr: a traceback must not contain the token
class HttpApi:
    """The HTTP API beside the WebSocket at *url*, with the headers and the token of the client."""

    url: str
    headers: Mapping[str, str]
    tokens: TokenSource

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        make_body: Callable[[], RequestBody] = lambda: None,
        timeout: aiohttp.ClientTimeout = SHORT_TIMEOUT,
    ) -> bytes:
        """Send a request, and return the body of the response. A refused token is replaced once.

        Raises Refusal if the status is an error, and ConnectionCut if there is no response.
        """
        options: dict[str, Any] = {"params": params, "timeout": timeout}
        url = re.sub("^ws", "http", self.url.partition("?")[0].removesuffix("/ws")) + path
        try:
            async with aiohttp.ClientSession(headers=self.headers) as http:
                for is_last in (False, True):
                    token = self.tokens.current
                    fields = {**(headers or {}), **self.tokens.headers}
                    async with http.request(method, url, data=make_body(), headers=fields, **options) as response:
                        data = await response.read()
                        is_refused = response.status == 401 and not is_last and await self.tokens.replace(token)
                        if response.status >= 400 and not is_refused:
                            raise _make_refusal(response, data)
                        if not is_refused:
                            return data
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = f"no answer from the hub to {method} {path} ({error or 'no answer in time'}): try again"
            raise ConnectionCut("connection_cut", text, retryable=True) from error
        raise AssertionError("the second response is returned or raised")

    async def request_json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request, and return the JSON object of the response.

        Raises the errors of request(), and ConnectionCut if the response is not of a hub.
        """
        try:
            body = orjson.loads(await self.request(method, path, **options))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            text = f"the answer to {method} {path} is not from a hub: check the proxy in front of the hub"
            raise ConnectionCut("connection_cut", text, retryable=True)
        return body


def _make_refusal(response: aiohttp.ClientResponse, data: bytes) -> Refusal:
    """Return the error of the hub, or an error of this client for a response of a proxy or another server."""
    try:
        body = orjson.loads(data)
    except ValueError:
        body = None
    status, seconds = response.status, response.headers.get("Retry-After", "")
    retry_after_ms = int(seconds) * 1000 if seconds.isdecimal() else None
    is_retryable = status >= 500 or status == 429 or retry_after_ms is not None
    if isinstance(body, dict) and "code" in body:
        code = str(body["code"])
        is_retryable = is_retryable or code in RETRYABLE
        return Refusal(code, str(body.get("error")), retryable=is_retryable, retry_after_ms=retry_after_ms)
    text = f"the hub's address refuses {response.method} {response.url.path} (HTTP {status})"
    text += ", and the response is not from a hub: check the proxy in front of the hub"
    return Refusal(f"http_{status}", text, retryable=is_retryable, retry_after_ms=retry_after_ms)
