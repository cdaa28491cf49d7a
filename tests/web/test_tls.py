"""TLS by certificate files: https and wss, new certificates, and clients that do not speak TLS."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
import structlog
from support.certificates import CertificateFiles, make_certificate
from support.hub import AGENTS, Client, Hub
from support.process import HubProcess, run_hubbub
from support.sockets import make_upgrade, read_response
from support.waiting import PATIENCE, eventually

from hub.access.doors import make_base_url, make_local_url
from hub.limits import Limits, MiB
from hub.observe.counters import DoorCounters
from hub.settings import ConfigError, Settings
from hub.web.accepting import Acceptor, make_acceptor
from hub.web.certificate import Certificate, make_context, open_certificate

CANARY = "canarytext"
TIMEOUT = aiohttp.ClientTimeout(PATIENCE)


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return make_certificate(tmp_path)


@pytest.fixture
async def process(tmp_path: Path, files: CertificateFiles) -> AsyncIterator[HubProcess]:
    """A process with TLS, on uvloop."""
    running = HubProcess(tmp_path)
    for name, code in AGENTS.items():
        running.agent(f"{name}.py", code)
    try:
        yield running
    finally:
        await running.kill()


async def start(process: HubProcess, files: CertificateFiles, **settings: Any) -> aiohttp.ClientSession:
    """Start a hub with TLS, and return an HTTP client that trusts its certificate."""
    await process.start(tls_certificate=files.file, tls_key=files.key_file, **settings)
    connector = aiohttp.TCPConnector(ssl=files.trust())
    return aiohttp.ClientSession(f"{process.url}/api/v1/", connector=connector, timeout=TIMEOUT)


@attrs.define(eq=False)
class Wire:
    """A relay of bytes between a client and the hub, which records all of them."""

    port: int = 0
    data: bytearray = attrs.Factory(bytearray)
    _server: asyncio.Server | None = None

    async def start(self, hub_port: int) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", hub_port)
            await asyncio.gather(self._pump(reader, hub_writer), self._pump(hub_reader, writer))

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.data += data
            writer.write(data)
        writer.close()

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()


@pytest.fixture
async def acceptor(hub: Hub, files: CertificateFiles) -> AsyncIterator[Acceptor]:
    """An accept loop with TLS of the hub in this process, on asyncio's own loop."""
    await hub.start()
    sock = socket.create_server(("127.0.0.1", 0))
    assert hub._runner is not None and hub._runner.server is not None
    settings = Settings(tls_certificate=files.file, tls_key=files.key_file)
    accept_loop = make_acceptor(settings, hub._runner.server, [sock], DoorCounters(), open_certificate(settings))
    accept_loop.start()
    yield accept_loop
    await accept_loop.stop()


def port_of(acceptor: Acceptor) -> int:
    port: int = acceptor.sockets[0].getsockname()[1]
    return port


async def chat_through(wire: Wire, files: CertificateFiles, message: str) -> str:
    """Chat over wss through the relay, with all ways of delivery, and return the text of the live answer."""
    connector = aiohttp.TCPConnector(ssl=files.trust())
    url = f"https://127.0.0.1:{wire.port}/api/v1/"
    async with aiohttp.ClientSession(url, connector=connector, timeout=TIMEOUT) as http:
        client = Client(http, await http.ws_connect("ws?sessionId=s1", max_msg_size=0))
        await client.send(type="chat", agentId="echo", message=message)
        await client.until_done()
        late = Client(http, await http.ws_connect("ws?sessionId=s1&afterSeq=0", max_msg_size=0))
        await late.until_done()
        assert late.text() == client.text()
        async with http.get("sessions/s1/events?afterSeq=0", headers={"Accept": "text/event-stream"}) as stream:
            body = b""
            while b"run_finished" not in body:
                body += await stream.content.readany()
        assert CANARY.encode() in body
        headers = {"Content-Type": "text/plain"}
        async with http.post("files?sessionId=s1&name=a.txt", data=CANARY * 10_000, headers=headers) as response:
            file_id = (await response.json())["fileId"]
        async with http.get(f"files/{file_id}") as response:  # which aiohttp sends with sendfile() without TLS
            assert await response.text() == CANARY * 10_000
        await client.ws.close()
        await late.ws.close()
        return client.text()


