"""Requests that a proxy has changed, or with unknown names: the answer and the log line say what to write where."""

import asyncio
import json
import re
import tomllib
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import attrs
import pytest
import structlog
from support.documents import DOCS, rows
from support.hub import Hub
from support.sockets import read_response

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.web import refusal_log

KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE, CONNECTION = "Upgrade: websocket\r\n", "Connection: Upgrade\r\n"
NGINX = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def log_lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@attrs.frozen
class Answer:
    status: int
    head: str
    code: str
    error: str


async def send(hub: Hub, headers: str = "", path: str = "/health", host: str = "", version: str = "1.1") -> Answer:
    """Send a request over a raw socket, and read the answer until the hub closes the connection."""
    request = f"GET {path} HTTP/{version}\r\nHost: {host or f'127.0.0.1:{hub.port}'}\r\n{headers}"
    if "Connection" not in headers:
        request += "Connection: close\r\n"
    data = await read_response(hub.port, f"{request}\r\n".encode("latin-1"))
    head, _, body = data.decode().partition("\r\n\r\n")
    fields = json.loads(body) if body.startswith("{") else {"error": body, "code": ""}
    if int(head.split()[1]) in (403, 426, 505) and "newer client" not in body:
        address = "192.0.2.1" if "X-Forwarded-For" in headers and hub.door.settings.trusted_proxies else "127.0.0.1"
        assert f"(the client is {address})" in fields["error"]
    return Answer(int(head.split()[1]), head, fields["code"], fields["error"])


@pytest.fixture
async def served(hub: Hub) -> AsyncIterator[Hub]:
    yield await hub.start()


# --- WebSockets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/ws", "/api/v1/agents/echo/ws", "/api/v1/ws?sessionId=s1&token=x"])
@pytest.mark.parametrize(
    ("headers", "names"),
    [
        (KEY, "Upgrade and Connection"),
        (KEY + CONNECTION, "Upgrade"),
        (KEY + UPGRADE + "Connection: close\r\n", "Connection"),
        (KEY + UPGRADE, "Connection"),
        (KEY + CONNECTION + "Upgrade: h2c\r\n", "Upgrade"),
    ],
)
async def test_a_handshake_without_upgrade_names_the_lines_for_the_proxy(
    served: Hub, log_lines: Lines, path: str, headers: str, names: str
) -> None:
    """Only a proxy removes these headers, and keeps the key."""
    answer = await send(served, headers, path)
    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert f"a proxy removed {names} from the handshake" in answer.error and NGINX in answer.error
    assert "Upgrade: websocket" in answer.head and "Connection: close, Upgrade" in answer.head  # RFC 9110, 15.5.22
    (line,) = log_lines
    assert line["event"] == "WebSocket without Upgrade refused" and line["address"] == "127.0.0.1"
    assert names in line["cause"] and NGINX in line["hint"] and "token" not in str(line)


@pytest.mark.parametrize("headers", ["", "Accept: text/html\r\n", UPGRADE, "Origin: http://localhost:1\r\n"])
async def test_a_browser_that_opens_the_address_of_a_websocket_is_told_so(
    served: Hub, log_lines: Lines, headers: str
) -> None:
    answer = await send(served, headers, "/api/v1/ws")
    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert "this address is for WebSockets" in answer.error
    assert f'new WebSocket("ws://127.0.0.1:{served.port}/api/v1/ws")' in answer.error
    assert [line["address"] for line in log_lines] == ["127.0.0.1"]


@pytest.mark.parametrize("path", ["/api/v1/ws", "/hubbub/api/v1/ws"])
async def test_the_address_of_the_websocket_is_that_of_the_client(hub: Hub, log_lines: Lines, path: str) -> None:
    """Behind a trusted proxy, with its scheme, its host and its path. The log line has the address of the client."""
    hub.options = {"sign_in": True, "trusted_proxies": ("127.0.0.1",), "base_path": "/hubbub", "hosts": ("a.example",)}
    await hub.start()
    forwarded = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n"
    assert '"wss://a.example/hubbub/api/v1/ws"' in (await send(hub, forwarded, path)).error
    assert [line["address"] for line in log_lines] == ["192.0.2.1"]


async def test_a_handshake_of_another_version_is_told_the_right_one(served: Hub) -> None:
    """RFC 6455, 4.2.2."""
    answer = await send(served, UPGRADE + CONNECTION + KEY.replace("13", "12"), "/api/v1/ws")
    assert answer.status == 426 and "Sec-WebSocket-Version: 13" in answer.head


