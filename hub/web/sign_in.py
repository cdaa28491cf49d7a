"""Finds the principal of a request: by its Authorization header, its ticket, its trusted proxy or its cookie."""

from functools import lru_cache
from hashlib import sha256

import attrs
from aiohttp import web

from hub.access.doors import is_hub_origin, is_loopback, is_own_origin
from hub.access.principal import NOBODY, Principal
from hub.access.proxies import is_trusted_proxy
from hub.access.records import is_subject
from hub.commands import table as commands
from hub.commands.directory import ForeignUser
from hub.errors import Refused, Unauthenticated
from hub.settings import Settings
from hub.web.arrival import CLIENT_ADDRESS_KEY, CLIENT_HOST_KEY, CLIENT_SCHEME_KEY
from hub.web.routes import API_PREFIX, HUB_KEY, base_path_of, route_path

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SECURE_COOKIE = "__Host-hubbub"  # browsers take this name only with Secure, over https
COOKIE_SECONDS = 30 * 24 * 3600
# The routes that take a ticket. Its address may be in the log of a proxy, so it must open nothing else.
SOCKET_PATHS = (f"{API_PREFIX}/ws", f"{API_PREFIX}/agents/{{agentId}}/ws")
EVENTS_PATH = f"{API_PREFIX}/sessions/{{id}}/events"
# True if the request has a credential that is not valid. A WebSocket is then refused before the upgrade.
BAD_CREDENTIAL_KEY = web.RequestKey("bad_credential", bool)


async def identify(request: web.Request) -> Principal:
    """Return the principal of a request, or NOBODY. Raises StorageUnavailable.

    The first one of these in the request decides, even if it is not valid: the Authorization header, a ticket, the
    user of a trusted proxy, the cookie.
    """
    visitor = attrs.evolve(NOBODY, address=request[CLIENT_ADDRESS_KEY])
    for find in (_find_by_header, _find_by_ticket, _find_by_proxy, _find_by_cookie):
        try:
            principal = await find(request, visitor)
        except Unauthenticated:
            request[BAD_CREDENTIAL_KEY] = find is not _find_by_cookie  # an old cookie must not refuse the `auth` frame
            return visitor
        if principal is not None:
            return attrs.evolve(principal, address=visitor.address)
    return visitor


async def _find_by_header(request: web.Request, visitor: Principal) -> Principal | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    return await commands.authenticate(request.app[HUB_KEY], visitor, token.strip())


async def _find_by_ticket(request: web.Request, visitor: Principal) -> Principal | None:
    ticket = request.query.get("ticket")
    if ticket is None:
        return None
    path = route_path(request) if request.method == "GET" else ""
    if path not in (*SOCKET_PATHS, EVENTS_PATH):
        raise Unauthenticated()
    session_id = request.match_info["id"] if path == EVENTS_PATH else None
    origin = find_foreign_origin(request)
    return await commands.redeem_ticket(request.app[HUB_KEY], visitor, ticket, origin, session_id)


async def _find_by_proxy(request: web.Request, visitor: Principal) -> Principal | None:
    hub = request.app[HUB_KEY]
    header = hub.settings.user_header
    names = request.headers.getall(header, []) if header is not None else []
    if not any(names) or not is_trusted_proxy(request.remote or "", hub.settings.trusted_proxies):
        return None
    if "Origin" in request.headers and not _is_from_own_page(request):
        return None  # a browser sends what the proxy asks for, such as a password, with requests of any page
    name, *more_names = names
    if more_names or not is_subject(name):  # of two headers, the proxy may have written only the second one
        raise Unauthenticated()
    return await commands.find_foreign_user(hub, visitor, ForeignUser(kind="proxy", subject=name, name=name))


async def _find_by_cookie(request: web.Request, visitor: Principal) -> Principal | None:
    # A trusted proxy may name no scheme, and a request without Origin does not tell it either: see Arrival.
    secure_name = make_cookie_name("https", "", base_path_of(request))
    value = request.cookies.get(cookie_name(request), request.cookies.get(secure_name))
    if value is None or not _may_use_cookie(request):
        return None
    return await commands.authenticate(request.app[HUB_KEY], visitor, value)