async def check_bytes(port: int, files: CertificateFiles) -> None:
    """Chat, and check that not a word is on the wire, and that the text is exact."""
    wire = Wire()
    await wire.start(port)
    message = " ".join(f"{CANARY}{number}" for number in range(3000))
    assert await chat_through(wire, files, message) == message + " "
    wire.stop()
    assert len(wire.data) > 3 * len(message)
    assert CANARY.encode() not in wire.data and b"HTTP/1.1" not in wire.data and b"sessionId" not in wire.data


async def test_all_bytes_go_through_tls(process: HubProcess, files: CertificateFiles) -> None:
    """Live frames, the catch-up, an event stream and a file, on uvloop."""
    await (await start(process, files)).close()
    await check_bytes(process.port, files)


async def test_all_bytes_go_through_tls_on_the_loop_of_asyncio(acceptor: Acceptor, files: CertificateFiles) -> None:
    """Its transports for TLS differ from those of uvloop."""
    await check_bytes(port_of(acceptor), files)


async def test_a_client_of_tls_that_does_not_read_is_cut(process: HubProcess, files: CertificateFiles) -> None:
    """The high-water mark and the limit of time hold for TLS, and other clients get all text meanwhile."""
    process.agent("flood.py", "async def flood(message: str):\n    for _ in range(400):\n        yield 'x' * 10_000\n")
    async with await start(process, files, limits_stuck_seconds=1) as http, AsyncExitStack() as stack:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", process.port))
        name = "127.0.0.1"
        reader, writer = await asyncio.open_connection(sock=sock, ssl=files.trust(), server_hostname=name)
        stack.callback(writer.transport.abort)
        head = f"GET /api/v1/ws?sessionId=s1 HTTP/1.1\r\nHost: {name}:{process.port}\r\nUpgrade: websocket\r\n"
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        writer.write(f"{head}Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        client = Client(http, await http.ws_connect("ws?sessionId=s1", max_msg_size=0))
        await client.send(type="chat", agentId="flood", message="")
        await client.until_done()
        assert len(client.text()) == 4_000_000
        await eventually(lambda: "the client reads nothing" in process.log)


async def test_the_addresses_are_those_of_https(process: HubProcess, files: CertificateFiles) -> None:
    """In the banner, and for the commands of the terminal, which check the certificate."""
    await (await start(process, files)).close()
    assert f"https://127.0.0.1:{process.port}  (the console)" in process.log
    assert f"wss://127.0.0.1:{process.port}/api/v1/ws" in process.log
    output = await run_hubbub(process.folder, "sessions", HUBBUB_URL=process.url, SSL_CERT_FILE=files.file)
    assert (output.code, output.err) == (0, ""), output
    output = await run_hubbub(process.folder, "chat", "echo", HUBBUB_URL=process.url, SSL_CERT_FILE=files.file)
    assert output.code == 1 and "not trusted" not in output.err  # it has no message to send
    output = await run_hubbub(process.folder, "sessions", HUBBUB_URL=process.url)
    assert output.code == 1 and "not trusted" in output.err


def test_the_terminal_uses_the_public_name_of_a_hub_with_a_certificate(tmp_path: Path) -> None:
    """The certificate has no other."""
    settings = Settings(tls_certificate=tmp_path, tls_key=tmp_path, public_url="https://hub.example")
    assert make_base_url(settings) == "https://hub.example"
    assert make_local_url(settings) == "https://localhost:9527"


async def test_browsers_get_a_secure_cookie(process: HubProcess, files: CertificateFiles) -> None:
    """Its name is the one that browsers take only over https."""
    async with await start(process, files, sign_in="true") as http:
        assert f"https://127.0.0.1:{process.port}/sign-in#hi_" in process.log
        token = process.log.partition("/sign-in#")[2].split()[0]
        async with http.post("sign-in", json={"token": token}, headers={"Origin": process.url}) as response:
            assert response.status == 200
            cookie = response.cookies["__Host-hubbub"]
        assert cookie["secure"] and cookie["httponly"] and cookie["path"] == "/"
        headers = {"Origin": process.url, "Cookie": f"__Host-hubbub={cookie.value}"}
        ws = await http.ws_connect("ws", headers=headers)
        client = Client(http, ws)
        await client.send(type="ping")
        await client.until_type("pong")
        await client.ws.close()


async def test_plain_http_gets_a_clean_close(process: HubProcess, files: CertificateFiles) -> None:
    """Not a reset, and no byte of HTTP. One line of the output says what the client must do."""
    await (await start(process, files)).close()
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert b"HTTP" not in await reader.read()
        writer.close()
    await eventually(lambda: "TLS handshake failed" in process.log)
    lines = [line for line in process.output_lines if "TLS handshake failed" in line]
    assert len(lines) == 1 and "HTTP_REQUEST" in lines[0] and "https://" in lines[0]
    assert "Traceback" not in process.log


async def test_old_versions_of_tls_are_refused(process: HubProcess, files: CertificateFiles) -> None:
    """TLS 1.2 and 1.3 are spoken."""
    await (await start(process, files)).close()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = files.trust()
        context.minimum_version = context.maximum_version = version
        _, writer = await asyncio.open_connection("127.0.0.1", process.port, ssl=context)
        writer.close()
    old = files.trust()
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", process.port, ssl=old)
    assert make_context(files.file, files.key_file).minimum_version == ssl.TLSVersion.TLSv1_2


async def test_an_unfinished_handshake_ends_in_time(acceptor: Acceptor) -> None:
    """Such a client would hold a descriptor for ever."""
    acceptor.header_seconds = 0.1
    assert await read_response(port_of(acceptor), b"\x16\x03\x01") == b""


async def test_a_shutdown_does_not_wait_for_a_handshake(process: HubProcess, files: CertificateFiles) -> None:
    """It may take `header_seconds`."""
    await (await start(process, files, limits_header_seconds=300)).close()
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(b"\x16")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=files.trust())) as http:
        async with http.get(f"{process.url}/health") as response:  # the hub has accepted the first connection
            assert response.status == 200
    process.signal(15)
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()
    assert await process.wait_until_ended() == 0
    assert "Traceback" not in process.log and "never retrieved" not in process.log


