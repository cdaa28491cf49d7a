"""A hub under a path of its proxy (`base_path`): its routes, what it writes into responses, and its clients."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.path_proxy import PathProxy
from support.process import HubProcess, run_hubbub
from support.sockets import read_response
from support.sse import open_stream
from support.waiting import PATIENCE

from hub.access.doors import make_base_url
from hub.access.principal import OPERATOR
from hub.client import connect
from hub.commands import table as commands
from hub.settings import Settings
from hub.web.pages.console import CONSOLE_FILES
from hub.web.pages.javascript_client import CLIENT_FILES

BASE = "/hubbub"
PAGES = (*CONSOLE_FILES, *CLIENT_FILES, "/docs", "/docs.js", "/docs.css", "/openapi.json", "/asyncapi.json")
KINDS_OF_PROXY = pytest.mark.parametrize("strips", [False, True], ids=["keeps", "strips"])


@pytest.fixture
async def under_path(hub: Hub) -> Hub:
    """A started hub with a base path and sign-in, behind any proxy of this machine."""
    hub.options |= {"base_path": BASE, "sign_in": True, "trusted_proxies": ("127.0.0.1",)}
    await hub.start()
    hub.door.base_url = make_base_url(hub.door.settings, hub.port)
    return hub


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=PATIENCE), cookie_jar=aiohttp.CookieJar(unsafe=True)
    ) as session:
        yield session


async def fetch(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, str]:
    async with http.get(url, headers=headers, allow_redirects=False) as response:
        return response.status, await response.text(errors="replace")


# --- routes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/health", "/ready", "/metrics", "/api/v1/me", "/v1/models", "/api/v1/ws"])
async def test_each_route_has_two_addresses(under_path: Hub, http: aiohttp.ClientSession, path: str) -> None:
    """One for a proxy that passes the path on; one for a proxy that removes it, and for health checks."""
    key = f"Bearer {await under_path.key('ann', role='admin')}"
    answers = [await fetch(http, f"{under_path.url}{base}{path}", Authorization=key) for base in ("", BASE)]
    assert answers[0][0] not in (404, 500)
    numbers = r"(?<=\d)e[-+](?=\d)|\d"  # also those of the metrics with an exponent
    assert re.sub(numbers, "", answers[0][1]) == re.sub(numbers, "", answers[1][1])


async def test_the_console_needs_no_slash_after_the_path(hub: Hub, http: aiohttp.ClientSession) -> None:
    """People leave it out. The addresses in the page must not be relative then."""
    hub.options["base_path"] = BASE
    await hub.start()
    pages = [await fetch(http, hub.url + path) for path in (BASE, f"{BASE}/", f"{BASE}?session=s1", "/")]
    assert pages[0][0] == 200 and pages == [pages[0]] * 4
    addresses = re.findall(r'(?:href|src)="([^"]*)"', pages[0][1])
    assert len(addresses) == 4 and all(address.startswith(f"{BASE}/") for address in addresses)


@pytest.mark.parametrize(
    "path",
    [
        *(f"/{BASE}/docs", f"{BASE}//docs", f"//{BASE}/docs", f"{BASE}{BASE}/docs", "/HUBBUB/docs", "/hubbubs/docs"),
        *("/hubbub%2Fdocs", "/hubbub/docs%2F..", "/hubbub/%2e%2e/hubbub/x", "/hub/bub/docs", "/x/hubbub/docs"),
        *(f"{BASE};/docs", f"{BASE}.", f"{BASE}/docs/", "/hubbub%00/docs", "/hubbub%5Cdocs", "\\hubbub/docs"),
    ],
)
async def test_no_other_spelling_reaches_a_route(under_path: Hub, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert (await read_response(under_path.port, request.encode())).split()[1] in (b"404", b"400")


@pytest.mark.parametrize("base", ["", BASE])
@pytest.mark.parametrize("path", ["/docs", "/api/v1/sessions", "/api/v1/ws", "/%64ocs", "//docs", "/nothing"])
async def test_the_checks_of_a_request_are_the_same_at_both_addresses(under_path: Hub, path: str, base: str) -> None:
    """A foreign Host or Origin is refused before anything else is looked at."""
    for headers in ("Host: evil.example\r\n", "Host: localhost\r\nOrigin: https://evil.example\r\n"):
        request = f"GET {base}{path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"
        assert (await read_response(under_path.port, request.encode())).split()[1] == b"403"


@pytest.mark.parametrize("base", ["", BASE])
async def test_sign_in_is_required_at_both_addresses(under_path: Hub, http: aiohttp.ClientSession, base: str) -> None:
    for path in ("/api/v1/sessions", "/api/v1/me", "/v1/models", "/metrics", "/api/v1/audit"):
        assert (await fetch(http, under_path.url + base + path))[0] == 401


# --- what the hub writes ----------------------------------------------------------------------------------------------


async def test_what_the_hub_writes_begins_with_the_path(under_path: Hub, http: aiohttp.ClientSession) -> None:
    """Redirects, links, documents, the content security policy, the JavaScript client, and error texts."""
    for base in ("", BASE):
        async with http.get(f"{under_path.url}{base}/", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, f"{BASE}/sign-in")
        async with http.get(f"{under_path.url}{base}/sign-in") as response:
            socket = f"ws://127.0.0.1:{under_path.port}"
            policy = f"connect-src 'self' {socket}{BASE}/api/v1/ws {socket}/api/v1/ws;"
            assert policy in response.headers["Content-Security-Policy"]
        async with http.get(f"{under_path.url}{base}/openapi.json") as response:
            openapi = await response.json()
        async with http.get(f"{under_path.url}{base}/asyncapi.json") as response:
            assert (await response.json())["servers"]["hub"]["pathname"] == BASE
        assert openapi["servers"] == [{"url": BASE}] and "/api/v1/me" in openapi["paths"]
        assert f"const BASE_PATH = '{BASE}'" in (await fetch(http, f"{under_path.url}{base}/client.js"))[1]
        assert f"{BASE}/docs lists all paths" in (await fetch(http, f"{under_path.url}{base}/nothing"))[1]
    link = await commands.invite_person(under_path.door, OPERATOR, "ann")
    assert link.startswith(f"http://localhost:{under_path.port}{BASE}/sign-in#")


async def test_a_hub_without_a_path_writes_none(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also its pages have relative addresses then: they work behind a proxy that removes a path unknown to the hub."""
    await hub.start()
    async with http.get(f"{hub.url}/asyncapi.json") as response:
        assert "pathname" not in (await response.json())["servers"]["hub"]
    assert 'src="./console/app.js"' in (await fetch(http, hub.url))[1]
    assert (await fetch(http, hub.url + BASE))[0] == 404


