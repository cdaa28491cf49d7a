"""Browsers behind a trusted proxy that names neither the scheme nor the Host of its clients, as nginx by default."""

import aiohttp
import pytest
from support.hub import Hub

from hub.access.principal import OPERATOR
from hub.commands import table as commands

ORIGIN = "https://hub.example.com:8443"
SETTINGS = {"sign_in": True, "public_url": ORIGIN}


async def sign_in(hub: Hub, origin: str, **headers: str) -> tuple[int, str]:
    """Sign in as a page of *origin*; return the status and the cookie."""
    link = await commands.invite_person(hub.door, OPERATOR, "Ann")
    headers = {"Origin": origin} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession(headers=headers) as http:
        body = {"token": link.partition("#")[2]}
        async with http.post(f"{hub.url}/api/v1/sign-in", json=body) as response:
            return response.status, response.headers.get("Set-Cookie", "")


async def get_status(hub: Hub, cookie: str, path: str = "/api/v1/me", **headers: str) -> int:
    async with aiohttp.ClientSession(headers={"Cookie": cookie} | headers) as http:
        async with http.get(f"{hub.url}{path}", allow_redirects=False) as response:
            return response.status


async def test_a_page_of_the_public_address_gets_a_secure_cookie(hub: Hub) -> None:
    """The browser sends it with the requests of its pages, and when it opens a page, without an Origin."""
    hub.options = SETTINGS | {"trusted_proxies": ("127.0.0.1",)}
    await hub.start()
    status, cookie = await sign_in(hub, ORIGIN)
    assert status == 200 and cookie.startswith("__Host-hubbub=") and "Secure" in cookie
    pair = cookie.partition(";")[0]
    assert await get_status(hub, pair, Origin=ORIGIN) == 200
    assert await get_status(hub, pair) == 200
    assert await get_status(hub, pair, "/") == 200
    client = await hub.connect(extended=True, headers={"Origin": ORIGIN, "Cookie": pair})
    assert client.frames[0]["principal"]["name"] == "Ann"


@pytest.mark.parametrize("origin", ["http://hub.example.com:8443", "https://hub.example.com", "https://evil.example"])
async def test_a_page_of_another_origin_does_not(hub: Hub, origin: str) -> None:
    """A page of plain http is another origin."""
    hub.options = SETTINGS | {"trusted_proxies": ("127.0.0.1",)}
    await hub.start()
    assert await sign_in(hub, origin) == (403, "")


async def test_a_proxy_that_names_the_scheme_is_believed(hub: Hub) -> None:
    """Also if it is not that of the public address."""
    hub.options = SETTINGS | {"trusted_proxies": ("127.0.0.1",)}
    await hub.start()
    status, cookie = await sign_in(hub, ORIGIN, X_Forwarded_Proto="http", X_Forwarded_For="192.0.2.1")
    assert status == 200 and not cookie.startswith("__Host-")


async def test_without_a_trusted_proxy_the_scheme_is_that_of_the_connection(hub: Hub) -> None:
    hub.options = SETTINGS | {"trusted_proxies": ("192.0.2.1",)}
    await hub.start()
    status, cookie = await sign_in(hub, ORIGIN)
    assert status == 200 and not cookie.startswith("__Host-")
