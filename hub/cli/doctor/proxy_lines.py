"""The lines that fix the settings of a proxy, for nginx, Caddy and HAProxy."""

import attrs

NAMES = {"nginx": "nginx", "caddy": "Caddy", "haproxy": "HAProxy"}


@attrs.frozen(kw_only=True)
class ProxyLines:
    """What to write into the settings of each proxy: of Caddy into `reverse_proxy`, of HAProxy into `frontend`."""

    nginx: str
    caddy: str
    haproxy: str

    def to_remedy(self, proxy: str) -> str:
        """Return the line for *proxy*, a key of NAMES; for an unknown proxy, a line for each of them."""
        keys = [proxy] if proxy in NAMES else list(NAMES)
        return "\n".join(f"in {NAMES[key]}: {getattr(self, key)}" for key in keys)


def find_proxy(headers: str) -> str:
    """Return the key of the proxy that wrote the headers `Server` and `Via` of a response, or "".

    HAProxy does not name itself.
    """
    return next((key for key in NAMES if key in headers.lower()), "")


def pass_header(name: str) -> ProxyLines:
    """Return the lines that pass a header on as the client sent it. Proxies do so by default."""
    variable = name.lower().replace("-", "_")
    return ProxyLines(
        nginx=f"proxy_set_header {name} $http_{variable};",
        caddy=f"header_up {name} {{header.{name}}}",
        haproxy=f"remove http-request del-header {name}, and set-header {name}",
    )


def drop_header(name: str) -> ProxyLines:
    """Return the lines that remove a header which clients must not write."""
    return ProxyLines(
        nginx=f'proxy_set_header {name} "";',
        caddy=f"header_up -{name}",
        haproxy=f"http-request del-header {name}",
    )


def set_user(name: str) -> ProxyLines:
    """Return the lines that write the user into a header, in the place of what the client sent."""
    return ProxyLines(
        nginx=f"proxy_set_header {name} $remote_user;",
        caddy=f"header_up {name} {{http.auth.user.id}}",
        haproxy=f"http-request set-header {name} %[var(txn.user)]",
    )


def pass_requests(port: int) -> ProxyLines:
    """Return the lines that pass requests on to the hub."""
    return ProxyLines(
        nginx=f"proxy_pass http://127.0.0.1:{port};",
        caddy=f"reverse_proxy 127.0.0.1:{port}",
        haproxy=f"server hub 127.0.0.1:{port} (in the backend)",
    )


def allow_bodies(megabytes: int) -> ProxyLines:
    """Return the lines that let bodies of this size (MiB) pass."""
    return ProxyLines(
        nginx=f"client_max_body_size {megabytes}m;",
        caddy=f"request_body {{ max_size {megabytes}MiB }} (before reverse_proxy)",
        haproxy="remove http-request deny lines with req.body_size",
    )


HTTP_1_1 = ProxyLines(
    nginx="proxy_http_version 1.1;",
    caddy="transport http { versions 1.1 }",
    haproxy="HAProxy passes on the version of its client: look for HTTP/1.0 in what is before it",
)
UPGRADE = ProxyLines(
    nginx='proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
    caddy="transport http { versions 1.1 }, without header_up lines for Upgrade and Connection",
    haproxy="remove option httpclose, and http-request lines for Upgrade and Connection",
)
LONG_SOCKETS = ProxyLines(
    nginx="proxy_read_timeout 60s; proxy_send_timeout 60s; (or more)",
    caddy="remove stream_timeout",
    haproxy="timeout tunnel 60s (in the backend, or more)",
)
HOST = ProxyLines(
    nginx="proxy_set_header Host $http_host;",
    caddy="remove header_up Host",
    haproxy="remove http-request set-header Host",
)
CLIENT_ADDRESS = ProxyLines(
    nginx="proxy_set_header X-Forwarded-For $remote_addr;",
    caddy="header_up X-Forwarded-For {remote_host}",
    haproxy="http-request set-header X-Forwarded-For %[src]",
)
SCHEME = ProxyLines(
    nginx="proxy_set_header X-Forwarded-Proto $scheme;",
    caddy="header_up X-Forwarded-Proto {scheme}",
    haproxy="http-request set-header X-Forwarded-Proto https if { ssl_fc }",
)
RESPONSE_HEADERS = ProxyLines(
    nginx="remove proxy_hide_header and proxy_ignore_headers",
    caddy="remove header_down",
    haproxy="remove http-response del-header",
)
UNBUFFERED = ProxyLines(
    nginx="proxy_buffering off;",
    caddy="flush_interval -1",
    haproxy="option http-no-delay",
)
UNCOMPRESSED = ProxyLines(
    nginx="gzip off;",
    caddy="@page not header Accept *event-stream*, and then: encode @page gzip",
    haproxy="compression type, without text/event-stream",
)
UNBUFFERED_BODIES = ProxyLines(
    nginx="proxy_request_buffering off;",
    caddy="remove request_buffers",
    haproxy="no option http-buffer-request",
)