def test_the_public_address_and_the_path_make_the_base_of_links() -> None:
    settings = Settings(public_url="https://hub.example", base_path="/a/b")
    assert make_base_url(settings) == "https://hub.example/a/b"


async def test_hubs_under_two_paths_of_one_host_have_cookies_of_their_own(
    under_path: Hub, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A browser sends all cookies of a host to both, and would replace one that has the same name."""
    second = Hub(tmp_path / "second", options=under_path.options | {"base_path": "/other"})
    second.folder.mkdir()
    try:
        await second.start()
        names = set()
        for hub in (under_path, second):
            for scheme in ("http", "https"):
                link = await commands.invite_person(hub.door, OPERATOR, "ann")
                headers = {
                    "X-Forwarded-For": "192.0.2.1",
                    "X-Forwarded-Proto": scheme,
                    "X-Forwarded-Host": "localhost:8443",
                }
                body = {"token": link.partition("#")[2]}
                url = f"{hub.url}{hub.door.settings.base_path}/api/v1/sign-in"
                async with http.post(url, json=body, headers=headers) as response:
                    cookie = response.headers["Set-Cookie"]
                assert "Path=/;" in f"{cookie};" and cookie.startswith("__Host-" if scheme == "https" else "hubbub-")
                names.add(cookie.partition("=")[0])
        assert len(names) == 4
        async with http.get(f"{under_path.url}/openapi.json") as response:
            schemes = (await response.json())["components"]["securitySchemes"]
        assert schemes["cookie"]["name"] in names
    finally:
        await second.stop()


# --- clients through a proxy ------------------------------------------------------------------------------------------


@KINDS_OF_PROXY
async def test_a_client_does_everything_through_a_proxy(
    under_path: Hub, http: aiohttp.ClientSession, strips: bool
) -> None:
    """Sign-in by cookie, an upload, a download, a stream of events, a ticket, and both protocols of a WebSocket."""
    async with PathProxy(under_path.port, BASE, strips).running() as proxy:
        link = await commands.invite_person(under_path.door, OPERATOR, "ann")
        origin = {"Origin": proxy.url.removesuffix(BASE)}
        async with http.post(
            f"{proxy.url}/api/v1/sign-in", json={"token": link.partition("#")[2]}, headers=origin
        ) as response:
            assert response.status == 200
        async with http.post(f"{proxy.url}/api/v1/files?sessionId=s1", data=b"data", headers=origin) as response:
            file_id = (await response.json())["fileId"]
        assert await fetch(http, f"{proxy.url}/api/v1/files/{file_id}") == (200, "data")
        async with open_stream(http, f"{proxy.url}/api/v1/sessions/s1/events") as stream:
            ticket = await make_ticket(http, proxy, {}, origin)
            socket = f"{proxy.url}/api/v1/ws?sessionId=s1&agentId=echo&ticket={ticket}"
            async with http.ws_connect(socket, headers=origin) as ws:
                await ws.send_json({"type": "chat", "message": "hello there"})
                while not (frame := await ws.receive_json(timeout=PATIENCE)).get("done"):
                    assert frame["type"] in ("accepted", "subscribed", "stream"), frame
            await stream.until_kind("run_finished")
            assert stream.text() == "hello there "
        events_ticket = await make_ticket(http, proxy, {"sessionId": "s1"}, origin)
        events = f"{proxy.url}/api/v1/sessions/s1/events?ticket={events_ticket}"
        async with aiohttp.ClientSession() as stranger, open_stream(stranger, events, **origin):
            pass
        async with http.ws_connect(f"{proxy.url}/api/v1/agents/echo/ws", headers=origin) as ws:
            assert (await ws.receive_json(timeout=PATIENCE))["type"] == "status"
        assert proxy.foreign_paths == []


async def make_ticket(
    http: aiohttp.ClientSession, proxy: PathProxy, body: dict[str, Any], origin: dict[str, str]
) -> str:
    async with http.post(f"{proxy.url}/api/v1/tickets", json=body, headers=origin) as response:
        ticket: str = (await response.json())["ticket"]
        return ticket


@KINDS_OF_PROXY
async def test_the_python_client_and_the_terminal_take_an_address_with_a_path(
    under_path: Hub, tmp_path: Path, strips: bool
) -> None:
    async with PathProxy(under_path.port, BASE, strips).running() as proxy:
        key = await under_path.key("ann", role="admin")
        for url in (proxy.url, f"{proxy.url}/", f"{proxy.url.replace('http', 'ws')}/api/v1/ws"):
            async with connect(url, token=key) as client:
                assert await (await client.session("s1", agent="echo")).ask("hi") == "hi "
        login = await run_hubbub(tmp_path, "login", proxy.url, text=key, XDG_CONFIG_HOME=tmp_path)
        assert login.code == 0, login
        options = {"HUBBUB_URL": proxy.url, "XDG_CONFIG_HOME": tmp_path}
        for arguments in (("sessions",), ("chat", "echo", "--session", "s2")):
            done = await run_hubbub(tmp_path, *arguments, text="hi\n", **options)
            assert (done.code, "Traceback" in done.err) == (0, False), done
        assert done.out == "hi \n"
        other = await run_hubbub(tmp_path, "sessions", HUBBUB_URL=f"{proxy.url}/more", XDG_CONFIG_HOME=tmp_path)
        assert other.code == 1 and "Traceback" not in other.err


async def test_a_kept_key_is_for_one_path(under_path: Hub, tmp_path: Path) -> None:
    """Two hubs of one host have different keys. An address with a slash at its end is the same one."""
    urls = {"ann": f"{under_path.url}{BASE}/", "bob": under_path.url}
    for name, url in urls.items():
        key = await under_path.key(name)
        assert (await run_hubbub(tmp_path, "login", url, text=key, XDG_CONFIG_HOME=tmp_path)).code == 0
    logout = await run_hubbub(tmp_path, "logout", urls["bob"], XDG_CONFIG_HOME=tmp_path)
    assert logout.out.startswith(f"the key of {under_path.url} is forgotten")
    logout = await run_hubbub(tmp_path, "logout", f"{under_path.url}{BASE}", XDG_CONFIG_HOME=tmp_path)
    assert logout.out.startswith(f"the key of {under_path.url}{BASE} is forgotten")


# --- the setting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["hubbub", "/", "/hubbub/", "//hubbub", "/a//b", "/a/../b", "/.", "/a b", "/a?b", "/a#b", "/%61", "/ä", "/{a}"],
)
async def test_a_wrong_path_is_one_clear_line(tmp_path: Path, path: str) -> None:
    done = await run_hubbub(tmp_path, "serve", "--base-path", path)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "such as /hubbub" in done.err


@pytest.mark.parametrize("path", ["/docs", "/api", "/api/v1", "/v1", "/console", "/sign-in", "/health/x", "/client.js"])
async def test_a_path_that_the_hub_uses_itself_is_refused(tmp_path: Path, path: str) -> None:
    """An address could then be of two routes."""
    (tmp_path / "agents").mkdir()
    done = await run_hubbub(tmp_path, "serve", "--base-path", path, "--port", "0")
    assert done.code == 2 and f"base_path {path} cannot begin with" in done.err


async def test_the_banner_names_the_path(tmp_path: Path) -> None:
    """The path may come from the environment. It may have several parts."""
    process = await HubProcess(tmp_path).start(base_path="/team/hubbub-1.0_~")
    try:
        address = f"127.0.0.1:{process.port}/team/hubbub-1.0_~"
        for text in (f"http://{address}  (the console)", f"ws://{address}/api/v1/ws", f"http://{address}/docs"):
            assert text in process.log
    finally:
        await process.kill()
