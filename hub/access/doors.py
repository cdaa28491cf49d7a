"""Where the hub may listen, and which Hosts and Origins may come in."""

import ipaddress
from urllib.parse import urlsplit

from hub.settings import ConfigError, Settings


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own."""
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


def is_host_allowed(settings: Settings, host: str) -> bool:
    """Return whether a Host header names this hub."""
    name = _name(f"http://{host}")
    return name is not None and (is_loopback(name) or name in settings.hosts or name == settings.host)


def is_origin_allowed(settings: Settings, origin: str, host: str) -> bool:
    """Return whether a page of this origin may come in, where the request names *host*."""
    if origin in settings.origins or origin in (f"http://{host}", f"https://{host}"):
        return True
    name = _name(origin)
    return name is not None and origin.startswith(("http://", "https://")) and is_loopback(name)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
