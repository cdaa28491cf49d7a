"""Check the address that the hub listens on, and the Host and Origin headers of requests."""

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from hub.settings import ConfigError, Settings

# A host with an optional port, as in the Host header and in an Origin. There is no other part: no user, no path.
_AUTHORITY = r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
_HOST_PATTERN = re.compile(_AUTHORITY)
_ORIGIN_PATTERN = re.compile(rf"(?P<scheme>https?)://{_AUTHORITY}")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
ANY_ADDRESS = ("0.0.0.0", "::")  # to listen on; on some systems, no client can connect to them


def is_loopback(host: str) -> bool:
    """Return whether a host name or an IP address is one of the loopback interface."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(settings: Settings) -> None:
    """Raise ConfigError if the setting `host` is not a loopback name or address, and sign-in is off."""
    if not is_loopback(settings.host) and not settings.is_sign_in_on:
        raise ConfigError(
            f"host {settings.host} would open the hub to the network, where everyone could read and delete everything: "
            "set sign_in = true in hubbub.toml (and hosts = [...] to the host names of the hub), or listen on localhost"
        )


def make_local_url(settings: Settings, port: int | None = None) -> str:
    """Return the address of the hub for programs of this machine. *port* is the port that the hub listens on.

    Without *port*, it is the port of the settings. If that may be any free port, it is the default port.
    """
    host = "localhost" if settings.host in ANY_ADDRESS else settings.host
    return f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{port or settings.port or Settings().port}"


def make_base_url(settings: Settings, port: int | None = None) -> str:
    """Return the first part of links to the hub: `public_url` or the address of make_local_url(), and `base_path`."""
    return (settings.public_url or make_local_url(settings, port)) + settings.base_path


def is_host_allowed(settings: Settings, host: str) -> bool:
    """Return whether a Host header names this hub.

    Its names are the loopback names, the setting `host`, the host of `public_url`, and `hosts`. A name with a dot at
    its end is another name.
    """
    name = read_host_name(host)
    if name is None:
        return False
    return is_loopback(name) or name in _collect_names(settings.host, settings.public_url, settings.hosts)


def read_host_name(host: str) -> str | None:
    """Return the name in a Host header, in lower case and without brackets, or None if the header is malformed."""
    match = _HOST_PATTERN.fullmatch(host)
    return None if match is None or not _is_port(match["port"]) else match["name"].lower().strip("[]")


def is_origin_allowed(settings: Settings, origin: str, host: str) -> bool:
    """Return whether pages of *origin*, an Origin header, may connect without a cookie.

    Pages of the hub itself may, pages of a loopback name, and pages of the setting `origins`. *host* is the Host header
    of the request, the hub's own name.
    """
    is_own = any(is_own_origin(settings, origin, host, scheme) for scheme in DEFAULT_PORTS)
    if is_own or origin in settings.origins:
        return True
    match = _ORIGIN_PATTERN.fullmatch(origin)
    return match is not None and _is_port(match["port"]) and is_loopback(match["name"])


def is_own_origin(settings: Settings, origin: str, host: str, scheme: str) -> bool:
    """Return whether a request from a page of *origin* may use its cookie.

    Pages of the hub itself may, and pages of the setting `origins`. Pages of another port of this machine may not: they
    may belong to another account. *host* and *scheme* are those of the address that the browser sees.
    """
    # Pages of every site can get the origin null, in a sandboxed frame: it never counts with a cookie.
    return origin != "null" and (origin in settings.origins or is_hub_origin(settings, origin, host, scheme))


def is_hub_origin(settings: Settings, origin: str, host: str, scheme: str) -> bool:
    """Return whether the pages of *origin* are those of the hub itself."""
    return origin in (
        make_origin(scheme, host),
        settings.public_url and make_origin(*settings.public_url.split("://")),
    )


def make_origin(scheme: str, host: str) -> str:
    """Return the origin of a page as browsers write it: in lower case, without the default port of *scheme*."""
    return f"{scheme}://{host.lower().removesuffix(DEFAULT_PORTS[scheme])}"


def _is_port(text: str | None) -> bool:
    return text is None or int(text) <= 65535


@lru_cache(maxsize=8)
def _collect_names(host: str, public_url: str | None, hosts: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the hub in lower case, without brackets."""
    names = {host, urlsplit(public_url or "").hostname or "", *hosts} - {""}
    return frozenset(name.lower().strip("[]") for name in names)
