"""CORS: the allowed origins, request headers, and response headers."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.hub import Hub
from support.waiting import PATIENCE

from hub.web.app import ROUTES, make_app
from hub.web.routes import Route

APP = "https://app.example"
PATHS = [(route, base + route.path) for route in ROUTES for base in route.prefixes]


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    hub.options = {"origins": (APP,)}
    await hub.start()
    async with aiohttp.ClientSession(hub.url, timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http


def filled(path: str) -> str:
    names = {"id": "s1", "agentId": "echo", "invite": "i1", "subject": "p1", "name": "hubbub_client.whl"}
    return path.format_map(names)


async def preflight(
    http: aiohttp.ClientSession, path: str, method: str, origin: str = APP, headers: str = ""
) -> tuple[int, Any]:
    request_headers = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        request_headers["Access-Control-Request-Headers"] = headers
    async with http.options(filled(path), headers=request_headers) as answer:
        return answer.status, answer.headers


@pytest.mark.parametrize("route, path", [(route, path) for route, path in PATHS if not route.is_websocket])
async def test_every_route_allows_cross_origin_requests(http: aiohttp.ClientSession, route: Route, path: str) -> None:
    """A preflight is answered for each row of the table, with the origin itself and for its method."""
    status, headers = await preflight(http, path, route.method)
    assert status == 200 and headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Allow-Methods"] == route.method and "Origin" in headers["Vary"]


@pytest.mark.parametrize("route, path", [(route, path) for route, path in PATHS if not route.is_websocket])
async def test_every_response_is_readable_and_varies_by_origin(
    http: aiohttp.ClientSession, route: Route, path: str
) -> None:
    """Errors too. Without an Origin there are no CORS headers, but there is `Vary: Origin` for caches."""
    for origin in (APP, None):
        named = {"Origin": origin} if origin else {}
        async with http.request(route.method, filled(path), headers=named) as answer:
            assert answer.headers.get("Access-Control-Allow-Origin") == origin
            assert "Origin" in answer.headers.getall("Vary")


@pytest.mark.parametrize("name", ["Content-Type", "Idempotency-Key", "X-Session-Id", "Last-Event-ID", "Authorization"])
async def test_the_headers_of_clients_are_allowed(http: aiohttp.ClientSession, name: str) -> None:
    """A preflight allows each of them."""
    status, headers = await preflight(http, "/api/v1/sessions/s1/chat", "POST", headers=name)
    assert status == 200 and name.lower() in headers["Access-Control-Allow-Headers"].lower()


async def test_all_headers_of_a_response_are_readable(http: aiohttp.ClientSession) -> None:
    """A browser hides headers that the response does not name."""
    async with http.get("/docs.css", headers={"Origin": APP}) as answer:
        exposed = {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"etag", "content-length"} <= exposed


async def test_credentials_are_not_allowed(http: aiohttp.ClientSession) -> None:
    """The allowed origin is never a wildcard."""
    _, preflight_headers = await preflight(http, "/api/v1/agents", "GET")
    async with http.get("/api/v1/agents", headers={"Origin": APP}) as answer:
        for headers in (preflight_headers, answer.headers):
            assert "Access-Control-Allow-Credentials" not in headers
            assert headers["Access-Control-Allow-Origin"] == APP


async def test_a_preflight_is_cached(http: aiohttp.ClientSession) -> None:
    """Otherwise each chat would need two requests."""
    _, headers = await preflight(http, "/api/v1/sessions/s1/chat", "POST")
    assert headers["Access-Control-Max-Age"] == "600"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.evil.example", "http://app.example", APP + ":8443"]
)
async def test_an_origin_that_is_not_in_the_settings_is_refused(http: aiohttp.ClientSession, origin: str) -> None:
    """With 403, before the handler runs, and without CORS headers; scheme and port count."""
    status, headers = await preflight(http, "/api/v1/sessions", "POST", origin)
    assert status == 403 and "Access-Control-Allow-Origin" not in headers
    async with http.post("/api/v1/sessions", json={"sessionId": "s1"}, headers={"Origin": origin}) as answer:
        assert answer.status == 403 and "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.headers.getall("Vary")
    async with http.get("/api/v1/sessions/s1") as answer:
        assert answer.status == 404


@pytest.mark.parametrize("path", ["/api/v1/ws", "/api/v1/agents/echo/ws"])
async def test_a_websocket_checks_its_origin_itself(http: aiohttp.ClientSession, path: str) -> None:
    """Browsers ask no preflight for it: a good origin comes in, a bad one is refused before the upgrade.

    The response to an upgrade has no CORS headers, which no browser reads: they would stay in memory with the client.
    """
    upgrade = {"Origin": APP, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with http.get(path, headers=upgrade | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}) as answer:
        assert answer.status == 101 and not {"Vary", "Access-Control-Allow-Origin"} & answer.headers.keys()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(path, origin="https://evil.example")
    assert refused.value.status == 403


async def test_a_stream_is_readable_from_another_origin(http: aiohttp.ClientSession) -> None:
    """EventSource needs this."""
    headers = {"Origin": APP, "Accept": "text/event-stream"}
    body = {"agentId": "echo", "message": "hello"}
    async with http.post("/api/v1/sessions/s1/chat", json=body, headers=headers) as answer:
        assert answer.content_type == "text/event-stream" and answer.headers["Access-Control-Allow-Origin"] == APP
        assert "run_finished" in await answer.text()


async def echo_method(request: web.Request) -> web.Response:
    """Return the method of the request."""
    return web.Response(text=request.method)


async def test_the_methods_of_a_path_may_stand_anywhere_in_the_table(hub: Hub) -> None:
    """PATCH and DELETE of a session, rows apart from its GET, have their preflights and are answered."""
    hub.options = {"origins": (APP,)}
    await hub.start()
    rows = [
        Route(method=method, path="/sessions/{id}/apart", handler=echo_method, tag="Test", responses={200: None})
        for method in ("GET", "PATCH", "DELETE")
    ]
    async with TestServer(make_app(hub.door, (rows[0], *ROUTES, *rows[1:]))) as server:
        async with aiohttp.ClientSession(str(server.make_url("/"))) as http:
            for method in ("GET", "PATCH", "DELETE"):
                path = "/api/v1/sessions/s1/apart"
                status, headers = await preflight(http, path, method)
                assert status == 200 and method in headers["Access-Control-Allow-Methods"]
                async with http.request(method, path, headers={"Origin": APP}) as answer:
                    assert (answer.status, await answer.text()) == (200, method)
                    assert answer.headers["Access-Control-Allow-Origin"] == APP


async def test_head_is_answered_on_routes_whose_response_ends(http: aiohttp.ClientSession) -> None:
    """It is a GET without the body; streams and WebSockets have no HEAD."""
    for route, path in PATHS:
        if route.method == "GET":
            async with http.head(filled(path), headers={"Accept": "text/event-stream"}) as answer:
                assert (answer.status == 405) != route.has_head, path
                assert await answer.read() == b""
