"""Connect the commands of the terminal to a hub, read JSON over HTTP, and explain why no hub answers."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from hub.cli.failures import CommandFailed
from hub.cli.keys import find_key
from hub.cli.text import to_printable
from hub.client import Client, Closed, Unreachable, connect
from hub.client.addresses import http_url, public_url, websocket_url
from hub.errors import Unauthenticated
from hub.messages.codes import REVOKED_TOKEN, WRONG_TOKEN
from hub.settings import KEY_VARIABLE
from hub.text import cut, hide_passwords

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)


@asynccontextmanager
async def open_client(url: str) -> AsyncIterator[Client]:
    """Connect to a hub with one attempt. The context closes the client.

    Raises CommandFailed with the cause if the attempt fails.
    """
    client = connect(websocket_url(url), token=find_key(url), patience=0)
    try:
        await client.__aenter__()
    except (Unreachable, Closed) as error:
        await get_json(url, "/agents", limit=1)  # raises CommandFailed with the cause, if HTTP fails too
        raise CommandFailed(
            f"{public_url(url)} answers HTTP, but no WebSocket ({hide_passwords(error.message)}): "
            "if a proxy is in front of the hub, it must pass on the header `Upgrade`"
        ) from None
    try:
        yield client
    except CommandFailed:
        if client.code in (WRONG_TOKEN, REVOKED_TOKEN, 401):  # the key was valid at first
            raise CommandFailed(describe_missing_key(url, find_key(url))) from None
        raise
    finally:
        await client.close()


def choose_agent(client: Client, name: str | None) -> str:
    """Return the agent to chat with: *name*, else `main`, else the first agent that works, as in the console.

    Raises CommandFailed if the hub has no agent *name*. If *name* is None, raises CommandFailed if the hub has neither
    `main` nor an agent that works.
    """
    states = {str(agent["agentId"]): agent["status"] for agent in (client.welcome.agents if client.welcome else ())}
    working = [agent for agent, state in states.items() if state == "ok"]
    if name is not None and name not in states:
        raise CommandFailed(
            f"there is no agent {to_printable(name)}; there are: {to_printable(', '.join(working) or 'none')}"
        )
    if name is None and "main" not in states and not working:
        raise CommandFailed("this hub has no agent that works: put one into its agents folder")
    return name or ("main" if "main" in states else working[0])


@asynccontextmanager
async def report_losses(client: Client, say: Callable[[str], None]) -> AsyncIterator[None]:
    """While the context is open, call *say* when the connection is lost, and when the client has reconnected."""
    watch_task = asyncio.create_task(_watch(client, say))
    try:
        yield
    finally:
        watch_task.cancel()
        await asyncio.wait([watch_task])


async def _watch(client: Client, say: Callable[[str], None]) -> None:
    is_lost = False
    async for state in client.states():
        if state == "waiting" and not is_lost:
            is_lost = True
            say("the connection is lost; trying again")
        elif state == "live" and is_lost:
            is_lost = False
            say("connected again")


async def get_json(url: str, path: str, *, key: str | None = None, **query: Any) -> Any:
    """Return the JSON answer of a route of docs/api.md: see request_json()."""
    return await request_json("GET", url, path, key=key, params=query)


async def request_json(method: str, url: str, path: str, *, key: str | None = None, **options: Any) -> Any:
    """Return the JSON answer of a route of docs/api.md. *key* replaces the key of the hub that find_key() returns.

    Raises CommandFailed with the hub's own error, or with a text about the address and how to correct it.
    """
    return await _request(method, url, f"/api/v1{path}", key, "application/json", **options)


async def get_text(url: str, path: str) -> str:
    """Return the plain text at a path of a hub, such as /metrics. Raises CommandFailed as request_json() does."""
    text: str = await _request("GET", url, path, None, "text/plain")
    return text


async def _request(method: str, url: str, path: str, key: str | None, content_type: str, **options: Any) -> Any:
    is_new_key, key = key is not None, key if key is not None else find_key(url)
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    try:
        # If the address leads to another origin, aiohttp leaves the header out there.
        async with aiohttp.ClientSession(timeout=REQUEST_TIMEOUT, headers=headers) as http:
            async with http.request(method, http_url(url) + path, **options) as response:
                if response.ok and response.content_type == content_type:
                    return await (response.json() if content_type == "application/json" else response.text())
                body = await response.json() if response.content_type == "application/json" else None
                if isinstance(body, dict) and body.get("code") == Unauthenticated.code:
                    raise CommandFailed(_describe_401(url, key, response, is_new_key))
                if isinstance(body, dict) and "code" in body:
                    raise CommandFailed(str(body.get("error")))
                raise CommandFailed(_describe_foreign_response(public_url(url), response))
    except (aiohttp.ClientError, UnicodeError, ValueError, OSError) as error:
        raise CommandFailed(_describe_request_error(public_url(url), error)) from None


def _describe_401(url: str, key: str | None, response: aiohttp.ClientResponse, is_new_key: bool) -> str:
    """Return the error text for a 401 of a hub. After a redirect, the hub is at another address, and got no key."""
    if response.history:
        return describe_missing_key(str(response.url.origin()), None)
    if is_new_key:
        return (
            f"{public_url(url)} does not accept the key: it is wrong, expired or revoked; get another one from the "
            "operator, who makes it with: hubbub key create NAME"
        )
    return describe_missing_key(url, key)


def describe_missing_key(url: str, key: str | None) -> str:
    """Return the error text for a hub that refuses *key*, or that needs a key."""
    address = public_url(url)
    remedy = f"sign in with: hubbub login {address}"
    if key is not None and key == os.environ.get(KEY_VARIABLE, "").strip():
        return f"{address} does not accept the key in {KEY_VARIABLE}: correct the variable, or remove it and {remedy}"
    return f"{address} {'needs a key' if key is None else 'does not accept the key'}: {remedy}"


def _describe_foreign_response(address: str, response: aiohttp.ClientResponse) -> str:
    """Return the error text for a response of a proxy or of a server that is not a hub."""
    status = response.status
    if response.history:
        address = f"{address}, which leads to {public_url(str(response.url.origin()))},"
    if status == 401:
        return f"{address} asks for a name and a password (401): write the address as https://NAME:PASSWORD@HOST"
    if status == 403:
        return f"{address} refuses access from here (403): ask the people who run it"
    if status in (502, 503, 504):
        return f"{address} is a proxy that cannot reach its hub ({status}): start the hub, or try again later"
    reason = cut(response.reason or "", 80)
    return f"{address} is not a hub; it answers {status} {reason}: give the hub's address with --url"


def _describe_request_error(address: str, error: Exception) -> str:
    """Return the error text for a request that got no HTTP response."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "it cannot be checked")
        return (
            f"the certificate of {address} is not trusted ({reason}): if it is yours, set SSL_CERT_FILE to its issuer"
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return f"{address} does not speak TLS: if it speaks plain HTTP, write http://"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"there is no host {error.host}: give the hub's address with --url"
    if isinstance(error, TimeoutError):
        return f"{address} does not answer in time: try again later, or give another address with --url"
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)):
        return f"{address} is not the address of a hub: write one such as http://localhost:9527"
    if isinstance(error, aiohttp.ClientConnectorError):
        return (
            f"no hub answers at {address}: start one with `make run` or `hubbub serve`, or give its address with --url"
        )
    return (
        f"{address} does not answer as a hub: if it speaks TLS, write https://; else give the hub's address with --url"
    )
