"""aiohttp's protocol of a connection, with changes for a server that strangers reach."""

import asyncio
import logging
from typing import Any

from aiohttp import web

from hub.observe.counters import DoorCounters
from hub.observe.rare_log import RareLog
from hub.web.access_log import RequestLog
from hub.web.connection_caps import ConnectionCaps
from hub.web.counting import count_status
from hub.web.routes import ErrorBody, json_response

FIRST_REQUEST_SECONDS = 1.0  # if the hub goes down: from the start of a connection to its first request


class ConnectionHandler(web.RequestHandler):
    """The protocol of one connection.

    The caps have counted the connection; its loss uncounts it. The response to bytes that are no correct HTTP does not
    repeat them, as aiohttp's own does, and writes at most a rare line to the log.
    """

    __slots__ = ("_address", "_caps", "_bad_http_log", "_counters")

    def __init__(
        self,
        server: web.Server,
        *,
        address: str,
        caps: ConnectionCaps | None,
        header_seconds: float,
        bad_http_log: RareLog,
        access_log: bool,
        counters: DoorCounters,
    ) -> None:
        # The keepalive timeout also closes a connection that does not send a complete request header in time. It does
        # not affect WebSockets.
        options: dict[str, Any] = {
            "access_log": logging.getLogger(__name__) if access_log else None,  # RequestLog does not use it
            "access_log_class": RequestLog,
            "keepalive_timeout": header_seconds,
        }
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._address, self._caps = address, caps
        self._bad_http_log, self._counters = bad_http_log, counters

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.uncount()

    def uncount(self) -> None:
        """Tell the caps that the connection is lost. A second call does nothing."""
        if self._caps is not None:
            self._caps.leave(self._address)
            self._caps = None

    def close(self) -> None:
        """Close the connection after its requests. Without a request, leave it to shutdown(), which comes next."""
        if self._request_count:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Close the connection after its requests. A new connection gets the time to send its first one.

        So a restart with systemd refuses nobody, not even a client that connects in the last moment of a hub.
        """
        if not self._request_count and self._waiter is not None:
            age = asyncio.get_running_loop().time() - self._next_keepalive_close_time + self._keepalive_timeout
            await asyncio.wait([self._waiter], timeout=max(FIRST_REQUEST_SECONDS - age, 0.0))
        super().close()
        await super().shutdown(timeout)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a request that aiohttp cannot parse."""
        super().handle_error(request, status, exc, message)  # raises ConnectionError if a response has begun
        self._bad_http_log.warn(asyncio.get_running_loop().time(), "bad HTTP refused", address=self._address)
        count_status(self._counters, "", status)
        text = "this is no correct HTTP request: see /docs" if status < 500 else "the hub failed"
        code = "bad_request" if status < 500 else "internal"
        response = json_response(ErrorBody(error=text, code=code), status=status)
        response.force_close()
        return response
