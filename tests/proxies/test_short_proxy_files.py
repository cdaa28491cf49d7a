"""nginx with fewer lines than in deploy/, as people write them."""

import re
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from support.browser import needs_browser
from support.documents import DOCS, of_kind
from support.proxy_servers import NGINX, needs_proxy
from support.site_console import use_console
from support.sites import Site, open_site, sign_in

from hub.web.sign_in import SECURE_COOKIE

# A `location` with nothing but `proxy_pass`: HTTP/1.0, the address of the hub as Host, and no word of the client.
BARE = {
    "proxy_pass http://hubbub;": "proxy_pass http://127.0.0.1:9527;",
    **dict.fromkeys(re.findall(r"^        (?:proxy_(?!pass)|client_).*\n", NGINX.file.read_text(), re.MULTILINE), ""),
}
UPGRADES = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
EDITS: dict[str, Mapping[str, str]] = {
    "no headers": {**BARE, "proxy_pass http://hubbub;": f"proxy_pass http://127.0.0.1:9527; {UPGRADES}"},
    "Host without its port": {"Host $http_host;": "Host $host;"},
}
CHAT = {"agentId": "echo", "message": "one two"}


async def check_sign_in(site: Site) -> None:
    """Sign a browser in. The cookie is for https alone, and works for pages and requests of the hub's pages."""
    async with site.open_http() as http:
        status, cookie = await sign_in(site, http, site.origin)
        assert status == 200 and cookie.startswith(f"{SECURE_COOKIE}=") and "Secure" in cookie, cookie
        async with http.get(site.url, allow_redirects=False) as response:
            assert response.status == 200, response.headers  # and no redirect to the page to sign in
        async with http.get(f"{site.api}/me") as response:
            assert (await response.json())["name"] == "Ann"
        async with http.post(f"{site.api}/sign-out", headers={"Origin": site.origin}) as response:
            assert response.status == 204, await response.text()
        async with http.get(f"{site.api}/me") as response:
            assert response.status == 401


@needs_proxy(NGINX)
async def test_requests_by_http_1_0_are_answered_and_streams_are_refused_with_the_lines(tmp_path: Path) -> None:
    """By `proxy_pass` alone. The log names the cause and the lines, because a browser does not show the answer."""
    async with open_site(tmp_path, NGINX, BARE) as site, site.open_program() as http:
        async with http.post(f"{site.api}/sessions/s1/chat?wait=true", json=CHAT) as response:
            assert (response.status, (await response.json())["content"]) == (200, "one two ")
        headers = {"Accept": "text/event-stream"}
        async with http.get(f"{site.api}/sessions/s1/events", headers=headers) as response:
            body = await response.json()
            assert (response.status, body["code"]) == (505, "http_version_not_supported")
            assert "proxy_http_version 1.1;" in body["error"] and "$http_upgrade" in body["error"]
        with pytest.raises(aiohttp.WSServerHandshakeError, match="505"):
            await site.connect(http)
        assert "HTTP/1.0" in site.hub.log and "proxy_http_version 1.1;" in site.hub.log
        await check_sign_in(site)


@needs_proxy(NGINX)
@pytest.mark.parametrize("name", EDITS)
async def test_people_sign_in(name: str, tmp_path: Path) -> None:
    """`trusted_proxies` and `public_url` tell the hub what such a proxy does not."""
    async with open_site(tmp_path, NGINX, EDITS[name]) as site:
        await check_sign_in(site)


@needs_proxy(NGINX)
@needs_browser
@pytest.mark.parametrize("name", EDITS)
async def test_the_console_works(name: str, tmp_path: Path) -> None:
    async with open_site(tmp_path, NGINX, EDITS[name]) as site:
        await use_console(site)


@needs_proxy(NGINX)
async def test_nginx_signs_people_in_with_the_lines_of_the_page(tmp_path: Path) -> None:
    """By a password. What a client writes into the header has no effect."""
    (block,) = of_kind(DOCS["operations"], "text", "nginx")
    users = tmp_path / "users"
    users.write_text("ann:{PLAIN}secret\n")
    lines = block.text.replace("/etc/nginx/hubbub.users", str(users))
    edits = {"proxy_pass http://hubbub;": f"proxy_pass http://hubbub; {lines}"}
    async with open_site(tmp_path, NGINX, edits, user_header="X-Forwarded-User") as site, site.open_http() as http:
        headers = {"X-Forwarded-User": "root"}
        async with http.get(f"{site.api}/me", headers=headers) as response:
            assert response.status == 401
        headers["Authorization"] = aiohttp.encode_basic_auth("ann", "secret")
        async with http.get(f"{site.api}/me", headers=headers) as response:
            assert (response.status, (await response.json())["name"]) == (200, "ann")
