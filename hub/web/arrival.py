"""Checks how a request came to the hub: through which proxies, for which Host, and from a page of which Origin."""

import asyncio

import attrs
from aiohttp import web

from hub.access.doors import is_host_allowed, is_origin_allowed
from hub.access.proxies import find_client, find_proxy_header
from hub.commands.hub import Hub
from hub.errors import Refused
from hub.observe.rare_log import RareLog
from hub.settings import Settings
from hub.text import cut

# The client of a request: its IP address, and the scheme and the Host that it used. Behind a trusted proxy, these are
# not those of the connection.
CLIENT_ADDRESS_KEY = web.RequestKey("client_address", str)
CLIENT_SCHEME_KEY = web.RequestKey("client_scheme", str)
CLIENT_HOST_KEY = web.RequestKey("client_host", str)


@attrs.define(eq=False, repr=False)
class Arrival:
    """The checks of a hub before it knows the principal of a request. Anyone can fail them, so they log rarely."""

    hub: Hub
    _proxy_log: RareLog = attrs.field(factory=lambda: RareLog(60.0), init=False)
    _header_log: RareLog = attrs.field(factory=lambda: RareLog(1.0), init=False)

    @property
    def settings(self) -> Settings:
        return self.hub.settings

    def check(self, request: web.Request) -> None:
        """Raise Refused if the request may not come in. Else set the CLIENT_*_KEYs of the request."""
        self._check_proxy(request)
        client = find_client(request.remote, request.scheme, request.headers, self.settings.trusted_proxies)
        # All names count: the header Host, because a page that uses DNS rebinding can send any X-Forwarded-Host, which
        # many proxies pass on; and the name in a request for a complete URL, which takes the place of Host.
        for host in dict.fromkeys((", ".join(request.headers.getall("Host", ())), client.host, request.host)):
            if not is_host_allowed(self.settings, host):
                raise self._refuse("hosts", "Host", host)
        if "Origin" in request.headers:
            origin = ", ".join(request.headers.getall("Origin"))
            if not is_origin_allowed(self.settings, origin, client.host):
                raise self._refuse("origins", "Origin", origin)
        request[CLIENT_ADDRESS_KEY] = client.address
        request[CLIENT_SCHEME_KEY] = client.scheme
        request[CLIENT_HOST_KEY] = client.host

    def _check_proxy(self, request: web.Request) -> None:
        """Refuse a request that came through a proxy while sign-in is off: its principal would be LOCAL."""
        if self.settings.is_sign_in_on or (header := find_proxy_header(request.headers)) is None:
            return
        hint = "set sign_in = true in hubbub.toml"
        self._proxy_log.warn(_now(), "a request through a proxy refused", header=header, hint=hint)
        raise Refused(f"a proxy passed this request on ({header}), and without sign-in everyone has all rights: {hint}")

    def _refuse(self, setting: str, header: str, value: str) -> Refused:
        """Log the refusal of a header, and return the error for the client."""
        hint = " (null is a page opened from disk: serve the page with python3 -m http.server)"
        hint = f"add it to `{setting}` in hubbub.toml{hint if value == 'null' else ''}"
        self._header_log.warn(_now(), f"{header} refused", value=ascii(cut(value, 200)), setting=setting, hint=hint)
        return Refused(f"the {header} of this request is not allowed: {hint}")


def _now() -> float:
    return asyncio.get_running_loop().time()