def _may_use_cookie(request: web.Request) -> bool:
    """Return whether the request comes from a page of the hub, or is a safe request without an Origin.

    SameSite=Lax is not enough: a page of another port of the same host is of the same site.
    """
    if "Origin" not in request.headers:
        return request.method in SAFE_METHODS and "Upgrade" not in request.headers
    return _is_from_own_page(request)


def _is_from_own_page(request: web.Request) -> bool:
    settings, origin = request.app[HUB_KEY].settings, request.headers["Origin"]
    return is_own_origin(settings, origin, request[CLIENT_HOST_KEY], request[CLIENT_SCHEME_KEY])


def find_foreign_origin(request: web.Request) -> str | None:
    """Return the origin of the page that sent the request, or None for a program or a page of the hub itself.

    A browser sends no Origin with the EventSource of a page of the same origin, but it does with a POST of this page.
    """
    settings, origin = request.app[HUB_KEY].settings, request.headers.get("Origin")
    host, scheme = request[CLIENT_HOST_KEY], request[CLIENT_SCHEME_KEY]
    return None if origin is None or is_hub_origin(settings, origin, host, scheme) else origin


def check_origin(request: web.Request) -> None:
    """Raise Refused for a request that signs in, if it comes from a page of another origin.

    Such a page could sign a browser in as the page's own author, and read what people then write.
    """
    if "Origin" in request.headers and not _is_from_own_page(request):
        raise Refused(
            "a page of another origin cannot sign a browser in: open the link itself, or add the origin to `origins`"
        )


def cookie_name(request: web.Request) -> str:
    return make_cookie_name(request[CLIENT_SCHEME_KEY], request[CLIENT_HOST_KEY], base_path_of(request))


def make_cookie_name(scheme: str, host: str, base_path: str) -> str:
    """Return the name of the cookie. Without https it has the port, because browsers share cookies among ports.

    The name also has a digest of *base_path*: hubs under several paths of one host would overwrite each other's
    cookies. The Path of the cookie cannot keep them apart. Names with __Host- require the Path /, and the hub answers
    under its path and without it. It would not protect a cookie either: a page reads all paths of its host.
    """
    name = (SECURE_COOKIE if scheme == "https" else "hubbub") + _cookie_suffix(base_path)
    port = host.rpartition(":")[2]
    return f"{name}-{port}" if scheme != "https" and port.isdecimal() else name


@lru_cache(maxsize=8)
def _cookie_suffix(base_path: str) -> str:
    return f"-{sha256(base_path.encode()).hexdigest()[:8]}" if base_path else ""


def set_cookie(request: web.Request, response: web.StreamResponse, value: str) -> None:
    """Sign the browser in. Raises Refused without https, except on a loopback name or with `allow_http`."""
    is_secure = request[CLIENT_SCHEME_KEY] == "https"
    check_scheme(request)
    response.set_cookie(
        cookie_name(request),
        value,
        max_age=COOKIE_SECONDS,
        httponly=True,
        secure=is_secure,
        samesite="Lax",
        path="/",
    )


def check_scheme(request: web.Request) -> None:
    """Raise Refused if the hub must not sign a browser in over the request's scheme."""
    name = request[CLIENT_HOST_KEY].rpartition(":")[0] or request[CLIENT_HOST_KEY]
    settings: Settings = request.app[HUB_KEY].settings
    if request[CLIENT_SCHEME_KEY] != "https" and not is_loopback(name) and not settings.allow_http:
        raise Refused(
            "browsers sign in over https only: set tls_certificate and tls_key, or put a proxy with https before the "
            "hub and set trusted_proxies, or set allow_http = true in hubbub.toml for a network in which you trust "
            "everyone"
        )


def clear_cookie(request: web.Request, response: web.StreamResponse) -> None:
    """Sign the browser out."""
    response.del_cookie(
        cookie_name(request),
        path="/",
        secure=request[CLIENT_SCHEME_KEY] == "https",
        httponly=True,
        samesite="Lax",
    )
