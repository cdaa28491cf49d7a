"""Checks how a request came to the hub: through which proxies, for which Host, and from a page of which Origin."""

import attrs
from aiohttp import web

from hub.access.doors import is_host_allowed, is_origin_allowed, make_origin
from hub.access.proxies import (
    ClientEndpoint,
    find_client,
    find_proxy_header,
    has_scheme,
    is_forgotten_proxy,
    is_trusted_proxy,
)
from hub.access.remedies import add_client, describe_refused_header, host_hint, origin_hint, proxy_hint, show_value
from hub.commands.hub import Hub
from hub.errors import Refused
from hub.settings import Settings
from hub.web.refusal_log import REFUSAL_LOG_KEY

# The client of a request: its IP address, and the scheme and the Host that it used. Behind a trusted proxy, these are
# not those of the connection.
CLIENT_ADDRESS_KEY = web.RequestKey("client_address", str)
CLIENT_SCHEME_KEY = web.RequestKey("client_scheme", str)
CLIENT_HOST_KEY = web.RequestKey("client_host", str)


def endpoint_of(request: web.Request) -> ClientEndpoint:
    """Return the client of a request that Arrival.check() has let in."""
    return ClientEndpoint(request[CLIENT_ADDRESS_KEY], request[CLIENT_SCHEME_KEY], request[CLIENT_HOST_KEY])


@attrs.frozen(eq=False, repr=False)
class Arrival:
    """The checks of a hub before it knows the principal of a request."""

    hub: Hub

    @property
    def settings(self) -> Settings:
        return self.hub.settings

    def check(self, request: web.Request) -> None:
        """Raise Refused if the request may not come in, and log why. Else set the CLIENT_*_KEYs of the request."""
        self._check_proxy(request)
        client = self._find_client(request)
        # All names count: the header Host, because a page that uses DNS rebinding can send any X-Forwarded-Host, which
        # many proxies pass on; and the name in a request for a complete URL, which takes the place of Host.
        for host in dict.fromkeys((", ".join(request.headers.getall("Host", ())), client.host, request.host)):
            if not is_host_allowed(self.settings, host):
                raise self._refuse_host(request, client, host)
        if "Origin" in request.headers:
            origin = ", ".join(request.headers.getall("Origin"))
            if not is_origin_allowed(self.settings, origin, client.host):
                raise self._refuse_origin(request, client, origin)
        request[CLIENT_ADDRESS_KEY] = client.address
        request[CLIENT_SCHEME_KEY] = client.scheme
        request[CLIENT_HOST_KEY] = client.host

    def _find_client(self, request: web.Request) -> ClientEndpoint:
        """Return the client of a request.

        nginx names no scheme, and its own Host, unless its settings say more. So behind a trusted proxy that names no
        scheme, a page of `public_url` has used that address: a page of http has another origin than one of https.
        """
        settings, headers, peer = self.settings, request.headers, request.remote or ""
        client = find_client(peer, request.scheme, headers, settings.trusted_proxies)
        if settings.public_url is None or has_scheme(headers) or not is_trusted_proxy(peer, settings.trusted_proxies):
            return client
        scheme, _, host = settings.public_url.partition("://")
        is_public = headers.get("Origin") == make_origin(scheme, host)
        return attrs.evolve(client, scheme=scheme, host=host) if is_public else client

    def _check_proxy(self, request: web.Request) -> None:
        """Refuse a request that came through a proxy while sign-in is off: its principal would be LOCAL."""
        header = find_proxy_header(request.headers)
        if header is None:
            return
        if not is_trusted_proxy(request.remote or "", self.settings.trusted_proxies):
            self.hub.counters.door.untrusted_proxies += 1
        if self.settings.is_sign_in_on:
            return
        hint, peer = "set sign_in = true in hubbub.toml", request.remote or ""
        _log(request, "a request through a proxy refused", header=header, address=peer, hint=hint)
        text = f"a proxy passed this request on ({header}), and without sign-in everyone has all rights: {hint}"
        raise Refused(add_client(text, peer))

    def _refuse_host(self, request: web.Request, client: ClientEndpoint, host: str) -> Refused:
        """Log the refusal of a Host, and return the error for the client."""
        hint = host_hint(host, self.settings.hosts)
        _log(request, "Host refused", value=show_value(host), address=client.address, setting="hosts", hint=hint)
        return Refused(add_client(describe_refused_header("Host", host, host_hint(host)), client.address))

    def _refuse_origin(self, request: web.Request, client: ClientEndpoint, origin: str) -> Refused:
        """Log the refusal of an Origin, and return the error for the client."""
        settings, peer = self.settings, request.remote or ""
        is_proxy_unknown = self._is_own_for_peer(request, origin)
        if is_proxy_unknown:
            setting, hint, answer = "trusted_proxies", proxy_hint(peer, settings.trusted_proxies), proxy_hint(peer)
        else:
            setting, hint = "origins", origin_hint(settings, origin, settings.origins)
            answer = origin_hint(settings, origin)
        fields = {"value": show_value(origin), "host": show_value(client.host), "address": client.address}
        _log(request, "Origin refused", **fields, setting=setting, hint=hint)
        return Refused(add_client(describe_refused_header("Origin", origin, answer), client.address))

    def _is_own_for_peer(self, request: web.Request, origin: str) -> bool:
        """Return whether the Origin would be the hub's own if the peer of the connection were a trusted proxy."""
        peer, trusted_proxies = request.remote or "", self.settings.trusted_proxies
        if not is_forgotten_proxy(peer, trusted_proxies):
            return False
        client = find_client(peer, request.scheme, request.headers, (*trusted_proxies, peer))
        return is_origin_allowed(self.settings, origin, client.host)


def _log(request: web.Request, event: str, **fields: str) -> None:
    request.app[REFUSAL_LOG_KEY].warn(event, **fields)