async def test_a_correct_handshake_is_accepted(served: Hub) -> None:
    """With any case, and among other values of Connection, as Firefox sends it."""
    client = await served.connect(headers={"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"})
    await client.send(type="ping")
    assert (await client.next())["type"] == "pong"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/v1/ws", KEY),
        ("/api/v1/agents/echo/ws", ""),
        ("/api/v1/sessions/s1/events", "Accept: text/event-stream\r\n"),
    ],
)
async def test_http_1_0_is_refused_with_the_lines_for_the_proxy(
    served: Hub, log_lines: Lines, path: str, headers: str
) -> None:
    """For a WebSocket and for a stream. Other requests are answered, and write no line."""
    answer = await send(served, headers, path, version="1.0")
    assert (answer.status, answer.code) == (505, "http_version_not_supported") and NGINX in answer.error
    assert (await send(served, version="1.0")).error == "OK"
    assert [(line["event"], line["address"]) for line in log_lines] == [("HTTP/1.0 refused", "127.0.0.1")]
    assert NGINX in log_lines[0]["hint"] and "HTTP/1.0" in log_lines[0]["cause"]


# --- Host and Origin --------------------------------------------------------------------------------------------------


def read_line(text: str, name: str) -> str:
    """Return the line for the setting *name* in a hint."""
    match = re.search(rf'{name} = (?:\[[^\]]*\]|"[^"]*")', text)
    assert match is not None, text
    return match[0]


async def apply(hub: Hub, line: str) -> None:
    """Change the settings of the hub as an operator does who writes the line into hubbub.toml."""
    pairs = tomllib.loads(line).items()
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in pairs}
    settings = attrs.evolve(hub.door.settings, **values)
    await commands.change_settings(hub.door, OPERATOR, settings)


@pytest.mark.parametrize("host", ["hub.example", "HUB.example:8443", "10.0.0.7:80", "[2001:db8::1]:9527"])
async def test_the_line_for_a_refused_host_lets_it_in(served: Hub, log_lines: Lines, host: str) -> None:
    """The line of the log keeps the other names of the setting. The answer does not tell them to strangers."""
    await apply(served, 'hosts = ["known.example"]')
    answer = await send(served, host=host)
    assert (answer.status, answer.code) == (403, "refused")
    assert f" {host} " in answer.error and "known.example" not in answer.error
    (line,) = log_lines
    assert (line["event"], line["address"], line["value"]) == ("Host refused", "127.0.0.1", f"'{host}'")
    await apply(served, read_line(answer.error, "hosts"))
    assert (await send(served, host=host)).status == 200
    await apply(served, read_line(line["hint"], "hosts"))
    assert {(await send(served, host=name)).status for name in (host, "known.example")} == {200}


@pytest.mark.parametrize("origin", ["https://chat.example", "http://10.0.0.7:8080", "null", "chrome-extension://abc"])
async def test_the_line_for_a_refused_origin_lets_it_in(served: Hub, log_lines: Lines, origin: str) -> None:
    """Also for a page that was opened from disk, with a better way."""
    await apply(served, 'origins = ["https://known.example"]')
    answer = await send(served, f"Origin: {origin}\r\n")
    assert (answer.status, answer.code) == (403, "refused")
    assert f" {origin} " in answer.error and "known.example" not in answer.error
    assert ("python3 -m http.server" in answer.error) is (origin == "null")
    (line,) = log_lines
    assert (line["event"], line["address"], line["value"]) == ("Origin refused", "127.0.0.1", f"'{origin}'")
    await apply(served, read_line(line["hint"], "origins"))
    for name in (origin, "https://known.example"):
        assert (await send(served, f"Origin: {name}\r\n")).status == 200


APP_ORIGINS = [
    *("app://obsidian.md", "capacitor://localhost", "tauri://localhost"),
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "moz-extension://5b1f6b3e-3b1b-4c1e-9d0f-0a5d5a3c7e21",
]
APP_ROWS = [row for row in rows(DOCS["operations"]) if len(row) == 3 and row[2] in ("`origins`", "`hosts`")]


@pytest.mark.parametrize("origin", APP_ORIGINS)
async def test_an_app_connects_with_its_origin_in_the_settings(served: Hub, log_lines: Lines, origin: str) -> None:
    """As the page on operation says. Without it, the answer and the log have the line to write."""
    scheme = origin.partition("://")[0]
    assert any(f"`{scheme}://" in row[1] for row in APP_ROWS)
    header = f"Origin: {origin}\r\n"
    for path, headers in (("/health", ""), ("/api/v1/ws", KEY + UPGRADE + CONNECTION)):
        answer = await send(served, header + headers, path)
        assert answer.status == 403 and f'origins = ["{origin}"]' in answer.error
    assert f'origins = ["{origin}"]' in log_lines[0]["hint"]
    await apply(served, f'origins = ["{origin}"]')
    answer = await send(served, header, "/health")
    assert answer.status == 200 and f"Access-Control-Allow-Origin: {origin}" in answer.head
    client = await served.connect(headers={"Origin": origin})
    await client.send(type="ping")
    assert (await client.next())["type"] == "pong"
    assert (await send(served, f"Origin: {origin}x\r\n")).status == 403


@pytest.mark.parametrize("origin", ["http://tauri.localhost", "https://tauri.localhost", "http://localhost"])
async def test_an_app_with_an_origin_of_this_machine_needs_no_setting(served: Hub, origin: str) -> None:
    """Tauri on Windows and Android, and Obsidian on Android."""
    assert (await send(served, f"Origin: {origin}\r\n")).status == 200


