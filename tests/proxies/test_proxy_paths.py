"""A hub under a path of its host, through nginx, Caddy and HAProxy."""

from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from support.browser import CHROMIUM
from support.documents import DOCS, of_kind
from support.proxy_servers import ProxyKind, each_proxy
from support.site_console import use_console
from support.sites import Site, check_chats, open_site, sign_in

(CADDY_LINES,) = of_kind(DOCS["operations"], "text", "caddy")
# Edits of each file for the path /hubbub/, which the proxy passes on, or removes.
NGINX_LOCATION = {"location / {": "location /hubbub/ {"}
CADDY_PATH = {"\treverse_proxy 127.0.0.1:9527 {": "\n".join(f"\t{line}" for line in CADDY_LINES.lines)}
CADDY_WITHOUT_PATH = {
    "\treverse_proxy 127.0.0.1:9527 {": "\tredir /hubbub /hubbub/\n\thandle_path /hubbub/* {\n\t"
    "reverse_proxy 127.0.0.1:9527 {",
    "\t}\n}\n": "\t}\n\t}\n}\n",
}
HAPROXY_PATH = {"    default_backend hubbub": "    use_backend hubbub if { path_beg /hubbub/ }"}
EDITS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("nginx", "passed"): NGINX_LOCATION,
    ("nginx", "removed"): {**NGINX_LOCATION, "proxy_pass http://hubbub;": "proxy_pass http://hubbub/;"},
    ("caddy", "passed"): CADDY_PATH,
    ("caddy", "removed"): CADDY_WITHOUT_PATH,
    ("haproxy", "passed"): HAPROXY_PATH,
    ("haproxy", "removed"): {
        **HAPROXY_PATH,
        "    # A request may wait": "    http-request replace-path /hubbub(/.*) \\1\n    # A request may wait",
    },
}


async def check_sign_in(site: Site) -> None:
    """Sign a browser in, and open a WebSocket with its cookie."""
    async with site.open_http() as http:
        status, cookie = await sign_in(site, http, site.origin)
        assert status == 200 and "Secure" in cookie
        client = await site.connect(http, extended=True, headers={"Origin": site.origin})
        assert client.frames[0]["principal"]["name"] == "Ann"
        await client.ws.close()


async def has_answer_of_hub(http: aiohttp.ClientSession, url: str) -> bool:
    async with http.get(url) as response:
        return response.status == 200 and await response.text() == "OK"


@each_proxy
@pytest.mark.parametrize("way", ["passed", "removed"])
async def test_the_hub_works_under_a_path(kind: ProxyKind, way: str, tmp_path: Path) -> None:
    """The proxy passes the path on, or removes it. Other paths do not lead to the hub."""
    async with open_site(tmp_path, kind, EDITS[kind.name, way], base_path="/hubbub") as site:
        await check_chats(site)
        await check_sign_in(site)
        async with site.open_http() as http:
            assert await has_answer_of_hub(http, f"{site.url}/health")
            assert not await has_answer_of_hub(http, f"{site.origin}/health")
        if CHROMIUM:
            await use_console(site)
