"""Serves the operator's commands on the unix socket `control.sock` in the data folder, to the account of the hub only.

`POST /commands/NAME` with a JSON object of arguments runs a command of hub.commands.operator, and `GET /metrics` has
the metrics. Whoever can connect is the operator.
"""

import asyncio
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import token_hex

import attrs
import structlog
from aiohttp import web

from hub.access.principal import OPERATOR
from hub.commands.hub import Hub
from hub.commands.operator import CONTROL_SOCKET, run_operator_command
from hub.forks import call_in_children, replace_with_null
from hub.unix_sockets import open_address
from hub.web import bodies
from hub.web.api.metrics import get_metrics
from hub.web.app import error_middleware
from hub.web.doorkeeper import PRINCIPAL_KEY
from hub.web.routes import HUB_KEY, Handler, json_response

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class ControlServer:
    """An HTTP server on the control socket of a hub, between start() and stop()."""

    hub: Hub
    _runner: web.AppRunner = attrs.field(init=False)
    _server: asyncio.Server | None = None
    _undo: ExitStack = attrs.Factory(ExitStack)

    def __attrs_post_init__(self) -> None:
        app = web.Application(middlewares=[error_middleware, _set_operator])
        app[HUB_KEY] = self.hub
        app.router.add_post("/commands/{name}", _run_command)
        app.router.add_get("/metrics", get_metrics)
        seconds = self.hub.limits.header_seconds
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=seconds, shutdown_timeout=1.0)

    @property
    def path(self) -> Path:
        return self.hub.settings.data / CONTROL_SOCKET

    async def start(self) -> None:
        """Listen on the socket. The hub has the lock of the data folder. Raises OSError."""
        sock = listen_privately(self.path)
        descriptor = sock.fileno()
        # A child process that outlives the hub must not hold the socket: a command would connect, and wait.
        self._undo.callback(call_in_children(lambda: replace_with_null([descriptor])))
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = await asyncio.get_running_loop().create_unix_server(self._runner.server, sock=sock)

    async def stop(self) -> None:
        """Remove the socket, and end the connections after their commands."""
        with suppress(OSError):
            self.path.unlink()
        self._undo.close()
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()


async def start_control(hub: Hub) -> ControlServer | None:
    """Return the started server of the operator's commands.

    If there can be no socket, log one line and return None. Windows has none.
    """
    if sys.platform == "win32":
        return None
    server = ControlServer(hub)
    try:
        await server.start()
    except OSError as error:
        hint = "the operator's commands, such as hubbub key, work only while the hub is stopped; choose another --data"
        log.warning("no control socket", path=str(server.path), reason=error.strerror, hint=hint)
        return None
    return server


def listen_privately(path: Path) -> socket.socket:
    """Return a socket that listens at *path*, for this account alone from its first moment on. Raises OSError.

    Replaces a socket that a killed hub has left.
    """
    # chmod() comes after bind(), and the umask belongs to all threads. So the socket begins in a private folder, with a
    # name that no other account can know and take.
    folder = path.with_suffix(f".{token_hex(8)}")
    folder.mkdir(mode=0o700)
    sock, first_path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), folder / path.name
    try:
        with open_address(first_path) as address:
            sock.bind(address)
        first_path.chmod(0o600)
        sock.listen()
        first_path.replace(path)
    except BaseException:
        sock.close()
        first_path.unlink(missing_ok=True)
        raise
    finally:
        folder.rmdir()
    return sock


@web.middleware
async def _set_operator(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[PRINCIPAL_KEY] = OPERATOR
    return await handler(request)


async def _run_command(request: web.Request) -> web.Response:
    fields = await bodies.read_fields(request, "{}")
    return json_response(await run_operator_command(request.app[HUB_KEY], request.match_info["name"], fields))
