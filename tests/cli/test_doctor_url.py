"""`hubbub doctor --url` tries the way through a proxy."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.doctor import examine
from support.http_proxy import HttpProxy, run_http_proxy
from support.process import HubProcess
from yarl import URL

from hub.cli.doctor.findings import Finding
from hub.cli.doctor.proxy_checks import check_proxy
from hub.limits import Limits
from hub.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one agent that works."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text("def echo(message):\n    yield message\n")
    return tmp_path


@pytest.fixture
async def process(folder: Path) -> AsyncIterator[HubProcess]:
    """A hub with sign-in that trusts the proxies of this machine, and whose users a proxy names."""
    running = HubProcess(folder)
    try:
        yield await running.start(
            sign_in="true",
            public_url="http://localhost",
            trusted_proxies="127.0.0.1",
            user_header="X-User",
            limits_file_bytes=2**21,
        )
    finally:
        await running.kill()


async def try_url(process: HubProcess, url: str) -> list[Finding]:
    """Return what the doctor finds on the way of *url*."""
    settings = Settings(
        sign_in=True,
        data=process.folder / "data",
        trusted_proxies=("127.0.0.1",),
        user_header="X-User",
        limits=Limits(file_bytes=2**21),
    )
    return await asyncio.to_thread(lambda: [*check_proxy(settings, URL(url))])


def wrongs(findings: list[Finding]) -> Iterator[str]:
    return (finding.text for finding in findings if finding.level == "wrong")


async def test_a_good_proxy_needs_nothing(process: HubProcess) -> None:
    """Each part of the way is reported."""
    async with run_http_proxy(HttpProxy(hub_port=process.port, lost_headers={"x-user"})) as url:
        findings = await try_url(process, url)
    assert [*wrongs(findings)] == []
    text = " ".join(finding.text for finding in findings)
    for part in ("arrive unchanged", "X-Forwarded-For", "the client is 127.0.0.1, over http", "cannot claim"):
        assert part in text
    for part in ("arrive at once", "WebSockets open, with the protocol hubbub.v1", "an upload of 2 MiB arrives"):
        assert part in text


async def test_the_hub_itself_is_recognised(process: HubProcess) -> None:
    """Then a forged header is not the mistake of a proxy."""
    findings = await try_url(process, process.url.replace("127.0.0.1", "localhost"))
    assert [*wrongs(findings)] == [] and "is the hub itself, without a proxy" in findings[0].text


# The options of a proxy, what is found, and the remedy: lines for nginx, Caddy and HAProxy.
MISTAKES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"version": "1.0", "keep_upgrade": False}, ["HTTP/1.0", "Upgrade does not arrive"], ["proxy_http_version 1.1;"]),
    ({"keep_host": False}, ["the Host localhost:"], ["proxy_set_header Host $http_host;", "remove header_up Host"]),
    ({"keep_upgrade": False}, ["no WebSocket opens"], ["proxy_set_header Upgrade $http_upgrade;", "option httpclose"]),
    (
        {"name_client": False},
        ["does not name the address of its clients"],
        [
            "X-Forwarded-For $remote_addr;",
            "header_up X-Forwarded-For {remote_host}",
            "set-header X-Forwarded-For %[src]",
        ],
    ),
    ({"scheme": "https"}, ["requests over http look like https"], ["X-Forwarded-Proto $scheme;", "if { ssl_fc }"]),
    ({"stores_responses": True}, ["are buffered"], ["proxy_buffering off;", "flush_interval -1"]),
    ({"max_body": 2**20}, ["an upload of 2 MiB does not arrive", "413"], ["client_max_body_size 3m;", "3MiB"]),
    ({"max_body": 2**19}, ["neither an upload of 2 MiB nor a message of 1 MiB"], ["client_max_body_size 3m;"]),
    ({"cuts_sockets": True}, ["closed before its first message"], ["proxy_read_timeout", "timeout tunnel"]),
    ({"lost_headers": {"authorization"}}, ["Authorization does not arrive", "keys"], ["$http_authorization;"]),
    ({"lost_headers": {"cookie"}}, ["Cookie does not arrive", "stay signed in"], ["header_up Cookie {header.Cookie}"]),
    ({"lost_headers": {"last-event-id"}}, ["Last-Event-ID does not", "cannot resume"], ["del-header Last-Event-ID"]),
    ({"lost_headers": {"idempotency-key"}}, ["Idempotency-Key does not", "twice"], ["$http_idempotency_key;"]),
    ({"lost_headers": {"origin"}}, ["the Origin http://localhost:", "as nothing"], ["Origin $http_origin;"]),
    ({"lost_headers": {"sec-websocket-protocol"}}, ["Sec-WebSocket-Protocol"], ["$http_sec_websocket_protocol;"]),
    ({"status": 502}, ["the answer has the status 502, and comes from a proxy"], ["in nginx: proxy_pass http://127."]),
    ({"status": 401}, ["the answer has the status 401"], ["let the proxy pass on /api/v1/echo"]),
    ({"keep_forwarded": True, "name_client": False}, ["claim any address", "claim any Host"], ["X-Forwarded-Host"]),
    ({"keep_forwarded": True}, ["can hide its address: the proxy passes on the Forwarded"], ['Forwarded "";']),
    ({"lost_headers": set()}, ["can sign in as any user: the proxy passes on the X-User"], ["X-User $remote_user;"]),
]


async def test_each_mistake_of_a_proxy_is_found(process: HubProcess) -> None:
    """With the lines that fix it, for each proxy."""
    places = asyncio.Semaphore(4)

    async def check_mistake(options: dict[str, Any], fragments: list[str], remedies: list[str]) -> None:
        if options.get("lost_headers") != set():
            options = options | {"lost_headers": {"x-user"} | options.get("lost_headers", set())}
        async with places, run_http_proxy(HttpProxy(hub_port=process.port, **options)) as url:
            findings = [finding for finding in await try_url(process, url) if finding.level == "wrong"]
        text, remedy = ("\n".join(getattr(finding, name) for finding in findings) for name in ("text", "remedy"))
        assert options.get("version") != "1.0" or "stream through" not in text
        assert all(fragment in text for fragment in fragments), (options, findings)
        assert all(fragment in remedy for fragment in remedies), (options, findings)

    await asyncio.gather(*(check_mistake(*mistake) for mistake in MISTAKES))


async def test_a_slow_way_gets_advice(process: HubProcess) -> None:
    """Compressed streams, and bodies that the proxy stores."""
    proxy = HttpProxy(hub_port=process.port, lost_headers={"x-user"}, compresses=True, stores_bodies=True)
    async with run_http_proxy(proxy) as url:
        findings = await try_url(process, url)
    assert [*wrongs(findings)] == []
    (advice,) = [finding for finding in findings if finding.level == "advice"]
    assert "compresses streams (gzip)" in advice.text and "in nginx: gzip off;" in advice.remedy
    assert "but the proxy stores it first" in findings[-1].text and "request_buffering off;" in findings[-1].remedy


async def test_a_path_without_its_setting_is_found(process: HubProcess) -> None:
    """If the proxy removes it, and if not."""
    for prefix, fragment in (("/hubbub", "the address has the path /hubbub, but base_path is not set"), ("", "404")):
        async with run_http_proxy(HttpProxy(hub_port=process.port, prefix=prefix)) as url:
            findings = await try_url(process, f"{url.removesuffix('/hubbub')}/hubbub/")
        (finding,) = [finding for finding in findings if fragment in finding.text]
        assert (finding.level, finding.remedy) == ("wrong", 'base_path = "/hubbub"')


@pytest.mark.parametrize("status", [200, 404])
async def test_an_address_without_its_path_is_found(process: HubProcess, status: int) -> None:
    """Where another service answers. The remedy has the path."""
    settings = Settings(data=process.folder / "data", sign_in=True, base_path="/hubbub")
    async with run_http_proxy(HttpProxy(hub_port=process.port, status=status)) as url:
        (finding,) = await asyncio.to_thread(lambda: [*check_proxy(settings, URL(url))])
    assert finding.level == "wrong" and f"status {status}" in finding.text and "base_path is /hubbub" in finding.text
    assert finding.remedy == f"hubbub doctor --url {url}/hubbub"


@pytest.mark.parametrize("prefix", ["", "/hubbub"], ids=["kept", "removed"])
async def test_a_path_with_its_setting_needs_nothing(folder: Path, prefix: str) -> None:
    variables: dict[str, Any] = {
        "sign_in": "true",
        "allow_http": "true",
        "trusted_proxies": "127.0.0.1",
        "public_url": "http://localhost",
        "base_path": "/hubbub",
    }
    process = HubProcess(folder)
    try:
        await process.start(**variables)
        async with run_http_proxy(HttpProxy(hub_port=process.port, prefix=prefix)) as url:
            address = f"{url.removesuffix('/hubbub')}/hubbub"
            names = {f"HUBBUB_{name.upper()}": value for name, value in variables.items()}
            report = await examine(folder, "--url", address, **names | {"HUBBUB_PUBLIC_URL": url.removesuffix(prefix)})
    finally:
        await process.kill()
    assert report.problems == [] and "messages arrive" in str(report)


async def test_an_untrusted_proxy_is_found(folder: Path) -> None:
    """The remedy has its address."""
    process = HubProcess(folder)
    try:
        await process.start(sign_in="true")
        async with run_http_proxy(HttpProxy(hub_port=process.port)) as url:
            report = await examine(folder, "--url", url, HUBBUB_SIGN_IN="true")
    finally:
        await process.kill()
    assert report.find("is not trusted").remedy == 'trusted_proxies = ["127.0.0.1"]'


@pytest.mark.parametrize(
    ("sign_in", "level", "remedy"),
    [("true", "wrong", 'trusted_proxies = ["ADDRESS"]'), ("false", "wrong", "sign_in = true")],
)
async def test_a_proxy_that_the_settings_do_not_know_is_seen(
    folder: Path, sign_in: str, level: str, remedy: str
) -> None:
    """The running hub has counted its requests."""
    process = HubProcess(folder)
    try:
        await process.start(sign_in=sign_in)
        assert not (await examine(folder, HUBBUB_SIGN_IN=sign_in)).problems
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{process.url}/health", headers={"X-Forwarded-For": "192.0.2.1"}) as response:
                assert response.status == (200 if sign_in == "true" else 403)
        finding = (await examine(folder, HUBBUB_SIGN_IN=sign_in)).find("1 requests came through a proxy")
    finally:
        await process.kill()
    assert finding.level == level and finding.remedy.startswith(remedy)


async def test_a_proxy_without_sign_in_is_refused(folder: Path) -> None:
    process = HubProcess(folder)
    try:
        await process.start()
        async with run_http_proxy(HttpProxy(hub_port=process.port)) as url:
            report = await examine(folder, "--url", url)
    finally:
        await process.kill()
    finding = report.find("the hub refuses requests that come through")
    assert "a proxy passed this request on (X-Forwarded-For)" in finding.text and finding.remedy == "sign_in = true"


async def test_an_address_that_is_none_is_found(folder: Path) -> None:
    """In one line."""
    for url in ("ftp://localhost", "localhost:1", "http://", "https://[", "https://localhost:99999"):
        assert (await examine(folder, "--url", url)).problems == [f"--url {url}: write it as https://hub.example.com"]


async def test_an_address_that_cannot_be_reached_is_found(process: HubProcess) -> None:
    """In one line, without a token."""
    for url in ("http://localhost:1", "https://localhost:1", process.url.replace("http", "https")):
        (text,) = wrongs(await try_url(process, url))
        assert url in text and not re.search(r"Traceback|Error\(|hp_", text)


async def test_the_way_can_be_tried_only_with_a_running_hub(folder: Path) -> None:
    report = await examine(folder, "--url", "http://localhost:9")
    assert report.find("no hub runs on the data folder data: start it first").level == "wrong"
