"""Accepts connections for the HTTP server, and limits their number before the server reads from them."""

import asyncio
import socket
from collections import Counter, deque
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Any

import attrs
import msgspec
from aiohttp import web

from hub.access.proxies import is_trusted_proxy
from hub.errors import TooManyConnections
from hub.limits import Limits
from hub.observe.rare_log import RareLog
from hub.settings import Settings
from hub.web.routes import ErrorBody

ACCEPT_BATCH = 128  # connections that one step of the event loop accepts, so that other work gets its turn
PAUSE_SECONDS = 1.0  # after a failed accept: most often the process has no free file descriptor
# A refused socket stays open for a moment: a close while the client sends would destroy the response.
REFUSAL_SECONDS = 1.0
MAX_REFUSED_SOCKETS = 64


def _make_refusal(status: str, retry_seconds: int, text: str) -> bytes:
    """Return a complete HTTP response."""
    body = msgspec.json.encode(ErrorBody(error=text, code=TooManyConnections.code))
    head = f"HTTP/1.1 {status}\r\nRetry-After: {retry_seconds}\r\nConnection: close\r\n"
    return f"{head}Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ADDRESS_REFUSAL = _make_refusal(
    "429 Too Many Requests", 5, "this address has too many connections to the hub: close one, or try again later"
)
NODE_REFUSAL = _make_refusal("503 Service Unavailable", 5, "the hub has too many connections: try again later")
RATE_REFUSAL = _make_refusal("503 Service Unavailable", 1, "too many clients connect at once: try again in a moment")


@attrs.define(eq=False, repr=False)
class ConnectionCaps:
    """Counts the open connections, and refuses new ones above the limits.

    The limit for one address does not apply to trusted proxies: their connections belong to many clients. The two
    limits of the hub apply to them, and `principal_connections`, which counts the WebSockets of a principal.
    """

    limits: Limits
    trusted_proxies: tuple[str, ...] = ()
    _sources: Counter[str] = attrs.field(factory=Counter, init=False)
    _total: int = attrs.field(default=0, init=False)
    _recent: float = attrs.field(default=0.0, init=False)  # new connections: the level of a leaky bucket
    _recent_time: float = attrs.field(default=0.0, init=False)

    def admit(self, address: str, now: float) -> bytes | None:
        """Count a new connection and return None, or return the response that refuses it.

        *now* is the time of the event loop's clock. Refused connections do not count.
        """
        limits, source = self.limits, find_source(address)
        if self._sources[source] >= limits.address_connections and not is_trusted_proxy(address, self.trusted_proxies):
            return ADDRESS_REFUSAL
        if self._total >= limits.node_connections:
            return NODE_REFUSAL
        recent = max(0.0, self._recent - (now - self._recent_time) * limits.new_connections_per_second)
        if recent + 1.0 > limits.new_connections_per_second:
            return RATE_REFUSAL
        self._recent, self._recent_time = recent + 1.0, now
        self._sources[source] += 1
        self._total += 1
        return None

    def leave(self, address: str) -> None:
        """Uncount a connection that admit() has counted."""
        source = find_source(address)
        self._sources[source] -= 1
        self._total -= 1
        if not self._sources[source]:
            del self._sources[source]


