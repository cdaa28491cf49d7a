"""HTTP resources: one file each, with its routes in a table.

A Route is all that the router, CORS and the documents know of a route. What a handler reads of an address or a body it
reads as the class that its row names, so that what is written down is what is checked.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
import msgspec
import structlog
from aiohttp import HttpVersion11, web

from hub.commands.hub import Hub
from hub.errors import BadId, BadQuery, HubError
from hub.ids import describe_bad_id, quote
from hub.limits import Limits
from hub.protocols.reading import ID_FIELDS, split_error
from hub.text import cut

log = structlog.get_logger()

API_PREFIX = "/api/v1"
HTTP_1_0_HINT = (
    "a WebSocket or a stream needs HTTP/1.1, and this came by HTTP/1.0, as nginx asks by default. Write there: "
    'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; '
    "proxy_buffering off;"
)
HUB_KEY = web.AppKey("hub", Hub)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


@attrs.frozen
class Content:
    """An answer that is no JSON: its media type, and the schema of it, or of each event of a stream."""

    media: str
    schema: Mapping[str, Any] = {"type": "string"}


TEXT_CONTENT = Content("text/plain")
HTML_CONTENT = Content("text/html")
SCRIPT_CONTENT = Content("text/javascript")
STYLE_CONTENT = Content("text/css")
STREAM_CONTENT = Content(
    "text/event-stream",
    {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}},
)


@attrs.frozen(kw_only=True)
class ErrorBody:
    """Why a request was refused: *error* is for people, *code* is stable. The ids say what was kept all the same."""

    error: str
    code: str
    sessionId: str | None = None
    runId: str | None = None
    messageId: str | None = None


@attrs.frozen(eq=False, kw_only=True)
class Route:
    """One row: what is asked, who answers, and what may be said. Summary and description are the handler's docstring.

    *answers* has for each status a class that msgspec knows, a Content, None for no body, or a tuple of these. What
    comes by itself stays out: 400 and 413 of a body, 403, 500. *raises* are errors that the handler may meet, said in
    the form of *error_body*. *told* are the fields of the body that the address says already.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    responses: Mapping[int, Any]
    body: Any = None
    path_fields: tuple[str, ...] = ()
    query: type[Any] | None = None
    headers: Mapping[str, Any] = {}
    raises: tuple[type[HubError], ...] = ()
    error_body: type[Any] = ErrorBody
    prefixes: tuple[str, ...] = (API_PREFIX,)

    @property
    def contents(self) -> tuple[Any, ...]:
        """Return what its answers hold, whatever their status."""
        return tuple(content for answer in self.responses.values() for content in _as_tuple(answer))

    @property
    def is_websocket(self) -> bool:
        return 101 in self.responses

    @property
    def has_head(self) -> bool:
        """Say whether HEAD is answered: nobody waits for the head of what may not end."""
        return self.method == "GET" and not self.is_websocket and STREAM_CONTENT not in self.contents


def limits_of(request: web.Request) -> Limits:
    return request.app[HUB_KEY].limits


def refuse_http_1_0(request: web.Request) -> None:
    """Raise HTTPVersionNotSupported for HTTP/1.0, in which no WebSocket and no stream can be; before anything is done.

    A browser shows nothing of the answer to a WebSocket's handshake: the operator reads it in the hub's output.
    """
    if request.version < HttpVersion11:
        log.warning("HTTP/1.0 refused", path=cut(request.path, 200), hint=HTTP_1_0_HINT)
        raise web.HTTPVersionNotSupported()


def _as_tuple(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def json_fields(value: Any) -> dict[str, Any]:
    """Return an attrs instance as JSON has it: without what is None."""
    return attrs.asdict(value, filter=lambda _, field: field is not None)


def record_response(value: Any, status: int = 200) -> web.Response:
    return web.json_response(json_fields(value), status=status)


def file_response(path: Path, content: Content, headers: Mapping[str, str]) -> web.FileResponse:
    """Answer with a file of a page; what a script is called differs from one Python to the next."""
    return web.FileResponse(path, headers={"Content-Type": f"{content.media}; charset=utf-8", **headers})


def read_query(request: web.Request, kind: type[T]) -> T:
    """Return the query as the *kind* that the route's row names; raises BadQuery, or BadId where it is an id."""
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as wrong:
        expected, field = split_error(wrong, kind)
        if field in ID_FIELDS and "regex" in expected:
            raise BadId(describe_bad_id(f"?{field}=")) from None
        unknown = re.fullmatch("Object contains unknown field `(.*)`", expected)
        if unknown is not None:
            known = ", ".join(field.name for field in msgspec.structs.fields(cast(Any, kind)))
            raise BadQuery(f"unknown query parameter {quote(unknown[1])}: use {known}") from None
        raise BadQuery(f"?{field}= is wrong: {expected}" if field else f"the address is wrong: {expected}") from None
