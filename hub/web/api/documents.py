"""What the hub can be asked, for programs and for people: OpenAPI, AsyncAPI, and a page that shows both."""

from functools import cache
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from hub.limits import Limits
from hub.web.api.asyncapi import build_asyncapi
from hub.web.api.openapi import build_openapi
from hub.web.routes import (
    API_PREFIX,
    HTML_CONTENT,
    SCRIPT_CONTENT,
    STYLE_CONTENT,
    Content,
    Handler,
    Route,
    file_response,
    limits_of,
)

ROUTES_KEY = web.AppKey("table", tuple[Route, ...])
REFERENCE_FOLDER = Path(__file__).parents[2] / "reference"
DOCUMENT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


async def get_openapi(request: web.Request) -> web.Response:
    """Describe these routes, as OpenAPI 3.1."""
    return _json(_openapi(request.app[ROUTES_KEY], limits_of(request)))


async def get_asyncapi(request: web.Request) -> web.Response:
    """Describe the WebSocket's messages, as AsyncAPI 3.0."""
    return _json(_asyncapi(limits_of(request)))


def _json(document: bytes) -> web.Response:
    return web.Response(body=document, content_type="application/json")


# Neither changes while the process lives.
@cache
def _openapi(table: tuple[Route, ...], limits: Limits) -> bytes:
    return orjson.dumps(build_openapi(table, limits))


@cache
def _asyncapi(limits: Limits) -> bytes:
    return orjson.dumps(build_asyncapi(limits))


def _file(name: str, content: Content, about: str) -> Handler:
    async def give(request: web.Request) -> web.FileResponse:
        return file_response(REFERENCE_FOLDER / name, content, DOCUMENT_HEADERS)

    give.__doc__ = about
    return give


DOCUMENTS_TAG = "Documents"
ROOT_AND_API, ROOT_ONLY = ("", API_PREFIX), ("",)
ROUTES = (
    Route(
        method="GET",
        path="/openapi.json",
        handler=get_openapi,
        tag=DOCUMENTS_TAG,
        responses={200: dict[str, Any]},
        prefixes=ROOT_AND_API,
    ),
    Route(
        method="GET",
        path="/asyncapi.json",
        handler=get_asyncapi,
        tag=DOCUMENTS_TAG,
        responses={200: dict[str, Any]},
        prefixes=ROOT_AND_API,
    ),
    Route(
        method="GET",
        path="/docs",
        handler=_file("index.html", HTML_CONTENT, "Show both to people."),
        tag=DOCUMENTS_TAG,
        responses={200: HTML_CONTENT},
        prefixes=ROOT_ONLY,
    ),
    Route(
        method="GET",
        path="/docs.js",
        handler=_file("reference.js", SCRIPT_CONTENT, "Give that page its script."),
        tag=DOCUMENTS_TAG,
        responses={200: SCRIPT_CONTENT},
        prefixes=ROOT_ONLY,
    ),
    Route(
        method="GET",
        path="/docs.css",
        handler=_file("reference.css", STYLE_CONTENT, "Give that page its looks."),
        tag=DOCUMENTS_TAG,
        responses={200: STYLE_CONTENT},
        prefixes=ROOT_ONLY,
    ),
)
