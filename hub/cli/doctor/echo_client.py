"""Send probes to the route `echo` of the running hub by its public address, and ask the hub how they arrived."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from hub.access.probes import ProbeReport
from hub.access.secrets import TOKEN_PATTERN
from hub.cli.control import call_running_hub
from hub.cli.failures import CommandFailed
from hub.settings import Settings

SECONDS = 30.0  # for one answer
UPLOAD_SECONDS = 120.0
# The pause of an upload after its first block. A proxy that stores bodies hides the pause from the hub.
UPLOAD_PAUSE_SECONDS = 1.0
FIRST_EVENT_SECONDS = 3.0  # less than the time between the two events of the hub's stream
BLOCK = bytes(64 * 1024)
PROTOCOL = "hubbub.v1"
FRAME = "hubbub " * 8192  # 56 KiB


class ProbeFailed(Exception):
    """A probe got no answer from the hub. The message says what came instead.

    *status* is None without an answer. *server* has the names of the servers in the answer.
    """

    def __init__(self, text: str, status: int | None = None, server: str = "") -> None:
        super().__init__(text)
        self.status, self.server = status, server


@attrs.frozen(kw_only=True)
class RequestAnswer:
    """The report of a probe, and the headers of the response. *bytes* and *seconds* are those of the body at the hub.

    If the hub refuses the probe, the report says why, and there is no body.
    """

    report: ProbeReport
    headers: CIMultiDictProxy[str]
    bytes: int = 0
    seconds: float = 0.0


@attrs.frozen
class StreamAnswer:
    """Whether the first event of a stream came before the last one, and the Content-Encoding of the stream."""

    is_live: bool
    encoding: str


@attrs.frozen(kw_only=True)
class SocketAnswer:
    """The result of opening a WebSocket: *failure* says why it did not open, and is "" if it did.

    *report* is None if the request did not reach the hub. *is_echoed* is True if the message came back.
    """

    report: ProbeReport | None
    failure: str = ""
    protocol: str | None = None
    is_echoed: bool = False


@attrs.frozen
class EchoClient:
    """Sends probes to *url*, the public address of the hub that runs on the data folder of *settings*.

    *own_ports* are the ports from which the probes come.
    """

    settings: Settings
    url: URL
    http: aiohttp.ClientSession
    own_ports: Collection[int | None]

    @property
    def origin(self) -> str:
        return str(self.url.origin())

    @property
    def echo_url(self) -> URL:
        return self.url / "api/v1/echo"

    async def get(self, headers: Mapping[str, str]) -> RequestAnswer:
        """Send a request without a body. Raises ProbeFailed, but not if the hub refuses the request."""
        return await self._request("GET", headers)

    async def upload(self, size: int) -> RequestAnswer:
        """Send a body of *size* bytes, with a pause after its first block. Raises ProbeFailed."""
        return await self._request("POST", {"Content-Length": str(size)}, _make_body(size), UPLOAD_SECONDS)

    async def _request(
        self, method: str, headers: Mapping[str, str], body: Any = None, seconds: float = SECONDS
    ) -> RequestAnswer:
        token = await self._create_token()
        async with _clear_errors(seconds), self.http.request(
            method, self._make_url(token), headers=headers, data=body, allow_redirects=False
        ) as response:
            data, report = await response.read(), await self._find_report(token)
            if report is not None and report.refusal is not None:
                return RequestAnswer(report=report, headers=response.headers)
            if report is None or response.status != 200:
                raise _make_failure(response, data)
            fields = json.loads(data)
            return RequestAnswer(
                report=report, headers=response.headers, bytes=fields["bytes"], seconds=fields["seconds"]
            )

    async def stream(self) -> StreamAnswer:
        """Open a stream, and wait for its first event. Raises ProbeFailed."""
        url, start = self._make_url(await self._create_token()), asyncio.get_running_loop().time()
        async with _clear_errors(SECONDS), self.http.get(
            url, headers={"Accept": "text/event-stream"}, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise _make_failure(response, await response.read())
            if not await response.content.readany():
                raise ProbeFailed("the stream ends without an event")
            seconds = asyncio.get_running_loop().time() - start
            return StreamAnswer(seconds < FIRST_EVENT_SECONDS, response.headers.get("Content-Encoding", ""))

    async def open_socket(self) -> SocketAnswer:
        """Open a WebSocket, and send a message, which the hub sends back."""
        token = await self._create_token()
        try:
            async with _clear_errors(SECONDS), self.http.ws_connect(
                self._make_url(token), protocols=(PROTOCOL,), origin=self.origin, max_msg_size=0
            ) as websocket:
                await websocket.send_str(FRAME)
                message = await websocket.receive()
        except ProbeFailed as error:
            return SocketAnswer(report=await self._find_report(token), failure=str(error))
        return SocketAnswer(
            report=await self._find_report(token), protocol=websocket.protocol, is_echoed=message.data == FRAME
        )

    def _make_url(self, token: str) -> URL:
        return self.echo_url % {"token": token}

    async def _create_token(self) -> str:
        token: str = await asyncio.to_thread(call_running_hub, self.settings, "create_probe")
        return token

    async def _find_report(self, token: str) -> ProbeReport | None:
        """Ask the hub how the probe with this token arrived. Return None if it did not."""
        probe_id = token.split("_")[1]
        fields = await asyncio.to_thread(call_running_hub, self.settings, "find_probe", probeId=probe_id)
        return None if fields is None else msgspec.convert(fields, ProbeReport)


async def _make_body(size: int) -> AsyncIterator[bytes]:
    yield BLOCK[:size]
    await asyncio.sleep(UPLOAD_PAUSE_SECONDS)
    for start in range(len(BLOCK), size, len(BLOCK)):
        yield BLOCK[: size - start]


@asynccontextmanager
async def open_echo_client(settings: Settings, url: URL) -> AsyncIterator[EchoClient]:
    """Yield a client that opens a new connection for each probe, because a proxy may route by connection."""
    own_ports: set[int | None] = set()

    def open_socket(address: Any) -> socket.socket:
        sock = socket.socket(*address[:3])
        sock.setblocking(False)
        sock.bind(("", 0))
        own_ports.add(sock.getsockname()[1])
        return sock

    connector = aiohttp.TCPConnector(force_close=True, socket_factory=open_socket)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield EchoClient(settings, url, http, own_ports)


@asynccontextmanager
async def _clear_errors(seconds: float) -> AsyncIterator[None]:
    """Turn the errors of a request into ProbeFailed."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise ProbeFailed(f"there is no answer within {seconds:g} seconds") from None
    except aiohttp.WSServerHandshakeError as error:
        raise ProbeFailed(f"the answer has the status {error.status}", error.status) from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise ProbeFailed(f"its certificate is not valid: {error.certificate_error}") from None
    except aiohttp.ClientConnectorError as error:
        raise ProbeFailed(f"no connection: {error.os_error.strerror or error.os_error}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ProbeFailed(TOKEN_PATTERN.sub("***", str(error)) or type(error).__name__) from None


def name_servers(headers: CIMultiDictProxy[str]) -> str:
    """Return the names of the servers that an answer has passed."""
    return ", ".join(value for name in ("Server", "Via") for value in headers.getall(name, ()))


def _make_failure(response: aiohttp.ClientResponse, data: bytes) -> ProbeFailed:
    """Return the error for an answer that is not the expected one: of the hub, or of another server."""
    status, location = response.status, response.headers.get("Location")
    try:
        text = f"the hub answers with the status {status}: {json.loads(data)['error']}"
    except (ValueError, KeyError, TypeError):
        text = f"the answer has the status {status}, and comes from a proxy or another server, not from this hub"
    if location is not None:
        text += f"; it redirects to {URL(location).with_query(None)}"
    return ProbeFailed(text, status, name_servers(response.headers))


def parse_address(text: str) -> URL:
    """Return a public address. Raises CommandFailed."""
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise CommandFailed(f"--url {text}: write it as https://hub.example.com")
    return url.with_query(None).with_fragment(None).with_user(None)
