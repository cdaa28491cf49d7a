"""Pages, requests, uploads and sign-in through nginx, Caddy and HAProxy."""

import hashlib
import os
import re
from collections.abc import AsyncIterator
from io import BytesIO

import aiohttp
import pytest
from support.browser import needs_browser
from support.proxy_servers import HOST
from support.site_console import use_console
from support.sites import Site, sign_in
from support.waiting import eventually

from hub.limits import Limits, MiB
from hub.web.sign_in import SECURE_COOKIE

pytestmark = pytest.mark.asyncio(loop_scope="session")

VISITORS = 2  # who open the console at the same time
FORGED_HEADERS = {
    "X-Forwarded-For": "192.0.2.66",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "Forwarded": "for=192.0.2.66;proto=http;host=evil.example",
}


async def test_requests_are_answered(site: Site) -> None:
    """A chat and its answer, a list, and an error with the hub's own body."""
    async with site.open_program() as http:
        chat = {"agentId": "echo", "message": "one two"}
        async with http.post(f"{site.api}/sessions/rest/chat?wait=true", json=chat) as response:
            assert (response.status, (await response.json())["content"]) == (200, "one two ")
        async with http.get(f"{site.api}/sessions/rest/messages") as response:
            assert [entry["content"] for entry in (await response.json())["data"]] == ["one two", "one two "]
        async with http.get(f"{site.api}/sessions/none") as response:
            assert (response.status, (await response.json())["code"]) == (404, "unknown_session")
        async with http.delete(f"{site.api}/sessions/rest") as response:
            assert response.status == 204


async def test_plain_http_leads_to_https(site: Site) -> None:
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{site.place.http_port}/docs?a=b"
        async with http.get(url, headers={"Host": HOST}, allow_redirects=False) as response:
            assert 301 <= response.status <= 308
            assert re.fullmatch(rf"https://{HOST}(:\d+)?/docs\?a=b", response.headers["Location"])


# --- uploads ----------------------------------------------------------------------------------------------------------


async def test_a_large_upload_and_its_download_have_the_same_bytes(site: Site) -> None:
    data = os.urandom(20 * MiB)
    async with site.open_program() as http:
        url = f"{site.api}/files?sessionId=upload&name=a.bin"
        async with http.post(url, data=BytesIO(data), headers={"Content-Type": "application/x-a"}) as response:
            assert response.status == 201, await response.text()
            file_id = (await response.json())["fileId"]
        async with http.get(f"{site.api}/files/{file_id}") as response:
            assert hashlib.sha256(await response.read()).digest() == hashlib.sha256(data).digest()
        async with http.get(f"{site.api}/files/{file_id}", headers={"Range": "bytes=5-9"}) as response:
            assert (response.status, await response.read()) == (206, data[5:10])


async def send_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MiB):
        yield bytes(MiB)


@pytest.mark.parametrize("has_length", [True, False])
async def test_an_upload_over_the_limit_gets_the_error_of_the_hub(site: Site, has_length: bool) -> None:
    """Not that of the proxy. The hub answers before it has the body, or at the byte over the limit."""
    size = Limits().file_bytes + 4 * MiB
    async with site.open_program() as http:
        url = f"{site.api}/files?sessionId=upload&name=a.bin"
        headers = {"Content-Type": "application/x-a"}
        data = BytesIO(bytes(size)) if has_length else send_chunks(size)
        async with http.post(url, data=data, headers=headers) as response:
            assert (response.status, (await response.json())["code"]) == (413, "file_too_large")
            assert "32 MiB" in (await response.json())["error"]
        async with http.get(f"{site.api}/me") as response:
            assert response.status == 200


# --- the client, as the hub sees it -----------------------------------------------------------------------------------


async def test_the_hub_knows_the_address_of_the_client(site: Site) -> None:
    """For a request and a WebSocket. What the client itself writes into the headers of proxies has no effect."""
    async with site.open_program("127.0.0.7") as http:
        async with http.get(f"{site.api}/me?q=1", headers=FORGED_HEADERS) as response:
            assert response.status == 200, await response.text()
        client = await site.connect(http, headers=FORGED_HEADERS)
        await client.ws.close()
    address = re.compile(r"address=127\.0\.0\.7\b")
    for event in ("path=/api/v1/me", "WebSocket opened", "WebSocket closed"):
        await eventually(lambda: any(event in line and address.search(line) for line in site.hub.output_lines))
    assert "192.0.2.66" not in site.hub.log and "evil.example" not in site.hub.log


async def test_a_browser_signs_in_over_https(site: Site) -> None:
    """The cookie is for https alone, and it opens a WebSocket of a page of the hub."""
    async with site.open_http() as http:
        status, cookie = await sign_in(site, http, site.url, FORGED_HEADERS)
        assert status == 200 and cookie.startswith(f"{SECURE_COOKIE}=") and "Secure" in cookie and "HttpOnly" in cookie
        client = await site.connect(http, extended=True, headers={"Origin": site.url})
        assert client.frames[0]["principal"]["name"] == "Ann"
        await client.ws.close()
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await site.connect(http, headers={"Origin": "https://evil.example"})


async def test_a_page_of_another_origin_signs_nobody_in(site: Site) -> None:
    """Even if it sends the headers of a proxy that name its own host."""
    async with site.open_http() as http:
        status, cookie = await sign_in(site, http, "http://evil.example", FORGED_HEADERS)
        assert (status, cookie) == (403, "")


# --- the console ------------------------------------------------------------------------------------------------------


@needs_browser
async def test_people_use_the_console_at_the_same_time(site: Site) -> None:
    """In a real browser, over HTTP/2 if the proxy speaks it: sign-in, all files of the page, and an answer."""
    await use_console(site, VISITORS)


@pytest.mark.parametrize("path", ["/", "/docs", "/sign-in", "/client.js"])
async def test_pages_and_files_arrive_unchanged(site: Site, path: str) -> None:
    """As the hub itself sends them."""
    async with site.open_http() as http:
        async with http.get(f"{site.url}{path}") as response, http.get(f"{site.hub.url}{path}") as direct:
            assert response.status == direct.status == 200
            assert await response.read() == await direct.read()
            for name in ("Content-Type", "Cache-Control", "Cross-Origin-Opener-Policy", "ETag"):
                assert response.headers.get(name) == direct.headers.get(name), name
