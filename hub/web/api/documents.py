"""HTTP routes of the API documents: OpenAPI, AsyncAPI, and a page that shows both."""

from functools import cache
from pathlib import Path

import orjson
from aiohttp import web
from msgspec import Struct

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
    base_path_of,
    file_response,
    limits_of,
)

ROUTES_KEY = web.AppKey("routes", tuple[Route, ...])
REFERENCE_FOLDER = Path(__file__).parents[2] / "reference"
DOCUMENT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class ApiDocument(Struct):
    """An OpenAPI or AsyncAPI document."""


async def get_openapi(request: web.Request) -> web.Response:
    """Return the OpenAPI 3.1 document of the HTTP API."""
    return _json_response(_openapi(request.app[ROUTES_KEY], limits_of(request), base_path_of(request)))


async def get_asyncapi(request: web.Request) -> web.Response:
    """Return the AsyncAPI 3.0 document of the WebSocket's messages."""
    return _json_response(_asyncapi(limits_of(request), base_path_of(request)))


def _json_response(document: bytes) -> web.Response:
    return web.Response(body=document, content_type="application/json")


# The documents do not change while the process runs.
@cache
def _openapi(routes: tuple[Route, ...], limits: Limits, base_path: str) -> bytes:
    return orjson.dumps(build_openapi(routes, limits, base_path))


@cache
def _asyncapi(limits: Limits, base_path: str) -> bytes:
    return orjson.dumps(build_asyncapi(limits, base_path))


def _make_handler(name: str, content: Content, description: str) -> Handler:
    async def get_file(request: web.Request) -> web.FileResponse:
        return file_response(REFERENCE_FOLDER / name, content, DOCUMENT_HEADERS)

    get_file.__doc__ = description
    return get_file


DOCUMENTS_TAG = "Documents"
ROOT_AND_API, ROOT_ONLY = ("", API_PREFIX), ("",)
ROUTES = (
    Route(
        method="GET",
        path="/openapi.json",
        handler=get_openapi,
        tag=DOCUMENTS_TAG,
        responses={200: ApiDocument},
        prefixes=ROOT_AND_API,
    ),
    Route(
        method="GET",
        path="/asyncapi.json",
        handler=get_asyncapi,
        tag=DOCUMENTS_TAG,
        responses={200: ApiDocument},
        prefixes=ROOT_AND_API,
    ),
    Route(
        method="GET",
        path="/docs",
        handler=_make_handler("index.html", HTML_CONTENT, "Return the page that shows both documents."),
        tag=DOCUMENTS_TAG,
        responses={200: HTML_CONTENT},
        prefixes=ROOT_ONLY,
        operation="get_docs_page",
    ),
    Route(
        method="GET",
        path="/docs.js",
        handler=_make_handler("reference.js", SCRIPT_CONTENT, "Return the script of the page `/docs`."),
        tag=DOCUMENTS_TAG,
        responses={200: SCRIPT_CONTENT},
        prefixes=ROOT_ONLY,
        operation="get_docs_script",
    ),
    Route(
        method="GET",
        path="/docs.css",
        handler=_make_handler("reference.css", STYLE_CONTENT, "Return the style sheet of the page `/docs`."),
        tag=DOCUMENTS_TAG,
        responses={200: STYLE_CONTENT},
        prefixes=ROOT_ONLY,
        operation="get_docs_style",
    ),
)
