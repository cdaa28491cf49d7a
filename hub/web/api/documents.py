"""What the hub can be asked, for programs and for people: OpenAPI, AsyncAPI, and a page that shows both."""

from functools import cache
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from hub.limits import Limits
from hub.web.api.asyncapi import asyncapi
from hub.web.api.openapi import openapi
from hub.web.routes import BASE, HTML, SCRIPT, STYLE, Content, Handler, Route, file, limits_of

TABLE = web.AppKey("table", tuple[Route, ...])
FOLDER = Path(__file__).parents[2] / "reference"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


async def routes(request: web.Request) -> web.Response:
    """Describe these routes, as OpenAPI 3.1."""
    return _json(_openapi(request.app[TABLE], limits_of(request)))


async def frames(request: web.Request) -> web.Response:
    """Describe the WebSocket's messages, as AsyncAPI 3.0."""
    return _json(_asyncapi(limits_of(request)))


def _json(document: bytes) -> web.Response:
    return web.Response(body=document, content_type="application/json")


# Neither changes while the process lives.
@cache
def _openapi(table: tuple[Route, ...], limits: Limits) -> bytes:
    return orjson.dumps(openapi(table, limits))


@cache
def _asyncapi(limits: Limits) -> bytes:
    return orjson.dumps(asyncapi(limits))


def _file(name: str, content: Content, about: str) -> Handler:
    async def give(request: web.Request) -> web.FileResponse:
        return file(FOLDER / name, content, HEADERS)

    give.__doc__ = about
    return give


TAG = "Documents"
BOTH, ROOT = ("", BASE), ("",)
ROUTES = (
    Route(method="GET", path="/openapi.json", handler=routes, tag=TAG, answers={200: dict[str, Any]}, bases=BOTH),
    Route(method="GET", path="/asyncapi.json", handler=frames, tag=TAG, answers={200: dict[str, Any]}, bases=BOTH),
    Route(
        method="GET",
        path="/docs",
        handler=_file("index.html", HTML, "Show both to people."),
        tag=TAG,
        answers={200: HTML},
        bases=ROOT,
    ),
    Route(
        method="GET",
        path="/docs.js",
        handler=_file("reference.js", SCRIPT, "Give that page its script."),
        tag=TAG,
        answers={200: SCRIPT},
        bases=ROOT,
    ),
    Route(
        method="GET",
        path="/docs.css",
        handler=_file("reference.css", STYLE, "Give that page its looks."),
        tag=TAG,
        answers={200: STYLE},
        bases=ROOT,
    ),
)
