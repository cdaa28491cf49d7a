"""Serves the JavaScript client: one file with its modules of hub/client_js/, one file with their types, and a package.

One file can be saved beside a program for Node.js, and a browser loads it with one request. npm installs the package,
which also has the hooks for React and for assistant-ui, and the agent for clients of AG-UI.
"""

import hashlib
import re
from functools import cache
from pathlib import Path

from aiohttp import web

from hub.web.pages.client_package import pack_client
from hub.web.pages.console import CONSOLE_HEADERS
from hub.web.routes import SCRIPT_CONTENT, Content, Route, base_path_of, route_path

GZIP_CONTENT = Content("application/gzip", {"type": "string", "format": "binary"})
CLIENT_FOLDER = Path(__file__).parents[2] / "client_js"
IMPORT_PATTERN = re.compile(r"^import .+ from '\./(.+)'\n+", re.MULTILINE)
REEXPORT_PATTERN = re.compile(r"^(export .+) from '\./(.+)'$", re.MULTILINE)
EXPORT_PATTERN = re.compile(r"^export (?=const|class|function|async function)", re.MULTILINE)
TYPE_IMPORT_PATTERN = re.compile(r"^/\*\* @import .+ \*/\n+", re.MULTILINE)


def join_modules(folder: Path, entry: str) -> str:
    """Return the text of one module that contains all modules that *entry* needs.

    *entry* only re-exports names of other modules. In the result, a module comes after the modules that it imports. Two
    modules must not define the same name.
    """
    header, _, exports = (folder / entry).read_text(encoding="utf-8").partition("\n\n")
    bodies: dict[str, str] = {}
    for match in REEXPORT_PATTERN.finditer(exports):
        _add_module(folder, match[2], bodies)
    return "\n".join([header + "\n", *bodies.values(), REEXPORT_PATTERN.sub(r"\1", exports)])


def _add_module(folder: Path, name: str, bodies: dict[str, str]) -> None:
    """Add a module without its imports to *bodies*, after the modules that the module imports."""
    if name in bodies:
        return
    text = (folder / name).read_text(encoding="utf-8")
    for match in IMPORT_PATTERN.finditer(text):
        _add_module(folder, match[1], bodies)
    bodies[name] = EXPORT_PATTERN.sub("", TYPE_IMPORT_PATTERN.sub("", IMPORT_PATTERN.sub("", text)))


BASE_PATH_LINE = "const BASE_PATH = '%s'"
CLIENT_SCRIPT = join_modules(CLIENT_FOLDER, "client.js").encode()
CLIENT_TYPES = (CLIENT_FOLDER / "client.d.ts").read_bytes()
# Modules that are only in the package: a page that uses them has a bundler.
PACKAGE_MODULES = {
    file: join_modules(CLIENT_FOLDER, file).encode() if file.endswith(".js") else (CLIENT_FOLDER / file).read_bytes()
    for name in ("react", "agui", "assistant-ui")
    for file in (f"{name}.js", f"{name}.d.ts")
}


@cache
def make_client_files(base_path: str = "") -> dict[str, tuple[Content, bytes]]:
    """Return the files by their URL paths. In the script, *base_path* is a part of the default address of the hub."""
    script = CLIENT_SCRIPT.replace((BASE_PATH_LINE % "").encode(), (BASE_PATH_LINE % base_path).encode())
    package_files = {"client.js": script, "client.d.ts": CLIENT_TYPES, **PACKAGE_MODULES}
    return {
        "/client.js": (SCRIPT_CONTENT, script),
        "/client.d.ts": (Content("application/typescript"), CLIENT_TYPES),
        "/client.tgz": (GZIP_CONTENT, pack_client(package_files)),
    }


CLIENT_FILES = make_client_files()


async def get_client(request: web.Request) -> web.Response:
    """Return the JavaScript client, its types, or both as a package for npm.

    Pages of other allowed origins may load them too.
    """
    content, body = make_client_files(base_path_of(request))[route_path(request)]
    etag = hashlib.sha256(body).hexdigest()
    headers = {**CONSOLE_HEADERS, "Content-Type": content.media, "ETag": f'"{etag}"'}
    if content is not GZIP_CONTENT:
        headers["Content-Type"] += "; charset=utf-8"
    if any(tag.value in (etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)


ROUTES = tuple(
    Route(method="GET", path=path, handler=get_client, tag="Pages", responses={200: content, 304: None}, prefixes=("",))
    for path, (content, _) in CLIENT_FILES.items()
)
