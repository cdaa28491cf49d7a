"""The console: the files of hub/console/, unchanged."""

import re
from pathlib import Path

from aiohttp import web

from hub.web.routes import HTML_CONTENT, SCRIPT_CONTENT, STYLE_CONTENT, Content, Route

CONSOLE_FOLDER = Path(__file__).parents[2] / "console"
CONTENT_OF_SUFFIX = {
    ".html": HTML_CONTENT,
    ".js": SCRIPT_CONTENT,
    ".css": STYLE_CONTENT,
    ".svg": Content("image/svg+xml"),
}
# No content of other origins, no inline scripts, no HTML from strings; the page may connect only to the hub.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'{socket}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
CONSOLE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # revalidate each time, so that the page fits the version of its hub
}
HOST_PATTERN = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")


def _files() -> dict[str, Path]:
    """Return the file of each path. Other files are not served."""
    files = [path for path in sorted(CONSOLE_FOLDER.rglob("*")) if path.suffix in (".js", ".css")]
    assets = {f"/console/{path.relative_to(CONSOLE_FOLDER).as_posix()}": path for path in files}
    pages = {"/": CONSOLE_FOLDER / "index.html", "/favicon.ico": CONSOLE_FOLDER / "icon.svg"}
    return assets | pages


CONSOLE_FILES = _files()


async def get_console_file(request: web.Request) -> web.FileResponse:
    """Return a file of the console. The policy of the page depends on the host that the request names."""
    path = CONSOLE_FILES[request.path]
    headers = {**CONSOLE_HEADERS, "Content-Type": f"{CONTENT_OF_SUFFIX[path.suffix].media}; charset=utf-8"}
    if path.suffix == ".html":
        headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.format(socket=_socket(request.host))
    return web.FileResponse(path, headers=headers)


def _socket(host: str) -> str:
    """Return the source of this host's WebSocket for the Content-Security-Policy.

    Older browsers do not include it in 'self'. In CSP, ws includes wss. CSP cannot name an IPv6 address; there 'self'
    must do.
    """
    return f" ws://{host}/api/v1/ws" if HOST_PATTERN.fullmatch(host) else ""


ROUTES = tuple(
    Route(
        method="GET",
        path=address,
        handler=get_console_file,
        tag="Pages",
        responses={200: CONTENT_OF_SUFFIX[path.suffix]},
        prefixes=("",),
    )
    for address, path in CONSOLE_FILES.items()
)
