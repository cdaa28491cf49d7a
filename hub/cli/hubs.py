"""Find a hub for the terminal, ask it over HTTP, and explain the failure if no hub answers."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from hub.cli.failures import CommandFailed
from hub.cli.text import to_printable
from hub.client import Client, Closed, Unreachable, connect
from hub.text import cut, hide_passwords

TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)


def http_url(url: str) -> str:
    """Return the HTTP address of a hub; *url* is that address, or the one of its WebSocket. A password stays in it."""
    plain = re.sub("^ws", "http", url if "://" in url else f"http://{url}").partition("?")[0].rstrip("/")
    return plain.removesuffix("/api/v1/ws").removesuffix("/api/v1")


def public_url(url: str) -> str:
    """Return the HTTP address of a hub, without a password, to be shown to people."""
    return http_url(hide_passwords(url if "://" in url else f"http://{url}"))


def websocket_url(url: str) -> str:
    return re.sub("^http", "ws", http_url(url)) + "/api/v1/ws"


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Client]:
    """Connect with one try, and close at the end; raises CommandFailed with the reason."""
    client = connect(websocket_url(url), patience=0)
    try:
        await client.__aenter__()
    except (Unreachable, Closed) as error:
        await get(url, "/agents", limit=1)  # raises an error that names the cause
        raise CommandFailed(
            f"{public_url(url)} answers HTTP, but no WebSocket ({hide_passwords(error.message)}): "
            "if a proxy is in front of the hub, it must pass on the header `Upgrade`"
        ) from None
    try:
        yield client
    finally:
        await client.close()


def choose_agent(client: Client, name: str | None) -> str:
    """Return the agent to chat with: the named one, else `main`, else the first that works, as the console does."""
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
    """Call *say* inside the context when the connection is lost, and when the client has reconnected."""
    watching = asyncio.create_task(_watch(client, say))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(client: Client, say: Callable[[str], None]) -> None:
    is_lost = False
    async for state in client.states():
        if state == "waiting" and not is_lost:
            is_lost = True
            say("the connection is lost; trying again")
        elif state == "live" and is_lost:
            is_lost = False
            say("connected again")


async def get(url: str, path: str, **query: Any) -> Any:
    """Return the JSON answer of a route of docs/api.md.

    Raises CommandFailed with the hub's own error, or with a text about the address and how to correct it.
    """
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            async with http.get(f"{http_url(url)}/api/v1{path}", params=query) as response:
                if response.content_type == "application/json":
                    body = await response.json()
                    if response.status == 200:
                        return body
                    if isinstance(body, dict) and "code" in body:
                        raise CommandFailed(str(body.get("error")))
                raise CommandFailed(_not_a_hub(public_url(url), response))
    except (aiohttp.ClientError, UnicodeError, ValueError, OSError) as error:
        raise CommandFailed(_no_answer(public_url(url), error)) from None


def _not_a_hub(address: str, response: aiohttp.ClientResponse) -> str:
    """Return the error for an answer that does not come from a hub, but from a proxy or another server."""
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


def _no_answer(address: str, error: Exception) -> str:
    """Return the error for a request that got no HTTP response."""
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
