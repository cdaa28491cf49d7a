"""Send requests to the route `echo` of the running hub by its public address, and read how they arrived."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
from yarl import URL

from hub.access.secrets import TOKEN_PATTERN
from hub.cli.control import call_running_hub
from hub.cli.failures import CommandFailed
from hub.settings import Settings

SECONDS = 30.0  # for one answer
UPLOAD_SECONDS = 120.0
FIRST_EVENT_SECONDS = 3.0  # less than the time between the two events of the hub's stream
BLOCK = bytes(64 * 1024)
PROTOCOL = "hubbub.v1"
FRAME = "hubbub " * 8192  # 56 KiB


class ProbeFailed(Exception):
    """A request got no answer of the hub; the message says what came instead. *status* is None without an answer."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@attrs.frozen(kw_only=True)
class Arrived:
    """How a request arrived at the hub, as the hub reports, and the headers of the response.

    *is_direct* is True if the hub itself has accepted the connection, and no proxy.
    """

    method: str
    version: str
    path: str
    headers: Mapping[str, tuple[str, ...]]  # by their names in lower case
    bytes: int
    peer: str
    address: str
    scheme: str
    host: str
    refusal: str | None
    response_headers: Mapping[str, str] = {}
    is_direct: bool = False

    def get_header(self, name: str) -> str:
        return ", ".join(self.headers.get(name.lower(), ()))


def _read_report(data: bytes | str, response_headers: Mapping[str, str], own_ports: Collection[int] = ()) -> Arrived:
    """Return the report of the hub. *own_ports* are the ports of this end of connections."""
    fields = json.loads(data)
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in fields.pop("headers"):
        headers[name.lower()] = (*headers.get(name.lower(), ()), value)
    fields.setdefault("refusal", None)
    is_direct = fields.pop("peerPort", None) in own_ports
    return Arrived(**fields, headers=headers, response_headers=response_headers, is_direct=is_direct)


@attrs.frozen
class EchoClient:
    """Sends requests to *url*, the public address of the hub that runs on the data folder of *settings*.

    *own_ports* are the ports from which the requests come.
    """

    settings: Settings
    url: URL
    http: aiohttp.ClientSession
    own_ports: Collection[int]

    @property
    def origin(self) -> str:
        return str(self.url.origin())

    async def _make_url(self) -> URL:
        """Return the address of the route with a new token."""
        token = await asyncio.to_thread(call_running_hub, self.settings, "make_probe_token")
        return self.url / "api/v1/echo" % {"token": token}

    async def get(self, headers: Mapping[str, str]) -> Arrived:
        """Send a request without a body. Raises ProbeFailed."""
        return await self._request("GET", headers)

    async def upload(self, size: int) -> Arrived:
        """Send a body of *size* bytes. Raises ProbeFailed."""
        return await self._request("POST", {"Content-Length": str(size)}, _make_body(size), UPLOAD_SECONDS)

    async def _request(
        self, method: str, headers: Mapping[str, str], body: Any = None, seconds: float = SECONDS
    ) -> Arrived:
        url = await self._make_url()
        async with _clear_errors(seconds), self.http.request(
            method, url, headers=headers, data=body, allow_redirects=False
        ) as response:
            data = await response.read()
            if response.status != 200:
                raise ProbeFailed(_describe_answer(response.status, data), response.status)
            try:
                return _read_report(data, response.headers, self.own_ports)
            except (ValueError, KeyError, TypeError):
                raise ProbeFailed("the answer comes from another server than the hub", response.status) from None

    async def is_stream_live(self) -> bool:
        """Return whether the first event of a stream comes before the stream ends. Raises ProbeFailed."""
        url = await self._make_url()
        try:
            async with asyncio.timeout(FIRST_EVENT_SECONDS), _clear_errors(SECONDS):
                async with self.http.get(url, headers={"Accept": "text/event-stream"}) as response:
                    if response.status != 200:
                        raise ProbeFailed(_describe_answer(response.status, await response.read()), response.status)
                    if await response.content.readany():
                        return True
        except TimeoutError:
            return False
        raise ProbeFailed("the stream ends without an event")

    async def open_socket(self) -> tuple[Arrived, str | None, bool]:
        """Open a WebSocket. Return its report, its protocol, and whether a frame came back. Raises ProbeFailed."""
        url = await self._make_url()
        async with _clear_errors(SECONDS), self.http.ws_connect(
            url, protocols=(PROTOCOL,), origin=self.origin, max_msg_size=0
        ) as websocket:
            report = _read_report(await websocket.receive_str(), {})
            await websocket.send_str(FRAME)
            message = await websocket.receive()
            return report, websocket.protocol, message.data == FRAME


async def _make_body(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, len(BLOCK)):
        yield BLOCK[: min(len(BLOCK), size - start)]


@asynccontextmanager
async def open_echo_client(settings: Settings, url: URL) -> AsyncIterator[EchoClient]:
    """Yield a client that opens a new connection for each request, because a proxy may decide by connection."""
    own_ports: set[int] = set()

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
    except (aiohttp.ClientError, OSError, TypeError) as error:  # TypeError: a frame of another kind
        raise ProbeFailed(TOKEN_PATTERN.sub("***", str(error)) or type(error).__name__) from None


def _describe_answer(status: int, data: bytes) -> str:
    try:
        error = json.loads(data)["error"]
    except (ValueError, KeyError, TypeError):
        return f"the answer has the status {status}, and comes from a proxy, not from the hub"
    return f"the hub answers with the status {status}: {error}"


def parse_address(text: str) -> URL:
    """Return a public address. Raises CommandFailed."""
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise CommandFailed(f"--url {text}: write it as https://hub.example.com")
    return url.with_query(None).with_fragment(None)
