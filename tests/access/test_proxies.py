"""The client of a request behind proxies, and the refusal of proxies while sign-in is off."""

import aiohttp
import pytest
import structlog
from multidict import CIMultiDict
from support.hub import Hub

from hub.access.proxies import ClientEndpoint, find_client, is_forgotten_proxy

PROXIES = ("10.0.0.0/8", "fd00::/8")
PEER = "10.0.0.1"
DIRECT = ClientEndpoint(PEER, "http", "hub.example")


def client(*lines: str, peer: str | None = PEER, trusted: tuple[str, ...] = PROXIES) -> ClientEndpoint:
    headers = CIMultiDict([("Host", "hub.example")])
    for line in lines:
        name, _, value = line.partition(":")
        headers.add(name, value.strip())
    return find_client(peer, "http", headers, trusted)


@pytest.mark.parametrize("peer", ["192.0.2.9", "127.0.0.1", "::1", "", None, "11.0.0.1", "@control"])
def test_the_headers_of_a_peer_that_is_no_trusted_proxy_do_not_count(peer: str | None) -> None:
    """Any client can send them. A loopback peer and one on a unix socket are not trusted by default."""
    lines = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example")
    expected = ClientEndpoint(peer or "", "http", "hub.example")
    assert client(*lines, peer=peer) == expected
    assert client("Forwarded: for=192.0.2.1;proto=https;host=evil.example", peer=peer) == expected
    assert client(*lines, peer=peer, trusted=()) == expected


@pytest.mark.parametrize("peer", [PEER, "fd00::5", "::ffff:10.0.0.1"])
@pytest.mark.parametrize(
    "lines",
    [
        ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: pub.example"),
        ("X-Forwarded-For: 192.0.2.1:4711", "X-Forwarded-Proto: WSS", "X-Forwarded-Host: pub.example"),
        ("Forwarded: for=192.0.2.1;proto=https;host=pub.example",),
        ('forwarded: For="192.0.2.1:4711" ; Proto=https;host="pub.exa\\mple";by=_x',),
        ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: pub.example", "Via: 1.1 x"),
        (
            *("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: pub.example"),
            "Forwarded: for=192.0.2.1;proto=https;host=pub.example",
        ),
    ],
)
def test_a_trusted_proxy_names_the_client(lines: tuple[str, ...], peer: str) -> None:
    """With its address, and the scheme and the Host that the client used."""
    assert client(*lines, peer=peer) == ClientEndpoint("192.0.2.1", "https", "pub.example")


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (("X-Forwarded-For: 192.0.2.66, 192.0.2.1",), "192.0.2.1"),
        (("X-Forwarded-For: 192.0.2.66, 192.0.2.1, 10.0.0.2, 10.0.0.3",), "192.0.2.1"),
        (("X-Forwarded-For: 192.0.2.66", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.0.0.2"), "192.0.2.1"),
        (("X-Forwarded-For: rubbish, 192.0.2.1",), "192.0.2.1"),
        (("X-Forwarded-For: 10.0.0.9, 10.0.0.2",), "10.0.0.9"),
        (("X-Forwarded-For: [2001:db8::1]:80, fd00::2",), "2001:db8::1"),
        (("X-Forwarded-For: ::ffff:192.0.2.1",), "192.0.2.1"),
        (("Forwarded: for=192.0.2.66, for=192.0.2.1, for=10.0.0.2",), "192.0.2.1"),
        (
            ("Forwarded: for=192.0.2.66", 'Forwarded: for="[2001:db8::1]";proto=https, for="[fd00::2]:80"'),
            "2001:db8::1",
        ),
        (('Forwarded: for=192.0.2.66;host=", for=10.0.0.9", for=192.0.2.1',), "192.0.2.1"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_trusted_proxy(lines: tuple[str, ...], address: str) -> None:
    """The client can write everything to the left of its own address."""
    assert client(*lines).address == address


@pytest.mark.parametrize(
    "lines",
    [
        ("X-Forwarded-For: rubbish", "X-Forwarded-Proto: https"),
        ("X-Forwarded-For:", "X-Forwarded-Proto: https"),
        ("X-Forwarded-For: 192.0.2.1, ", "X-Forwarded-Proto: https"),
        ("X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.2",),
        ("X-Forwarded-For: 192.0.2.1 192.0.2.2",),
        ("X-Forwarded-For: 192.0.2.256",),
        ("X-Forwarded-For: 3221225985",),
        ('X-Forwarded-For: "192.0.2.1"',),
        ("Forwarded: for=unknown;proto=https",),
        ("Forwarded: for=_hidden;proto=https",),
        ("Forwarded: proto=https",),
        ("Forwarded: for=192.0.2.1;for=192.0.2.2",),
        ("Forwarded: for=[2001:db8::1]",),
        ('Forwarded: for="192.0.2.1',),
        ("Forwarded: for=192.0.2.1,",),
        ("Forwarded: for=192.0.2.1 proto=https",),
        ("Forwarded: 192.0.2.1",),
        ("X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.2", "X-Forwarded-Proto: https"),
        ("X-Forwarded-For: 192.0.2.1", "Forwarded: rubbish", "X-Forwarded-Proto: https"),
    ],
)
def test_malformed_or_conflicting_headers_do_not_count(lines: tuple[str, ...]) -> None:
    """The client is then the proxy itself. A client can send the header that its proxy does not write."""
    assert client(*lines) == DIRECT


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("X-Forwarded-Proto: https",), ClientEndpoint(PEER, "https", "hub.example")),
        (
            ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: gopher"),
            ClientEndpoint("192.0.2.1", "http", "hub.example"),
        ),
        (
            ("X-Forwarded-For: 192.0.2.1, 10.0.0.2", "X-Forwarded-Proto: https", "X-Forwarded-Host: pub.example"),
            ClientEndpoint("192.0.2.1", "https", "pub.example"),
        ),
        (
            (
                *("X-Forwarded-For: 192.0.2.66, 192.0.2.1, 10.0.0.2", "X-Forwarded-Proto: http, https, http"),
                "X-Forwarded-Host: evil.example, pub.example, inner.example",
            ),
            ClientEndpoint("192.0.2.1", "https", "pub.example"),
        ),
        (("Forwarded: for=192.0.2.1;proto=https, for=10.0.0.2;proto=http;host=i.example",), None),
    ],
)
def test_scheme_and_host_are_those_that_the_nearest_proxy_of_the_client_saw(
    lines: tuple[str, ...], expected: ClientEndpoint | None
) -> None:
    """A proxy appends its value to a list, or replaces the list."""
    assert client(*lines) == (expected or ClientEndpoint("192.0.2.1", "https", "hub.example"))