async def test_a_refused_connection_is_closed_without_plain_text(hub: Hub, files: CertificateFiles) -> None:
    """A client of TLS could not read an answer in HTTP."""
    await hub.start()
    assert hub._runner is not None and hub._runner.server is not None
    with socket.create_server(("127.0.0.1", 0)) as sock:
        limits = Limits(address_connections=1)
        settings = Settings(sign_in=True, tls_certificate=files.file, tls_key=files.key_file, limits=limits)
        accept_loop = make_acceptor(settings, hub._runner.server, [sock], DoorCounters(), open_certificate(settings))
        accept_loop.start()
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(accept_loop), ssl=files.trust())
        assert await read_response(port_of(accept_loop), b"") == b""
        writer.close()
        await accept_loop.stop()


# --- new certificates -------------------------------------------------------------------------------------------------


async def read_peer_name(port: int, *trusted: CertificateFiles) -> str:
    """Return the name in the certificate of the hub."""
    context = ssl.create_default_context()
    for files in trusted:
        context.load_verify_locations(str(files.file))
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return str(dict(pair for names in subject for pair in names)["commonName"])


async def test_a_new_certificate_serves_new_connections(acceptor: Acceptor, files: CertificateFiles) -> None:
    """Open connections stay. Files that did not change are not read again."""
    new = make_certificate(files.file.parent, "renewed")
    certificate = acceptor.certificate
    assert certificate is not None
    await certificate.reload()
    context = certificate.context
    await certificate.reload_if_changed()
    assert certificate.context is context
    assert await read_peer_name(port_of(acceptor), files, new) == "hub"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=files.trust())) as http:
        ws = await http.ws_connect(f"https://127.0.0.1:{port_of(acceptor)}/api/v1/ws")
        new.copy_to(files)
        await certificate.reload_if_changed()
        assert await read_peer_name(port_of(acceptor), new) == "renewed"
        client = Client(http, ws)
        await client.send(type="ping")
        await client.until_type("pong")
        await client.ws.close()


def break_key(files: CertificateFiles) -> None:
    make_certificate(files.file.parent, "other").key_file.replace(files.key_file)


def remove_key(files: CertificateFiles) -> None:
    files.key_file.unlink()


