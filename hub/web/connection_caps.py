"""Limits on the number of connections, which apply before the HTTP server reads from a connection."""

from collections import Counter, deque
from ipaddress import IPv6Address, ip_address

import attrs
import msgspec

from hub.access.proxies import is_trusted_proxy
from hub.errors import TooManyConnections
from hub.limits import Limits
from hub.web.routes import ErrorBody


def _make_refusal(status: str, retry_seconds: int, text: str) -> bytes:
    """Return a complete HTTP response."""
    body = msgspec.json.encode(ErrorBody(error=text, code=TooManyConnections.code))
    head = f"HTTP/1.1 {status}\r\nRetry-After: {retry_seconds}\r\nConnection: close\r\n"
    return f"{head}Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ADDRESS_REFUSAL = _make_refusal(
    "429 Too Many Requests", 5, "this address has too many connections to the hub: close one, or try again later"
)
NODE_REFUSAL = _make_refusal("503 Service Unavailable", 5, "the hub has too many connections: try again later")
SHARE_REFUSAL = _make_refusal(
    "429 Too Many Requests", 1, "this address opens too many connections at once: try again in a moment"
)
WINDOW_SECONDS = 1.0  # for which the new connections of one address count
RATE_REFUSAL = _make_refusal("503 Service Unavailable", 1, "too many clients connect at once: try again in a moment")


@attrs.define(eq=False, repr=False)
class ConnectionCaps:
    """Counts the open connections, and refuses new ones above the limits.

    The limits for one address and the limit of new connections do not apply to trusted proxies: their connections
    belong to many clients, and many proxies open one for each request. `node_connections` applies to them, and
    `principal_connections`, which counts the WebSockets of a principal.
    """

    limits: Limits
    trusted_proxies: tuple[str, ...] = ()
    _sources: Counter[str] = attrs.field(factory=Counter, init=False)
    _total: int = attrs.field(default=0, init=False)
    _recent: float = attrs.field(default=0.0, init=False)  # new connections: the level of a leaky bucket
    _recent_time: float = attrs.field(default=0.0, init=False)
    _window: "deque[tuple[float, str]]" = attrs.field(factory=deque, init=False)  # of new connections: time and source
    _new_by_source: Counter[str] = attrs.field(factory=Counter, init=False)  # in the window

    def admit(self, address: str, now: float) -> bytes | None:
        """Count a new connection and return None, or return the response that refuses it.

        *now* is the time of the event loop's clock. Refused connections do not count.
        """
        source, is_proxy = find_source(address), is_trusted_proxy(address, self.trusted_proxies)
        if self._sources[source] >= self.limits.address_connections and not is_proxy:
            return ADDRESS_REFUSAL
        if self._total >= self.limits.node_connections:
            return NODE_REFUSAL
        if not is_proxy and self._has_used_share(source, now):
            return SHARE_REFUSAL
        if not is_proxy and not self._add_recent(source, now):
            return RATE_REFUSAL
        self._sources[source] += 1
        self._total += 1
        return None

    def _has_used_share(self, source: str, now: float) -> bool:
        """Return whether a source has opened half of the connections that the hub accepts in a second."""
        while self._window and self._window[0][0] <= now - WINDOW_SECONDS:
            _decrement(self._new_by_source, self._window.popleft()[1])
        return self._new_by_source[source] >= -(-self.limits.new_connections_per_second // 2)

    def _add_recent(self, source: str, now: float) -> bool:
        """Add a new connection to the leaky bucket. Return False if the bucket is full."""
        rate = self.limits.new_connections_per_second
        recent = max(0.0, self._recent - (now - self._recent_time) * rate)
        if recent + 1.0 > rate:
            return False
        self._recent, self._recent_time = recent + 1.0, now
        self._window.append((now, source))
        self._new_by_source[source] += 1
        return True

    def leave(self, address: str) -> None:
        """Uncount a connection that admit() has counted."""
        _decrement(self._sources, find_source(address))
        self._total -= 1


def _decrement(counts: Counter[str], source: str) -> None:
    counts[source] -= 1
    if not counts[source]:
        del counts[source]


def find_source(address: str) -> str:
    """Return the unit to which the limit for one address applies.

    This is the address, or the network of 64 bits of an IPv6 address: a client can use all addresses of its network.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address) or parsed.is_loopback:
        return address
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
