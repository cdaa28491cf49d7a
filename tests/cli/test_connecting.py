"""If no hub answers, the terminal says what is wrong, where, and what to do, and never shows a password."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from support.hub import Hub
from support.waiting import PATIENCE

from hub.cli.failures import CommandFailed
from hub.cli.hubs import get_json, open_client
from hub.client import Unreachable, connect
from hub.client.addresses import public_url

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


async def refusal(url: str) -> str:
    """Return the error of a command that uses HTTP; a command that uses a WebSocket must have the same error."""
    with pytest.raises(CommandFailed) as asked:
        await get_json(url, "/sessions")
    with pytest.raises(CommandFailed) as connected:
        async with open_client(url):
            pass
    assert str(connected.value) == str(asked.value)
    assert "\n" not in str(asked.value)
    return str(asked.value)


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request], web.Response], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    async def handler(request: web.BaseRequest) -> web.Response:
        assert isinstance(request, web.BaseRequest)
        return answer(request)  # type: ignore[arg-type]

    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "what", "to_do"),
    [
        (401, "asks for a name and a password", "NAME:PASSWORD@HOST"),
        (403, "refuses access from here", "ask the people who run it"),
        (404, "is not a hub; it answers 404 Not Found", "--url"),
        (200, "is not a hub; it answers 200 OK", "--url"),
        (502, "a proxy that cannot reach its hub", "start the hub"),
        (504, "a proxy that cannot reach its hub", "start the hub"),
    ],
)
async def test_a_server_that_is_not_a_hub_is_reported(status: int, what: str, to_do: str) -> None:
    """A proxy or another server: the error comes from its status, not from its page."""
    async with serving(lambda _: web.Response(status=status, text="<html>", content_type="text/html")) as port:
        line = await refusal(f"http://name:secret@127.0.0.1:{port}")
    assert line.startswith(f"http://127.0.0.1:{port} ") and what in line and to_do in line and "secret" not in line


async def test_the_target_of_a_redirect_is_in_the_error() -> None:
    """So the user can correct the address."""
    async with serving(lambda _: web.Response(status=404)) as port:
        to = f"http://127.0.0.1:{port}"
        async with serving(lambda _: web.Response(status=302, headers={"Location": f"{to}/login"})) as first:
            assert f"http://127.0.0.1:{first}, which leads to {to}, " in await refusal(f"http://127.0.0.1:{first}")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://name:secret@127.0.0.1:1", "no hub answers at http://127.0.0.1:1: start one"),
        ("http://name:secret@nowhere.invalid", "there is no host nowhere.invalid: "),
        ("http://name:secret@[::1", "http://[::1 is not the address of a hub: write one such as http://localhost:9527"),
        ("http://name:se/cret@127.0.0.1", "http://127.0.0.1 is not the address of a hub: "),
        ("name:secret@127.0.0.1:99999", "http://127.0.0.1:99999 is not the address of a hub: "),
        ("ftp://name:secret@127.0.0.1", "ftp://127.0.0.1 is not the address of a hub: "),
        ("http://name:secret@a..b", "http://a..b is not the address of a hub: "),
    ],
)
async def test_an_address_without_a_hub_is_reported(url: str, line: str) -> None:
    """Each kind of bad address has its own error."""
    error = await refusal(url)
    assert error.startswith(line) and "cret" not in error


async def test_a_server_that_closes_the_connection_at_once_may_need_https(tmp_path: Path) -> None:
    """A server that expects TLS does so."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert "if it speaks TLS, write https://" in await refusal(f"http://127.0.0.1:{port}")


async def test_https_to_a_hub_without_tls_is_reported(hub: Hub) -> None:
    """The error says to write http:// instead."""
    await hub.start()
    assert "write http://" in await refusal(f"https://name:secret@127.0.0.1:{hub.port}")


@needs_openssl
async def test_an_untrusted_certificate_is_reported(tmp_path: Path) -> None:
    """The error says why, and how to trust it."""
    files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate"))
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", *files)
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    async with serving(lambda _: web.Response(), tls) as port:
        line = await refusal(f"https://name:secret@localhost:{port}")
    assert line.startswith(f"the certificate of https://localhost:{port} is not trusted (self-signed certificate)")
    assert "SSL_CERT_FILE" in line and "secret" not in line


async def test_a_proxy_that_does_not_pass_on_the_upgrade_is_reported() -> None:
    """HTTP works, but the WebSocket does not: the error names the header `Upgrade`."""

    def answer(request: web.Request) -> web.Response:
        if request.headers.get("Upgrade"):
            return web.Response(status=400)
        return web.json_response({"data": []})

    async with serving(answer) as port:
        with pytest.raises(CommandFailed, match="no WebSocket.* with 400.*must pass on the header `Upgrade`"):
            async with open_client(f"http://127.0.0.1:{port}"):
                pass


async def test_the_client_shows_no_password() -> None:
    """Not even for an address that is not valid."""
    for url in ("ws://name:secret@127.0.0.1:1/api/v1/ws", "ws://name:se/cret@127.0.0.1/"):
        with pytest.raises(Unreachable) as failure:
            async with connect(url, patience=0):
                pass
        assert "cret" not in str(failure.value) and "127.0.0.1" in str(failure.value)


@pytest.mark.parametrize("url", ["https://name:p@ss@hub.example/api/v1", "wss://name:se?cret@hub.example/api/v1/ws"])
def test_an_address_is_shown_without_its_password(url: str) -> None:
    """Also a password with characters that end an address."""
    assert public_url(url) == "https://hub.example"
