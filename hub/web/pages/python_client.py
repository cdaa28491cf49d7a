"""Serves the Python client as a wheel that pip installs from its address, without the packages of the server.

The wheel has the modules that `hub.client` imports, unchanged and under their names. So programs look the same with it
and with Hubbub itself. It must not be installed beside Hubbub: both have the package `hub`.
"""

import ast
import asyncio
import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from aiohttp import web

import hub
from hub import __version__
from hub.web.pages.console import CONSOLE_HEADERS
from hub.web.routes import Content, Route

WHEEL_CONTENT = Content("application/zip", {"type": "string", "format": "binary"})
CLIENT_MODULE = "hub.client"
CLIENT_PACKAGES = ("aiohttp", "attrs", "msgspec", "orjson", "wcwidth")  # the requirements of the wheel
DISTRIBUTION = "hubbub_client"
WHEEL_NAME = f"{DISTRIBUTION}-{__version__}-py3-none-any.whl"
INFO_FOLDER = f"{DISTRIBUTION}-{__version__}.dist-info"
SOURCE_FOLDER = Path(hub.__file__).parents[1]
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the first time of the format
FILE_MODE = 0o100644 << 16


@cache
def make_wheel() -> bytes:
    """Return the wheel. Equal sources give equal bytes: the files are not compressed, and all have the same time."""
    files = {name: (SOURCE_FOLDER / name).read_bytes() for name in ("hub/py.typed", *list_modules())}
    files |= {f"{INFO_FOLDER}/{name}": text.encode() for name, text in _write_metadata().items()}
    record = "".join(_record_line(name, data) for name, data in files.items()) + f"{INFO_FOLDER}/RECORD,,\n"
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**files, f"{INFO_FOLDER}/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.external_attr = FILE_MODE
            archive.writestr(entry, data)
    return wheel.getvalue()


def list_modules() -> list[str]:
    """Return the paths of the modules that hub.client imports, with their packages, sorted."""
    paths: set[str] = set()
    _add_module(CLIENT_MODULE, paths)
    return sorted(paths)


def _add_module(module: str, paths: set[str]) -> None:
    """Add the file of a module, of its packages, and of all that they import."""
    folder, _, _ = module.rpartition(".")
    if folder:
        _add_module(folder, paths)
    path = _find_file(module)
    if path is None or path in paths:  # None: the name is no module, but an object in one
        return
    paths.add(path)
    for name in _list_imports(ast.parse((SOURCE_FOLDER / path).read_bytes())):
        _add_module(name, paths)


def _find_file(module: str) -> str | None:
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (SOURCE_FOLDER / file).is_file()), None)


def _list_imports(tree: ast.Module) -> Iterator[str]:
    """Yield the names in the hub that a module imports. Some are modules, the others are objects in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "hub":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "hub")


def _write_metadata() -> Mapping[str, str]:
    """Return the files of the metadata by their names, without RECORD."""
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION.replace('_', '-')}",
        f"Version: {__version__}",
        "Summary: The Python client of Hubbub, a hub for AI agents",
        "License: Apache-2.0",
        "Requires-Python: >=3.11",
        *(f"Requires-Dist: {requirement}" for requirement in _list_requirements()),
    ]
    wheel = "Wheel-Version: 1.0\nGenerator: hubbub\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return {"METADATA": "\n".join(lines) + "\n", "WHEEL": wheel}


def _list_requirements() -> list[str]:
    """Return the packages of the client, with the versions that Hubbub requires if it is installed as a package."""
    try:
        requirements = metadata.requires("hubbub") or []
    except metadata.PackageNotFoundError:
        requirements = []
    versions = {re.split(r"[^\w.-]", requirement)[0].lower(): requirement for requirement in reversed(requirements)}
    return [versions.get(name, name) for name in CLIENT_PACKAGES]


def _record_line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


async def get_wheel(request: web.Request) -> web.Response:
    """Return the Python client as a wheel. Its name has the version of the hub, as pip requires."""
    if request.match_info["name"] != WHEEL_NAME:
        return web.Response(status=404, text=f"this hub has no such file: it has {WHEEL_NAME}\n")
    body = await asyncio.to_thread(make_wheel)  # it reads and parses about forty files, once
    return web.Response(body=body, headers={**CONSOLE_HEADERS, "Content-Type": WHEEL_CONTENT.media})


ROUTES = (
    Route(
        method="GET",
        path="/wheels/{name}",
        handler=get_wheel,
        tag="Pages",
        responses={200: WHEEL_CONTENT, 404: Content("text/plain")},
        prefixes=("",),
    ),
)
