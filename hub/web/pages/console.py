"""Serves the console: the files of hub/console/."""

import re
from functools import cache
from pathlib import Path

from aiohttp import web

from hub.web.arrival import CLIENT_HOST_KEY
from hub.web.doorkeeper import principal_of
from hub.web.routes import (
    API_PREFIX,
    HTML_CONTENT,
    SCRIPT_CONTENT,
    STYLE_CONTENT,
    Content,
    Route,
    base_path_of,
    route_path,
)

CONSOLE_FOLDER = Path(__file__).parents[2] / "console"
CONTENT_OF_SUFFIX = {
    ".html": HTML_CONTENT,
    ".js": SCRIPT_CONTENT,
    ".css": STYLE_CONTENT,
    ".svg": Content("image/svg+xml"),
}
# Forbids content of other origins, inline scripts and HTML from strings. The page may connect only to the hub.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'{sockets}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
CONSOLE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # revalidate each time, so that the page fits the version of its hub
}
SIGN_IN_PATH = "/sign-in"
HOST_PATTERN = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")


def _find_files() -> dict[str, Path]:
    """Return the files of the console by their URL paths."""
    files = [file for file in sorted(CONSOLE_FOLDER.rglob("*")) if file.suffix in (".js", ".css")]
    assets = {f"/console/{file.relative_to(CONSOLE_FOLDER).as_posix()}": file for file in files}
    names = {"/": "index.html", SIGN_IN_PATH: "sign_in.html", "/favicon.ico": "icon.svg"}
    return assets | {path: CONSOLE_FOLDER / name for path, name in names.items()}


CONSOLE_FILES = _find_files()


async def get_console(request: web.Request) -> web.StreamResponse:
    """Return the page of the console. Who has not signed in is sent to the page for that."""
    if not principal_of(request).is_signed_in:
        return web.Response(status=302, headers={**CONSOLE_HEADERS, "Location": base_path_of(request) + SIGN_IN_PATH})
    return await get_console_file(request)


async def get_console_file(request: web.Request) -> web.StreamResponse:
    """Return a file of the console. The Content-Security-Policy of the page names the host of the request."""
    file, base_path = CONSOLE_FILES[route_path(request)], base_path_of(request)
    headers = {**CONSOLE_HEADERS, "Content-Type": f"{CONTENT_OF_SUFFIX[file.suffix].media}; charset=utf-8"}
    if file.suffix != ".html":
        return web.FileResponse(file, headers=headers)
    sources = _list_websockets(request[CLIENT_HOST_KEY], base_path)
    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.format(sockets="".join(sources))
    return web.Response(body=_read_page(file, base_path), headers=headers)


@cache
def _read_page(file: Path, base_path: str) -> bytes:
    """Return a page whose addresses begin with *base_path*.

    In the file they are relative to its folder. A browser that opens *base_path* without a slash at the end would take
    them for addresses of the folder above.
    """
    text = file.read_text(encoding="utf-8")
    return (text.replace('="./', f'="{base_path}/') if base_path else text).encode()


def _list_websockets(host: str, base_path: str) -> list[str]:
    """Return the addresses of the WebSocket on *host*, as sources in the Content-Security-Policy (CSP).

    The policy names them because 'self' does not include the WebSocket in older browsers. In CSP, ws: also allows wss:.
    CSP cannot name an IPv6 address: for an IPv6 *host*, return none.
    """
    paths = dict.fromkeys((base_path, "")) if HOST_PATTERN.fullmatch(host) else ()
    return [f" ws://{host}{path}{API_PREFIX}/ws" for path in paths]


def _make_route(path: str, file: Path) -> Route:
    content = CONTENT_OF_SUFFIX[file.suffix]
    if path != "/":
        return Route(
            method="GET", path=path, handler=get_console_file, tag="Pages", responses={200: content}, prefixes=("",)
        )
    responses = {200: content, 302: None}
    return Route(method="GET", path=path, handler=get_console, tag="Pages", responses=responses, prefixes=("",))


ROUTES = tuple(_make_route(path, file) for path, file in CONSOLE_FILES.items())
