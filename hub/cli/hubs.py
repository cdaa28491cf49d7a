"""How the terminal finds a hub, asks it over HTTP, and says what is wrong where none answers."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from hub.cli.failures import CommandFailed
from hub.client import Client, Closed, Unreachable, connect
from hub.text import cut, without_password

TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)


def base(url: str) -> str:
    """Return the HTTP address of a hub that was named by it, or by its WebSocket's; with a password, if it has one."""
    plain = re.sub("^ws", "http", url if "://" in url else f"http://{url}").partition("?")[0].rstrip("/")
    return plain.removesuffix("/api/v1/ws").removesuffix("/api/v1")


def shown(url: str) -> str:
    """Return the HTTP address of a hub as people may see it."""
    return base(without_password(url if "://" in url else f"http://{url}"))


def socket(url: str) -> str:
    return re.sub("^http", "ws", base(url)) + "/api/v1/ws"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    """Connect, with one try: who sits before a terminal wants to know."""
    client = connect(socket(url), patience=0)
    try:
        await client.__aenter__()
    except (Unreachable, Closed) as refused:
        await get(url, "/agents", limit=1)  # this says better what is wrong
        raise CommandFailed(
            f"{shown(url)} answers, but takes no WebSocket: {without_password(refused.message)}. "
            "A proxy before the hub must pass on `Upgrade`"
        ) from None
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def watched(client: Client, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Tell meanwhile when the connection is lost, and when it is there again."""
    watching = asyncio.create_task(_watch(client, say))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(client: Client, say: Callable[[str], None]) -> None:
    lost = False
    async for state in client.states():
        if state == "waiting" and not lost:
            lost = True
            say("the connection is lost; trying again")
        elif state == "live" and lost:
            lost = False
            say("connected again")


async def get(url: str, path: str, **query: Any) -> Any:
    """Return what a route of docs/api.md answers; raises CommandFailed with the hub's own words, or what to do."""
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            async with http.get(f"{base(url)}/api/v1{path}", params=query) as response:
                if response.content_type == "application/json":
                    said = await response.json()
                    if response.status == 200:
                        return said
                    if isinstance(said, dict) and "code" in said:
                        raise CommandFailed(str(said.get("error")))
                raise CommandFailed(_not_a_hub(shown(url), response))
    except (aiohttp.ClientError, UnicodeError, ValueError, OSError) as error:
        raise CommandFailed(_no_answer(shown(url), error)) from None


def _not_a_hub(where: str, response: aiohttp.ClientResponse) -> str:
    """Say what to do about an answer that is not a hub's: it comes from a proxy, or from another server."""
    status = response.status
    if response.history:
        where = f"{where}, which leads to {shown(str(response.url.origin()))},"
    if status == 401:
        return f"{where} wants a name and a password: name the hub as https://NAME:PASSWORD@HOST (401)"
    if status == 403:
        return f"{where} lets nobody in from here (403): ask who runs it"
    if status in (502, 503, 504):
        return f"{where} is a proxy that does not reach its hub ({status}): start the hub, or try again later"
    return f"{where} is not a hub: it answers {status} {cut(response.reason or '', 80)}. - name the hub: --url"


def _no_answer(where: str, error: Exception) -> str:
    """Say what to do where nothing of HTTP came back."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "it cannot be checked")
        return f"the certificate of {where} is not trusted ({reason}): if it is yours, name its issuer in SSL_CERT_FILE"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"{where} does not speak TLS as https:// wants it: if it is plain, write http://"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"there is no host {error.host}: name the hub: --url"
    if isinstance(error, TimeoutError):
        return f"{where} does not answer in time: try again later, or name another hub: --url"
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)):
        return f"{where} is no address of a hub: write it as in http://localhost:9527"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no hub answers at {where}: start one with `make run` or `hubbub serve`, or name it: --url"
    return f"{where} does not speak as a hub does: if it speaks TLS, write https://; else name the hub: --url"
