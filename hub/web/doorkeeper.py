"""Who asks, and who is let in at all: the Host and the Origin of every request."""

from collections.abc import Awaitable

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from hub.access.doors import is_host_allowed, is_origin_allowed
from hub.access.principal import LOCAL, Principal
from hub.errors import Refused
from hub.settings import Settings
from hub.text import cut

log = structlog.get_logger()


def principal_of(request: web.Request) -> Principal:
    """Return who asks: everyone on this machine is the same local principal."""
    return LOCAL


def make_doorkeeper(settings: Settings) -> Middleware:
    """Return a middleware that lets in only known Hosts and Origins, on every route, before any upgrade.

    A page on another site can open a socket to localhost, and a name can be rebound to it: the Origin is compared
    exactly, the Host by name. No Origin is fine: programs send none. `null` is a page opened from disk.
    """

    @web.middleware
    def check(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        host = request.headers.get("Host", "")
        if not is_host_allowed(settings, host):
            raise _refused("hosts", "Host", host)
        origin = request.headers.get("Origin")
        if origin is not None and not is_origin_allowed(settings, origin, host):
            raise _refused("origins", "Origin", origin)
        return handler(request)  # not awaited here: a frame less for as long as a WebSocket stays

    return check


def _refused(setting: str, header: str, value: str) -> Refused:
    shown = ascii(cut(value, 200))
    hint = " (a page opened from disk: serve it with python3 -m http.server)" if value == "null" else ""
    log.warning(f"{header} refused", value=shown, setting=setting, hint=f"add it to `{setting}` in hubbub.toml{hint}")
    return Refused(f"this {header} is not allowed here: add it to `{setting}` in hubbub.toml{hint}")
