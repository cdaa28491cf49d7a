"""Finds the principal of a request, and checks its Host and Origin."""

from collections.abc import Awaitable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from hub.access.principal import LOCAL, Principal
from hub.settings import Settings
from hub.web.arrival import Arrival


def principal_of(request: web.Request) -> Principal:
    """Return the principal of a request. Today all requests have the same local principal."""
    return LOCAL


def make_doorkeeper(settings: Settings) -> Middleware:
    """Return a middleware that refuses unknown Hosts and Origins on every route, before any upgrade.

    Any web page can open a WebSocket to localhost, so the Origin must be the hub's own, have a loopback name, or be in
    the settings. DNS rebinding can point any name at localhost, so the middleware also checks the name in Host. A
    program sends no Origin, and is allowed. A page that was opened from disk has the Origin `null`.
    """

    arrival = Arrival(settings)

    @web.middleware
    def check(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        arrival.check(request)
        return handler(request)  # returned, not awaited: saves one Python frame for the lifetime of a WebSocket

    return check