async def test_a_program_in_a_container_needs_the_name_of_its_host(served: Hub) -> None:
    assert any("`host.docker.internal`" in row[1] for row in APP_ROWS)
    host = f"host.docker.internal:{served.port}"
    answer = await send(served, host=host)
    assert answer.status == 403 and 'hosts = ["host.docker.internal"]' in answer.error
    await apply(served, read_line(answer.error, "hosts"))
    assert (await send(served, host=host)).status == 200


async def test_the_page_of_the_hub_behind_a_bare_proxy_pass_needs_the_public_url(served: Hub) -> None:
    """nginx then sends the address of the hub as Host, and nothing else."""
    origin = "Origin: https://hub.example\r\n"
    await apply(served, read_line((await send(served, origin)).error, "public_url"))
    assert (await send(served, origin)).status == 200


async def test_the_line_for_a_proxy_that_is_not_trusted_lets_its_pages_in(hub: Hub, log_lines: Lines) -> None:
    """The hub sees that the Origin is its own, if it believes the peer of the connection."""
    hub.options["sign_in"] = True
    await hub.start()
    headers = "Origin: https://hub.example\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: hub.example\r\n"
    answer = await send(hub, headers)
    assert answer.status == 403 and log_lines[0]["setting"] == "trusted_proxies"
    await apply(hub, read_line(log_lines[0]["hint"], "trusted_proxies"))
    answer = await send(hub, headers)
    assert (answer.status, log_lines[1]["event"]) == (403, "Host refused")  # now the hub knows that it is named so
    await apply(hub, read_line(answer.error, "hosts"))
    assert (await send(hub, headers)).status == 200


@pytest.mark.parametrize("header", ["Host", "Origin"])
@pytest.mark.parametrize(
    "value",
    [
        *("evil.example\t\x1b[31m", "a" * 5000, 'a.example", "b', "https://a.example\\", "\x80\xff.example", "a b"),
        *("https://a.example/path", "https://u:p@a.example", "https://a.example\u00a0", "HTTPS://A.EXAMPLE"),
    ],
)
async def test_a_malformed_value_is_shown_with_escapes_and_never_as_a_line(
    served: Hub, log_lines: Lines, header: str, value: str
) -> None:
    answer = await send(served, *(("", "/health", value) if header == "Host" else (f"Origin: {value}\r\n",)))
    if answer.status == 400:  # aiohttp refuses it
        assert not log_lines
        return
    assert answer.status == 403 and "hubbub.toml" not in answer.error and len(answer.error) < 1500
    (line,) = log_lines
    assert all(character.isprintable() for character in f"{line['value']}{line['hint']}{answer.error}")
    assert line["value"].isascii() and len(line["value"]) < 1000


# --- under attack -----------------------------------------------------------------------------------------------------


async def test_a_flood_of_one_kind_writes_one_line_and_hides_no_other_kind(
    hub: Hub, log_lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 10 seconds (in this test: in more), each kind has one line. The metrics count all refusals."""
    monkeypatch.setattr(refusal_log, "REFUSAL_LOG_SECONDS", 1e6)
    hub.options["trusted_proxies"] = ()
    await hub.start()
    for number in range(50):
        host, origin = f"evil-{number}.example", f"Origin: https://evil-{number}.example\r\n"
        requests = [
            *(send(hub, host=host), send(hub, origin), send(hub, KEY, "/api/v1/ws"), send(hub, "", "/api/v1/ws")),
            *(send(hub, KEY, "/api/v1/ws", version="1.0"), send(hub, "X-Forwarded-For: 192.0.2.1\r\n")),
        ]
        assert [answer.status for answer in await asyncio.gather(*requests)] == [403, 403, 426, 426, 505, 403]
    assert sorted(line["event"] for line in log_lines) == sorted(
        {
            *("Host refused", "Origin refused", "WebSocket without Upgrade refused", "HTTP/1.0 refused"),
            *("plain request to a WebSocket refused", "a request through a proxy refused"),
        }
    )
    refusals = hub.door.counters.door.refusals
    assert (refusals["refused"], refusals["upgrade_required"]) == (150, 100)


# --- unknown paths ----------------------------------------------------------------------------------------------------


async def test_an_unknown_path_names_the_setting_for_a_path_of_the_proxy(served: Hub) -> None:
    """A proxy that passes its path on needs base_path. A path with // comes from a wrong proxy_pass."""
    for path in ("/team/hub/api/v1/ws", "/team/hub/"):
        answer = await send(served, KEY, path)
        assert answer.status == 404 and 'write base_path = "/team/hub" in hubbub.toml' in answer.error
    assert "proxy_pass" in (await send(served, path="//api/v1/ws")).error
    for path in ("/nothing", "/api/v1/nothing/", '/a"b/api/v1/ws', "/%0d%0a/api/v1/ws", "/../api/v1/nothing"):
        assert "base_path" not in (await send(served, path=path)).error