@pytest.mark.parametrize(
    ("peer", "expectation"),
    [
        *(("127.0.0.1", True), ("10.0.0.9", True), ("192.168.1.2", True), ("::1", True), ("fd00::7", True)),
        *(("10.0.0.7", False), ("::ffff:10.0.0.7", False), ("8.8.8.8", False), ("2606:4700::1", False), ("", False)),
    ],
)
def test_only_a_near_peer_may_be_a_proxy_that_the_settings_lack(peer: str, expectation: bool) -> None:
    """No log line advises to trust a stranger."""
    assert is_forgotten_proxy(peer, ("10.0.0.7",)) is expectation


async def test_without_sign_in_a_request_through_a_proxy_is_refused(hub: Hub) -> None:
    """It is not local, although the proxy is. The error and one log line have the line to set."""
    await hub.start()
    with structlog.testing.capture_logs() as lines:
        for name in ("Forwarded", "X-Forwarded-For", "Via", "x-forwarded-for"):
            for path in ("/health", "/api/v1/agents", "/api/v1/ws"):
                status, text = await fetch(hub, path, {name: ""})
                assert status == 403 and '"refused"' in text and "set sign_in = true in hubbub.toml" in text
    assert [(line["header"], line["hint"]) for line in lines] == [("Forwarded", "set sign_in = true in hubbub.toml")]
    assert (await fetch(hub, "/health", {}))[0] == 200


async def test_with_sign_in_a_request_through_a_proxy_is_accepted(hub: Hub) -> None:
    hub.options = {"sign_in": True}
    await hub.start()
    for name in ("Forwarded", "X-Forwarded-For", "Via"):
        assert (await fetch(hub, "/health", {name: "192.0.2.1"}))[0] == 200


async def test_the_host_of_the_client_is_checked_as_the_host_of_the_proxy_is(hub: Hub) -> None:
    """A page that uses DNS rebinding has a foreign Host, and can send any X-Forwarded-Host."""
    hub.options = {"sign_in": True, "trusted_proxies": ("127.0.0.1",), "hosts": ("hub.example",)}
    await hub.start()
    for headers, status in (
        ({"X-Forwarded-Host": "hub.example"}, 200),
        ({"X-Forwarded-Host": "evil.example"}, 403),
        ({"X-Forwarded-Host": "hub.example", "Host": "evil.example"}, 403),
        ({"X-Forwarded-Host": "hub.example", "Origin": "https://hub.example"}, 200),
        ({"Origin": "https://hub.example"}, 403),
    ):
        assert (await fetch(hub, "/health", headers))[0] == status, headers


async def fetch(hub: Hub, path: str, headers: dict[str, str]) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(hub.url + path, headers=headers) as response:
        return response.status, await response.text()