def empty_certificate(files: CertificateFiles) -> None:
    files.file.write_bytes(b"")


def protect_key(files: CertificateFiles) -> None:
    make_certificate(files.file.parent, "protected", b"password").copy_to(files)


BREAKS: list[tuple[Callable[[CertificateFiles], None], str]] = [
    (break_key, "is not the key of the certificate"),
    (remove_key, "cannot be read: No such file"),
    (empty_certificate, "must be PEM files"),
    (protect_key, "has a password"),
]


@pytest.mark.parametrize(("spoil", "reason"), BREAKS, ids=[spoil.__name__ for spoil, _ in BREAKS])
async def test_a_broken_new_certificate_keeps_the_old_one(
    acceptor: Acceptor, files: CertificateFiles, spoil: Callable[[CertificateFiles], None], reason: str
) -> None:
    """One line has the reason. After the files are mended, they are read."""
    certificate = acceptor.certificate
    assert certificate is not None
    await certificate.reload()
    old, new = make_certificate(files.file.parent, "old"), make_certificate(files.file.parent, "mended")
    files.copy_to(old)
    spoil(files)
    with structlog.testing.capture_logs() as lines:
        await certificate.reload_if_changed()
        await certificate.reload_if_changed()
    assert [line["log_level"] for line in lines] == ["error"] and reason in lines[0]["reason"]
    assert await read_peer_name(port_of(acceptor), old) == "hub"
    new.copy_to(files)
    await certificate.reload_if_changed()
    assert await read_peer_name(port_of(acceptor), new) == "mended"


async def test_changes_are_looked_for_again_and_again(files: CertificateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each minute; here, all the time."""
    monkeypatch.setattr("hub.web.certificate.CHECK_SECONDS", 0.01)
    certificate = Certificate(files.file, files.key_file, make_context(files.file, files.key_file))
    context, task = certificate.context, asyncio.create_task(certificate.watch())
    await asyncio.sleep(0)
    make_certificate(files.file.parent, "renewed").copy_to(files)
    await eventually(lambda: certificate.context is not context)
    task.cancel()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spoil", "reason"), BREAKS, ids=[spoil.__name__ for spoil, _ in BREAKS])
async def test_a_hub_with_a_broken_certificate_does_not_start(
    tmp_path: Path, files: CertificateFiles, spoil: Callable[[CertificateFiles], None], reason: str
) -> None:
    """One line has the reason."""
    (tmp_path / "agents").mkdir()
    spoil(files)
    flags = ("--port", "0", "--tls-certificate", str(files.file), "--tls-key", str(files.key_file))
    output = await run_hubbub(tmp_path, "serve", *flags)
    assert (output.code, output.out, output.err.count("\n")) == (2, "", 1) and reason in output.err


def test_a_certificate_needs_its_key(files: CertificateFiles) -> None:
    """And a key its certificate. The error has the line to set."""
    with pytest.raises(ConfigError, match='set tls_key = "FILE"'):
        Settings(tls_certificate=files.file)
    with pytest.raises(ConfigError, match='set tls_certificate = "FILE"'):
        Settings(tls_key=files.key_file)
    assert open_certificate(Settings()) is None


def flood(port: int, context: ssl.SSLContext) -> int:
    """Send one long frame until the hub cuts the connection, at most 1 GiB. Return the number of MiB sent."""
    count = 0
    with socket.create_connection(("localhost", port), PATIENCE) as sock, context.wrap_socket(
        sock, server_hostname="localhost"
    ) as client:
        client.sendall(make_upgrade(port, "/api/v1/ws"))
        while not client.recv(1 << 16).endswith(b"\r\n\r\n"):
            pass
        with suppress(OSError):
            client.sendall(b"\x82\xff" + struct.pack("!QL", 1 << 30, 0))
            while count < 1024:
                client.sendall(bytes(MiB))
                count += 1
    return count


async def test_what_the_hub_drops_after_its_close_frame_has_a_limit(
    process: HubProcess, files: CertificateFiles
) -> None:
    """Also with TLS, whose closing waits for the peer."""
    async with await start(process, files, limits_linger_bytes=MiB, limits_close_seconds=PATIENCE):
        assert await asyncio.to_thread(flood, process.port, files.trust()) < 100
