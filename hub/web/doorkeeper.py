"""Finds the principal of a request, and checks its Host and Origin."""

from collections.abc import Awaitable, Callable, Mapping

import attrs
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from hub.access.principal import LOCAL, NOBODY, Principal
from hub.commands.hub import Hub
from hub.errors import Refused, Unauthenticated
from hub.web.arrival import CLIENT_ADDRESS_KEY, Arrival
from hub.web.sign_in import BAD_CREDENTIAL_KEY, identify

# Gets a request that is refused for its Host, its Origin or its proxy. Raises the refusal.
RefusalHandler = Callable[[web.Request, Refused], Awaitable[web.StreamResponse]]

PRINCIPAL_KEY = web.RequestKey("principal", Principal)


def principal_of(request: web.Request) -> Principal:
    """Return the principal of a request: LOCAL while sign-in is off."""
    principal: Principal = request.get(PRINCIPAL_KEY, LOCAL)
    return principal


def refuse_bad_credential(request: web.Request) -> None:
    """Raise Unauthenticated if the request has a credential that is not valid. Without one, `auth` may follow."""
    if request.get(BAD_CREDENTIAL_KEY):
        raise Unauthenticated()


def make_doorkeeper(hub: Hub, own_handlers: Mapping[Handler, RefusalHandler] = {}) -> Middleware:
    """Return a middleware that finds the principal, and refuses unknown Hosts and Origins before any upgrade.

    Any web page can open a WebSocket to localhost, so the Origin must be the hub's own, have a loopback name, or be in
    the settings. DNS rebinding can point any name at localhost, so the middleware also checks the name in Host. A
    program sends no Origin, and is allowed. A page that was opened from disk has the Origin `null`.

    *own_handlers* check a credential of their own, so their principal is NOBODY.
    """

    arrival = Arrival(hub)

    @web.middleware
    def check(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        refusal_handler = own_handlers.get(request.match_info.handler)
        try:
            arrival.check(request)
        except Refused as refusal:
            if refusal_handler is None:
                raise
            return refusal_handler(request, refusal)
        if refusal_handler is not None:
            request[PRINCIPAL_KEY] = attrs.evolve(NOBODY, address=request[CLIENT_ADDRESS_KEY])
            return handler(request)
        if hub.is_sign_in_on:
            return _sign_in(request, handler)
        return handler(request)  # returned, not awaited: saves one Python frame for the lifetime of a WebSocket

    return check


async def _sign_in(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[PRINCIPAL_KEY] = await identify(request)
    return await handler(request)
