"""Accepts connections for the HTTP server, and limits their number before the server reads from them."""

import asyncio
import socket
import ssl
from collections import deque
from contextlib import suppress

import attrs
from aiohttp import web

from hub.errors import TooManyConnections
from hub.limits import Limits
from hub.observe.counters import DoorCounters
from hub.observe.rare_log import RareLog
from hub.settings import Settings
from hub.web.certificate import Certificate
from hub.web.connection_caps import ConnectionCaps
from hub.web.connection_handler import ConnectionHandler

ACCEPT_BATCH = 128  # connections that one step of the event loop accepts, so that other work gets its turn
PAUSE_SECONDS = 1.0  # after a failed accept: most often the process has no free file descriptor
# A refused socket stays open for a moment: a close while the client sends would destroy the response.
REFUSAL_SECONDS = 1.0
MAX_REFUSED_SOCKETS = 64


@attrs.define(eq=False, repr=False, kw_only=True)
class Acceptor:
    """Accepts connections on listening sockets until stop(), and gives them to aiohttp's server.

    aiohttp's own sites cannot refuse a connection before it costs a transport, a request handler and a task. Without
    *caps* all connections are accepted. *header_seconds* is the time for the header of a request, and between two
    requests. *access_log* turns on the access log of the connections that are accepted from then on. Refused
    connections and bad requests count in *counters*. With a *certificate*, the connections speak TLS.
    """

    server: web.Server
    sockets: list[socket.socket]
    caps: ConnectionCaps | None
    header_seconds: float
    access_log: bool = False
    counters: DoorCounters = attrs.Factory(DoorCounters)
    certificate: Certificate | None = None
    close_seconds: float = Limits().close_seconds
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set, init=False)
    _refused_sockets: deque[tuple[float, socket.socket]] = attrs.field(factory=deque, init=False)  # with closing times
    _bad_http_log: RareLog = attrs.field(factory=lambda: RareLog(60.0), init=False)
    _failure_log: RareLog = attrs.field(factory=lambda: RareLog(60.0), init=False)
    _refusal_log: RareLog = attrs.field(factory=lambda: RareLog(60.0), init=False)
    _tls_log: RareLog = attrs.field(factory=lambda: RareLog(60.0), init=False)

    def start(self) -> None:
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
        for task in self._tasks if self.certificate is not None else ():
            task.cancel()  # a TLS handshake, which may take `header_seconds`
        if self._tasks:
            await asyncio.wait(self._tasks)

    def use_settings(self, settings: Settings) -> None:
        """Use other limits, trusted proxies and another access log for the connections that come from now on."""
        self.header_seconds, self.access_log = settings.limits.header_seconds, settings.access_log
        if self.caps is not None:
            self.caps.limits, self.caps.trusted_proxies = settings.limits, settings.trusted_proxies

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
        handler = ConnectionHandler(
            self.server,
            address=address,
            caps=self.caps,
            header_seconds=self.header_seconds,
            bad_http_log=self._bad_http_log,
            access_log=self.access_log,
            counters=self.counters,
        )
        try:
            await self._open_transport(connection, handler)
        except OSError as error:  # the client has disconnected, or its TLS handshake has failed
            connection.close()
            handler.uncount()
            self._log_tls_failure(error, address)

    async def _open_transport(self, connection: socket.socket, handler: ConnectionHandler) -> None:
        """Give the connection to the handler, after its TLS handshake if there is a certificate. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.certificate is None:
            await loop.connect_accepted_socket(lambda: handler, connection)
            return
        await loop.connect_accepted_socket(
            lambda: handler,
            connection,
            ssl=self.certificate.context,
            ssl_handshake_timeout=self.header_seconds,
            ssl_shutdown_timeout=self.close_seconds,
        )

    def _log_tls_failure(self, error: OSError, address: str) -> None:
        if isinstance(error, ssl.SSLError):
            hint = "the client sent plain HTTP: its address must begin with https:// or wss://"
            fields = {"hint": hint} if error.reason == "HTTP_REQUEST" else {}
            now = asyncio.get_running_loop().time()
            self._tls_log.warn(now, "TLS handshake failed", address=address, reason=error.reason, **fields)

    # --- refuse -----------------------------------------------------------------------------------------------------

    def _refuse(self, connection: socket.socket, address: str, response: bytes) -> None:
        """Send a response without waiting, and close the connection a moment later."""
        now = asyncio.get_running_loop().time()
        self.counters.refusals[TooManyConnections.code] += 1
        reason = response.partition(b'"error":"')[2].partition(b'"')[0].decode()
        self._refusal_log.warn(now, "connection refused", address=address, reason=reason)
        with suppress(OSError):  # a new socket has space for the response, unless the client has disconnected
            if self.certificate is None:  # a client of TLS cannot read it
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


def make_acceptor(
    settings: Settings,
    server: web.Server,
    sockets: list[socket.socket],
    counters: DoorCounters,
    certificate: Certificate | None = None,
) -> Acceptor:
    """Return an acceptor. Without sign-in it has no caps: then only this machine can connect."""
    caps = ConnectionCaps(settings.limits, settings.trusted_proxies) if settings.is_sign_in_on else None
    return Acceptor(
        server=server,
        sockets=sockets,
        caps=caps,
        header_seconds=settings.limits.header_seconds,
        access_log=settings.access_log,
        counters=counters,
        certificate=certificate,
        close_seconds=settings.limits.close_seconds,
    )
