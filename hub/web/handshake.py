"""Refuses requests for WebSockets and streams that a proxy has changed, and says what to change in its settings."""

from aiohttp import HttpVersion11, web

from hub.access.remedies import add_client
from hub.errors import UpgradeRequired
from hub.web.arrival import CLIENT_ADDRESS_KEY, CLIENT_HOST_KEY, CLIENT_SCHEME_KEY
from hub.web.refusal_log import REFUSAL_LOG_KEY
from hub.web.routes import base_path_of, route_path

NGINX_LINES = (
    'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; '
    "proxy_buffering off;"
)
HTTP_1_0_CAUSE = "a WebSocket or a stream needs HTTP/1.1, but this request is HTTP/1.0, the default of nginx"
UPGRADE_HINT = f"let the proxy pass them on, in nginx with: {NGINX_LINES}"
MAX_ADDRESS_LENGTH = 300
WEBSOCKET_VERSIONS = ("13", "8", "7")  # those that aiohttp speaks
WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}


def refuse_http_1_0(request: web.Request) -> None:
    """Raise HTTPVersionNotSupported for HTTP/1.0, which has no WebSockets and no streams.

    A handler must call this before a command changes a session. The function also logs a warning, because a browser
    does not show the response to a WebSocket's handshake.
    """
    if request.version < HttpVersion11:
        _log_refusal(request, "HTTP/1.0 refused", HTTP_1_0_CAUSE, f"in nginx, add: {NGINX_LINES}")
        raise web.HTTPVersionNotSupported()


def describe_http_1_0(request: web.Request) -> str:
    """Return the answer to a request that refuse_http_1_0() has refused."""
    return add_client(f"{HTTP_1_0_CAUSE}. In nginx, add: {NGINX_LINES}", _find_client(request))


def check_upgrade(request: web.Request) -> None:
    """Raise UpgradeRequired if the request does not ask for a WebSocket (RFC 9110, 15.5.22), and log the cause."""
    missing_names = _find_missing_headers(request)
    if not missing_names:
        if request.headers.get("Sec-WebSocket-Version") not in WEBSOCKET_VERSIONS:
            raise UpgradeRequired("the hub speaks version 13 of WebSocket (RFC 6455): use a newer client")
        return
    # Every client that opens a WebSocket sends this header, and proxies pass it on. Upgrade and Connection are of one
    # hop: a proxy must write them again.
    if "Sec-WebSocket-Key" in request.headers:
        cause, hint = f"a proxy removed {' and '.join(missing_names)} from the handshake of a WebSocket", UPGRADE_HINT
        _log_refusal(request, "WebSocket without Upgrade refused", cause, hint)
    else:
        cause = "this address is for WebSockets, and the request is no WebSocket handshake"
        hint = f'open it with a WebSocket client, in JavaScript with new WebSocket("{_find_address(request)}")'
        _log_refusal(request, "plain request to a WebSocket refused", cause, hint)
    raise UpgradeRequired(add_client(f"{cause}: {hint}", _find_client(request)))


def _find_missing_headers(request: web.Request) -> list[str]:
    """Return which headers of a handshake are missing or have another value, by the same rules as aiohttp."""
    headers = request.headers
    is_present = {
        "Upgrade": headers.get("Upgrade", "").lower().strip() == "websocket",
        "Connection": "upgrade" in headers.get("Connection", "").lower(),
    }
    return [name for name, is_right in is_present.items() if not is_right]


def _find_address(request: web.Request) -> str:
    """Return the address of a WebSocket as its client sees it."""
    base_path, path = base_path_of(request), request.rel_url.raw_path
    scheme = WEBSOCKET_SCHEMES[request[CLIENT_SCHEME_KEY]]
    path = path if path.startswith(f"{base_path}/") else base_path + path
    return f"{scheme}://{request[CLIENT_HOST_KEY]}{path}"[:MAX_ADDRESS_LENGTH]


def _log_refusal(request: web.Request, event: str, cause: str, hint: str) -> None:
    fields = {"route": route_path(request), "address": _find_client(request), "cause": cause, "hint": hint}
    request.app[REFUSAL_LOG_KEY].warn(event, **fields)


def _find_client(request: web.Request) -> str:
    address: str = request.get(CLIENT_ADDRESS_KEY) or request.remote or ""
    return address
