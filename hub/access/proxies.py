"""Find the client of a request that came through proxies: its address, and the address that it sees of the hub."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import attrs
from multidict import MultiMapping

_Address = IPv4Address | IPv6Address
_Networks = tuple[IPv4Network | IPv6Network, ...]

PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "Via")  # a request with one of these came through a proxy
SCHEME_HEADERS = ("Forwarded", "X-Forwarded-Proto")
# The schemes that proxies write for HTTP and for WebSockets.
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# `name=value` of the header Forwarded, and the separator after it (RFC 7239, section 4).
FORWARDED_PAIR = re.compile(
    r"""[ \t]*([\w!#$%&'*+.^`|~-]+)=([\w!#$%&'*+.^`|~-]+|"(?:[^"\\]|\\.)*")[ \t]*(;|,|\Z)""", re.ASCII
)
ADDRESS_WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


@attrs.frozen
class ClientEndpoint:
    """The client of a request: its IP address, and the scheme and the Host that it used.

    The address is empty if the client has none, as on a unix socket.
    """

    address: str
    scheme: str
    host: str


@attrs.frozen
class _Hops:
    """What the proxies say about a request. In each list, the proxy that is nearest to the hub wrote the last value."""

    addresses: list[str]
    schemes: list[str]
    hosts: list[str]


def find_proxy_header(headers: MultiMapping[str]) -> str | None:
    """Return the name of a header that only proxies send, or None if the request seems to come from its client."""
    return next((name for name in PROXY_HEADERS if name in headers), None)


def is_trusted_proxy(peer: str, trusted_proxies: tuple[str, ...]) -> bool:
    """Return whether *peer*, the other end of a connection, is in *trusted_proxies*. A unix socket has no address."""
    try:
        return bool(trusted_proxies) and _is_in(_parse_address(peer), _parse_networks(trusted_proxies))
    except ValueError:
        return False


def is_forgotten_proxy(peer: str, trusted_proxies: tuple[str, ...]) -> bool:
    """Return whether *peer* may be a proxy that is missing in *trusted_proxies*.

    Only addresses of this machine and of private networks count: a hint must not advise trusting a stranger.
    """
    try:
        return _parse_address(peer).is_private and not is_trusted_proxy(peer, trusted_proxies)
    except ValueError:
        return False


def has_scheme(headers: MultiMapping[str]) -> bool:
    """Return whether a proxy may have named the scheme that the client used."""
    return any(name in headers for name in SCHEME_HEADERS)


def find_client(
    peer: str | None, scheme: str, headers: MultiMapping[str], trusted_proxies: tuple[str, ...]
) -> ClientEndpoint:
    """Return the client of a request.

    *peer* is the IP address at the other end of the connection, or None. *scheme* is that of the connection.

    The headers of proxies count only if the peer is in *trusted_proxies*: any client can send them. From the nearest
    proxy to the farthest, the client is the first address that is no trusted proxy. If the headers are malformed, or
    X-Forwarded-For and Forwarded name different clients, then the client is the peer: a proxy that writes one of the
    two headers usually passes on the other one as the client sent it.
    """
    direct = ClientEndpoint(peer or "", scheme, headers.get("Host", ""))
    if not is_trusted_proxy(direct.address, trusted_proxies):
        return direct
    try:
        claims = [*_read_x_headers(headers), *_read_rfc_7239(headers)]
        clients = [_follow(hops, _parse_networks(trusted_proxies), direct) for hops in claims]
    except ValueError:
        return direct
    return clients[0] if len({client.address for client in clients}) == 1 else direct


def _follow(hops: _Hops, networks: _Networks, direct: ClientEndpoint) -> ClientEndpoint:
    """Return the client beyond the trusted proxies. Raises ValueError for a malformed address."""
    address, distance = direct.address, 1
    for distance, text in enumerate(reversed(hops.addresses), 1):
        parsed = _parse_address(text)
        address = str(parsed)
        if not _is_in(parsed, networks):
            break
    scheme = SCHEMES.get(_pick(hops.schemes, distance).lower(), direct.scheme)
    return ClientEndpoint(address, scheme, _pick(hops.hosts, distance) or direct.host)


def _pick(values: list[str], distance: int) -> str:
    """Return the value that the proxy at *distance* wrote. Many proxies replace the value instead of appending one."""
    return values[-min(distance, len(values))] if values else ""


def _read_x_headers(headers: MultiMapping[str]) -> list[_Hops]:
    lists = [_split(headers, f"X-Forwarded-{name}") for name in ("For", "Proto", "Host")]
    return [_Hops(*lists)] if any(lists) else []


def _split(headers: MultiMapping[str], name: str) -> list[str]:
    """Return the items of a header, which may come in several lines."""
    return [item.strip() for line in headers.getall(name, ()) for item in line.split(",")]


def _read_rfc_7239(headers: MultiMapping[str]) -> list[_Hops]:
    """Read the header Forwarded (RFC 7239). Raises ValueError if it is malformed."""
    text = ",".join(headers.getall("Forwarded", ()))
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(text):
        match = FORWARDED_PAIR.match(text, position)
        if match is None or match[1].lower() in elements[-1]:
            raise ValueError("malformed Forwarded")
        value = re.sub(r"\\(.)", r"\1", match[2][1:-1]) if match[2].startswith('"') else match[2]
        elements[-1][match[1].lower()] = value
        if match[3] == ",":
            elements.append({})
        position = match.end()
    names = ("for", "proto", "host")
    return [_Hops(*([element.get(name, "") for element in elements] for name in names))] if text else []


def _parse_address(text: str) -> _Address:
    """Return an address, without its port and brackets. Raises ValueError for a name or for rubbish."""
    match = ADDRESS_WITH_PORT.fullmatch(text)
    address = ip_address((match[1] or match[2]) if match else text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=8)
def _parse_networks(texts: tuple[str, ...]) -> _Networks:
    return tuple(ip_network(text) for text in texts)


def _is_in(address: _Address, networks: _Networks) -> bool:
    return any(address in network for network in networks)
