"""Check the address that the hub listens on, and the Host and Origin headers of requests."""

import ipaddress
from urllib.parse import urlsplit

from hub.settings import ConfigError, Settings


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


def is_host_allowed(settings: Settings, host: str) -> bool:
    """Return whether a Host header names this hub: a loopback name, the setting `host`, or one of `hosts`."""
    name = _parse_host(f"http://{host}")
    return name is not None and (is_loopback(name) or name in settings.hosts or name == settings.host)


def is_origin_allowed(settings: Settings, origin: str, host: str) -> bool:
    """Return whether pages of *origin*, an Origin header, may connect.

    The hub's own pages may, pages of a loopback name, and pages of the setting `origins`. *host* is the Host header of
    the request, the hub's own name.
    """
    if origin in settings.origins or origin in (f"http://{host}", f"https://{host}"):
        return True
    name = _parse_host(origin)
    return name is not None and origin.startswith(("http://", "https://")) and is_loopback(name)


def _parse_host(url: str) -> str | None:
    """Return the host name of a URL, or None if the URL has none or is malformed."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
