"""Finds the principal of a request, and checks its Host and Origin."""

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
    """Return the principal of a request. Today all requests have the same local principal."""
    return LOCAL


def make_doorkeeper(settings: Settings) -> Middleware:
    """Return a middleware that refuses unknown Hosts and Origins on every route, before any upgrade.

    Any web page can open a WebSocket to localhost, so the Origin must be the hub's own, have a loopback name, or be in
    the settings. DNS rebinding can point any name at localhost, so the middleware also checks the name in Host. A
    program sends no Origin, and is allowed. A page that was opened from disk has the Origin `null`.
    """

    @web.middleware
    def check(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        host = request.headers.get("Host", "")
        if not is_host_allowed(settings, host):
            raise _log_refusal("hosts", "Host", host)
        origin = request.headers.get("Origin")
        if origin is not None and not is_origin_allowed(settings, origin, host):
            raise _log_refusal("origins", "Origin", origin)
        return handler(request)  # returned, not awaited: saves one Python frame for the lifetime of a WebSocket

    return check


def _log_refusal(setting: str, header: str, value: str) -> Refused:
    """Log the refusal of a header, and return the error for the client."""
    header_value = ascii(cut(value, 200))
    hint = " (null is a page opened from disk: serve the page with python3 -m http.server)" if value == "null" else ""
    log.warning(
        f"{header} refused", value=header_value, setting=setting, hint=f"add it to `{setting}` in hubbub.toml{hint}"
    )
    return Refused(f"the {header} of this request is not allowed: add it to `{setting}` in hubbub.toml{hint}")
