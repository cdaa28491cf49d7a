"""Check the address that the hub listens on, and the Host and Origin headers of requests."""

import ipaddress
from urllib.parse import urlsplit

from hub.settings import ConfigError, Settings


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is a loopback one."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(settings: Settings) -> None:
    """Raise ConfigError if the hub would listen on the network without `open_to_network`."""
    if not is_loopback(settings.host) and not settings.open_to_network:
        raise ConfigError(
            f"host {settings.host} would open the hub to the network, and the hub has no authentication: "
            "listen on localhost behind a proxy that authenticates, or set open_to_network = true in hubbub.toml "
            "(and hosts = [...] to the host names of the hub)"
        )


def is_host_allowed(settings: Settings, host: str) -> bool:
    """Return whether a Host header names this hub: a loopback name, `host`, or one of `hosts`."""
    name = _name(f"http://{host}")
    return name is not None and (is_loopback(name) or name in settings.hosts or name == settings.host)


def is_origin_allowed(settings: Settings, origin: str, host: str) -> bool:
    """Return whether pages of this origin may connect: its own pages, those of loopback names, or one of `origins`.

    *host* is the Host header of the request.
    """
    if origin in settings.origins or origin in (f"http://{host}", f"https://{host}"):
        return True
    name = _name(origin)
    return name is not None and origin.startswith(("http://", "https://")) and is_loopback(name)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
