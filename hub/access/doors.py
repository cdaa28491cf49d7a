"""Who may come in: the Host and Origin of every request, and where the hub may listen."""

import ipaddress
from collections.abc import Awaitable
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from hub.errors import Refused
from hub.messages import Author
from hub.settings import ConfigError, Settings

log = structlog.get_logger()


def principal(request: web.Request) -> Author:
    """Return who asks: everyone on this machine is the same local principal."""
    return Author("local", "local")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(settings: Settings) -> None:
    """Refuse to listen to the network by mistake; raises ConfigError."""
    if not is_loopback(settings.host) and not settings.open_to_network:
        raise ConfigError(
            f"host {settings.host} would open the hub to the network, and it asks nobody who they are: "
            "keep to localhost behind a proxy that does, or set open_to_network = true in hubbub.toml "
            "(and hosts = [...] to the names it is reached by)"
        )


def doorkeeper(settings: Settings) -> Middleware:
    """Return a middleware that lets in only known Hosts and Origins, on every route, before any upgrade.

    A page on another site can open a socket to localhost, and a name can be rebound to it: the Origin is compared
    exactly, the Host by name. No Origin is fine: programs send none. `null` is a page opened from disk.
    """

    @web.middleware
    def check(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        host = request.headers.get("Host", "")
        if not _host_ok(settings, host):
            raise _refused("hosts", "Host", host)
        origin = request.headers.get("Origin")
        if origin is not None and not _origin_ok(settings, origin, host):
            raise _refused("origins", "Origin", origin)
        return handler(request)  # not awaited here: a frame less for as long as a WebSocket stays

    return check


def _host_ok(settings: Settings, host: str) -> bool:
    name = _name(f"http://{host}")
    return name is not None and (is_loopback(name) or name in settings.hosts or name == settings.host)


def _origin_ok(settings: Settings, origin: str, host: str) -> bool:
    if origin in settings.origins or origin in (f"http://{host}", f"https://{host}"):
        return True
    name = _name(origin)
    return name is not None and origin.startswith(("http://", "https://")) and is_loopback(name)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _refused(setting: str, header: str, value: str) -> Refused:
    shown = ascii(value[:200])
    hint = " (a page opened from disk: serve it with python3 -m http.server)" if value == "null" else ""
    log.warning(f"{header} refused", value=shown, setting=setting, hint=f"add it to `{setting}` in hubbub.toml{hint}")
    return Refused(f"this {header} is not allowed here: add it to `{setting}` in hubbub.toml{hint}")