def find_source(address: str) -> str:
    """Return the unit to which the limit for one address applies.

    This is the address, or the network of 64 bits of an IPv6 address: a client can use all addresses of its network.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address) or parsed.is_loopback:
        return address
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))


@attrs.define(eq=False, repr=False, kw_only=True)
class Acceptor:
    """Accepts connections on listening sockets until stop(), and gives them to aiohttp's server.

    aiohttp's own sites cannot refuse a connection before it costs a transport, a request handler and a task. Without
    *caps* all connections are accepted.
    """

    server: web.Server
    sockets: list[socket.socket]
    caps: ConnectionCaps | None
    # The addresses of the counted connections, by aiohttp's request handlers.
    _addresses: dict[Any, str] = attrs.field(factory=dict, init=False)
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set, init=False)
    _refused_sockets: deque[tuple[float, socket.socket]] = attrs.field(factory=deque, init=False)  # with closing times
    _failure_log: RareLog = attrs.field(factory=lambda: RareLog(60.0), init=False)
    _refusal_log: RareLog = attrs.field(factory=lambda: RareLog(60.0), init=False)

    def start(self) -> None:
        if self.caps is not None:
            self._watch_losses(self.caps)
        for sock in self.sockets:
            sock.setblocking(False)
            self._resume(sock)

    async def stop(self) -> None:
        """Accept no more connections, and close the listening sockets. Clients of accepted connections stay."""
        for sock in self.sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        while self._refused_sockets:
            self._refused_sockets.popleft()[1].close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _watch_losses(self, caps: ConnectionCaps) -> None:
        """Uncount lost connections. aiohttp's server has no callback for a loss, so this replaces its method."""
        on_loss = self.server.connection_lost

        def connection_lost(handler: Any, reason: BaseException | None = None) -> None:
            on_loss(handler, reason)
            if handler in self._addresses:
                caps.leave(self._addresses.pop(handler))

        self.server.connection_lost = connection_lost  # type: ignore[method-assign, assignment]

    # --- accept -----------------------------------------------------------------------------------------------------

    def _resume(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:  # stop() closes it
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        """Accept the waiting connections of a listening socket. The loop calls this again while one waits."""
        for _ in range(ACCEPT_BATCH):
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(sock, error)
                return
            connection.setblocking(False)
            self._admit(connection, address[0])

    def _pause(self, sock: socket.socket, error: OSError) -> None:
        """Accept nothing for a moment. The connection stays in the queue, so the loop would call _accept() at once."""
        loop = asyncio.get_running_loop()
        hint = "if file descriptors are missing, raise the limit (ulimit -n), or lower node_connections"
        self._failure_log.warn(loop.time(), "no connection accepted", reason=error.strerror, hint=hint)
        loop.remove_reader(sock)
        loop.call_later(PAUSE_SECONDS, self._resume, sock)

    def _admit(self, connection: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        response = None if self.caps is None else self.caps.admit(address, loop.time())
        if response is not None:
            self._refuse(connection, address, response)
            return
        task = loop.create_task(self._connect(connection, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket, address: str) -> None:
        handler = self.server()
        if self.caps is not None:
            self._addresses[handler] = address
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: handler, connection)
        except OSError:  # the client has disconnected
            connection.close()
            self.server.connection_lost(handler)

    # --- refuse -----------------------------------------------------------------------------------------------------

    def _refuse(self, connection: socket.socket, address: str, response: bytes) -> None:
        """Send a response without waiting, and close the connection a moment later."""
        now = asyncio.get_running_loop().time()
        reason = response.partition(b'"error":"')[2].partition(b'"')[0].decode()
        self._refusal_log.warn(now, "connection refused", address=address, reason=reason)
        with suppress(OSError):  # a new socket has space for the response, unless the client has disconnected
            connection.send(response)
            connection.shutdown(socket.SHUT_WR)
        if not self._refused_sockets:
            asyncio.get_running_loop().call_later(REFUSAL_SECONDS, self._close_refused_sockets)
        self._refused_sockets.append((now + REFUSAL_SECONDS, connection))
        if len(self._refused_sockets) > MAX_REFUSED_SOCKETS:
            self._refused_sockets.popleft()[1].close()

    def _close_refused_sockets(self) -> None:
        loop = asyncio.get_running_loop()
        while self._refused_sockets and self._refused_sockets[0][0] <= loop.time():
            self._refused_sockets.popleft()[1].close()
        if self._refused_sockets:
            loop.call_at(self._refused_sockets[0][0], self._close_refused_sockets)


def make_acceptor(settings: Settings, server: web.Server, sockets: list[socket.socket]) -> Acceptor:
    """Return an acceptor. Without sign-in it has no caps: then only this machine can connect."""
    caps = ConnectionCaps(settings.limits, settings.trusted_proxies) if settings.is_sign_in_on else None
    return Acceptor(server=server, sockets=sockets, caps=caps)
