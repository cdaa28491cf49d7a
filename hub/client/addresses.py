"""The addresses of a hub: of its pages, of its WebSocket, and its origin."""

import re
from urllib.parse import urlsplit

from hub.text import hide_passwords

DEFAULT_URL = "ws://localhost:9527/api/v1/ws"
HTTP_PORTS = {"http": 80, "https": 443}


def http_url(url: str) -> str:
    """Return the HTTP address of a hub, from its HTTP or WebSocket address. A password in *url* is retained."""
    address = re.sub("^ws", "http", _complete(url)).partition("?")[0].rstrip("/")
    return address.removesuffix("/api/v1/ws").removesuffix("/api/v1")


def websocket_url(url: str) -> str:
    return re.sub("^http", "ws", http_url(url)) + "/api/v1/ws"


def public_url(url: str) -> str:
    """Return the HTTP address of a hub, without a password, to be shown to people."""
    return http_url(hide_passwords(_complete(url)))


def has_password(url: str) -> bool:
    """Return whether *url* has a name and a password, for a proxy in front of the hub."""
    return http_url(url) != public_url(url)


def origin_of(url: str) -> str:
    """Return the origin of a hub (RFC 6454): the scheme, the host, and the port if it is not the default.

    Raises ValueError if *url* is not an address.
    """
    parts = urlsplit(public_url(url))
    if parts.hostname is None:
        raise ValueError("an address without a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = parts.port in (None, HTTP_PORTS.get(parts.scheme))
    return f"{parts.scheme}://{host}" if is_default else f"{parts.scheme}://{host}:{parts.port}"


def address_of(url: str) -> str:
    """Return what distinguishes a hub from others: its origin, and the path under which a proxy offers it.

    Raises ValueError if *url* is not an address.
    """
    return origin_of(url) + urlsplit(public_url(url)).path


def is_same_origin(first_url: str, second_url: str) -> bool:
    """Return whether two addresses are of one hub. A malformed address is of none."""
    try:
        return origin_of(first_url) == origin_of(second_url)
    except ValueError:
        return False


def _complete(url: str) -> str:
    return url if "://" in url else f"http://{url}"
