"""The Host and Origin headers that the hub accepts, in all their forms, and the origins that may use a cookie."""

from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.sockets import read_response

from hub.access.doors import is_host_allowed, is_origin_allowed, is_own_origin
from hub.settings import Settings

SETTINGS = Settings(
    host="192.0.2.7",
    hosts=("hub.example", "fd00::7"),
    origins=("https://app.example",),
    public_url="https://pub.example",
)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:9527", "LocalHost:9527", "a.localhost", "127.0.0.1", "127.9.9.9:80"),
        *("[::1]", "[::1]:9527", "[0:0::1]:9527", "192.0.2.7:9527"),
        *("hub.example", "HUB.example:443", "hub.example:65535", "[fd00::7]:80", "[FD00::7]", "pub.example"),
    ],
)
def test_a_host_that_names_the_hub_is_allowed(host: str) -> None:
    """In any case, with any port: loopback names, and those of the settings `host`, `hosts` and `public_url`."""
    assert is_host_allowed(SETTINGS, host)


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", ":9527", "evil.example", "evil.example:9527", "hub.example.evil.example", "xhub.example"),
        *("hub.example.", "localhost.", "localhost.:9527", "127.0.0.1.", "evil-localhost", "localhost.evil.example"),
        *("ann@localhost", "ann:pw@hub.example", "localhost@evil.example", "http://localhost", "//localhost"),
        *("localhost/", "localhost/a", "localhost?a", "localhost#a", "localhost\\evil.example", "localhost:"),
        *("localhost:http", "localhost:65536", "localhost:-1", "localhost:80:80", "localhost:٣"),
        *("localhost, localhost", "localhost localhost", "localhost\t", "localhost\n", "localhost\0", "ｌocalhost"),
        *("::1", "[::1", "::1]", "[[::1]]", "[::1]x", "[::2]", "[v1.localhost]", "[127.0.0.1", "[fe80::1%25lo]"),
        *("0.0.0.0", "127.1", "2130706433", "0x7f.1", "192.0.2.8", "null", "*", "%6cocalhost"),
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    """A name with a dot at its end, a user, a path, or a second name is not a name of the hub."""
    assert not is_host_allowed(SETTINGS, host)


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost", "http://localhost:5173", "https://localhost:1", "http://a.localhost:3000"),
        *("http://127.0.0.1:8000", "http://[::1]:8000", "https://app.example", "https://pub.example"),
        *("http://hub.example:9527", "https://hub.example:9527"),
    ],
)
def test_an_origin_of_this_machine_of_the_hub_or_of_the_settings_may_connect(origin: str) -> None:
    """The hub does not know whether a proxy offers it with https, so both schemes are its own."""
    assert is_origin_allowed(SETTINGS, origin, "hub.example:9527")


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", " ", "*", "https://evil.example", "file://", "about:blank", "moz-extension://localhost"),
        *("ws://localhost", "ftp://localhost", "HTTP://localhost", "http:localhost", "http:/localhost", "localhost"),
        *("http://localhost/", "http://localhost/a", "http://localhost?a", "http://localhost#a", "http://localhost:"),
        *("http://localhost.", "http://localhost.:80", "http://localhost.evil.example", "http://evil-localhost"),
        *("http://localhost:65536", "http://localhost:80:80", "http://LOCALHOST", "http://[::1", "http://::1"),
        *("http://ann@localhost", "http://localhost@evil.example", "http://evil.example\\@localhost"),
        *("http://localhost http://localhost", "http://localhost, http://localhost", "http://localhost\thttp://a"),
        *("https://app.example:8443", "http://app.example", "https://app.example/", "https://APP.example"),
        *(
            "https://app.example.",
            "https://ann@app.example",
            "https://app.example.evil.example",
            "https://xapp.example",
        ),
        *("http://pub.example", "https://hub.example", "http://hub.example:9528", "https://hub.example:9527."),
    ],
)
def test_any_other_origin_is_refused(origin: str) -> None:
    """Scheme, host and port are compared exactly."""
    assert not is_origin_allowed(SETTINGS, origin, "hub.example:9527")


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "own"),
    [
        ("http://localhost:9527", "localhost:9527", "http", True),
        ("http://localhost:9527", "LOCALHOST:9527", "http", True),
        ("https://hub.example", "hub.example", "https", True),
        ("https://hub.example", "hub.example:443", "https", True),
        ("http://[::1]:9527", "[::1]:9527", "http", True),
        ("https://app.example", "hub.example", "https", True),
        ("https://pub.example", "hub.example", "http", True),
        ("http://hub.example", "hub.example", "https", False),
        ("https://hub.example", "hub.example", "http", False),
        ("http://localhost:5173", "localhost:9527", "http", False),
        ("http://127.0.0.1:9527", "localhost:9527", "http", False),
        ("https://hub.example:80", "hub.example:443", "https", False),
        ("null", "hub.example", "https", False),
        ("", "hub.example", "https", False),
    ],
)
def test_a_cookie_counts_for_pages_of_the_hub_alone(origin: str, host: str, scheme: str, own: bool) -> None:
    """A page on another port of this machine may connect without a cookie, but it may not use the cookie."""
    assert is_own_origin(SETTINGS, origin, host, scheme) is own


def test_the_origin_null_never_counts_with_a_cookie() -> None:
    """The setting `origins` may allow it, for pages on disk. A page of any site can have it, in a sandboxed frame."""
    settings = Settings(origins=("null",))
    assert is_origin_allowed(settings, "null", "localhost:9527")
    assert not is_own_origin(settings, "null", "localhost:9527", "http")


async def test_requests_without_or_with_two_hosts_or_origins_are_refused(hub: Hub) -> None:
    """Also if each of two values would be allowed: the hub and a proxy could choose different ones."""
    await hub.start()
    host, origin = f"Host: 127.0.0.1:{hub.port}\r\n", "Origin: http://localhost\r\n"
    for headers, status in (
        (host, 200),
        (host + origin, 200),
        ("", 400),
        (host + host, 400),
        (host + "Host: evil.example\r\n", 400),
        (host + origin + origin, 403),
        (host + origin + "Origin: https://evil.example\r\n", 403),
    ):
        assert (
            await status_of_bytes(hub, f"GET /health HTTP/1.1\r\n{headers}Connection: close\r\n\r\n") == status
        ), headers
    assert await status_of_bytes(hub, "GET /health HTTP/1.0\r\n\r\n") == 403


async def status_of_bytes(hub: Hub, request: str) -> int:
    return int((await read_response(hub.port, request.encode())).split()[1])


async def test_the_public_address_is_a_name_of_the_hub(hub: Hub) -> None:
    """Its host is allowed as Host, its origin as Origin; another scheme of the same host is another origin."""
    hub.options = {"public_url": "https://pub.example:8443"}
    await hub.start()
    host = {"Host": "pub.example:8443"}
    assert await status_of(hub, host | {"Origin": "https://pub.example:8443"}) == 200
    assert await status_of(hub, {"Origin": "https://pub.example:8443"}) == 200
    assert await status_of(hub, {"Origin": "http://pub.example:8443"}) == 403


async def status_of(hub: Hub, headers: dict[str, Any]) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/health", headers=headers) as response:
        return response.status
