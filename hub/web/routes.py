"""The rows of route tables, and functions that read queries and make responses.

The router, CORS and the API documents are built from the Routes. A handler converts its query and its body to the
classes that its Route names. So the documents describe exactly what the handler checks.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
import msgspec
import structlog
from aiohttp import web

from hub.commands.hub import Hub
from hub.errors import BadId, BadQuery, HubError
from hub.ids import describe_bad_id, quote
from hub.limits import Limits
from hub.messages import OpenQuestion, StopReason
from hub.protocols.reading import ID_FIELDS, ID_FORM, split_error

log = structlog.get_logger()

API_PREFIX = "/api/v1"
HUB_KEY = web.AppKey("hub", Hub)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


@attrs.frozen
class Content:
    """A body that is not JSON: its media type, and the schema of the body."""

    media: str
    schema: Mapping[str, Any] = {"type": "string"}


TEXT_CONTENT = Content("text/plain")
HTML_CONTENT = Content("text/html")
SCRIPT_CONTENT = Content("text/javascript")
STYLE_CONTENT = Content("text/css")
# OpenAPI 3.1 does not say whether the schema is that of the body or of each event. Generators of clients read the body
# as a string; other tools check each event.
EVENT_SCHEMA = {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}}
STREAM_CONTENT = Content("text/event-stream", {"anyOf": [{"type": "string"}, EVENT_SCHEMA]})


@attrs.frozen(kw_only=True)
class ErrorBody:
    """The body of an error: *error* is for people, *code* is stable. The ids are set only if the message was stored.

    If a run has no complete answer, *content* is its text so far, *stopReason* says how it has ended, and *interrupts*
    are its open questions. With the code `quota_exceeded` and the status 429, *limit* is the quota, and *used* is what
    counts for it now; *renewsAt* (ms) is the end of the day if the quota is for a day.
    """

    error: str
    code: str
    sessionId: str | None = None
    runId: str | None = None
    messageId: str | None = None
    content: str | None = None
    stopReason: StopReason | None = None
    interrupts: tuple[OpenQuestion, ...] | None = None
    limit: int | None = None
    used: int | None = None
    renewsAt: int | None = None


@attrs.frozen(eq=False, kw_only=True)
class Route:
    """One row of a route table. The docstring of *handler* is the summary and the description in the documents.

    *body* is a class that msgspec knows, or a Content. *responses* maps each status to a body: a class, a Content, None
    for no body, or a tuple of bodies. *responses* omits the errors that the documents add: the errors of all routes
    (403 and 500), of a *body* (400 and 413), of a *query* or a WebSocket (400), and of a stream or a WebSocket (505).

    *raises* lists the other errors of the handler; their response has the form of *error_body*. *path_fields* are the
    fields of *body* whose values come from the path. *headers* are request headers with their types. The route exists
    once under each of *prefixes*. With *has_slash_form*, it may also end with a slash. *operation* is the stable
    id of the route in the documents, by default the name of *handler*.
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
    has_slash_form: bool = False
    operation: str = attrs.field()

    @operation.default
    def _name_operation(self) -> str:
        return self.handler.__name__

    @property
    def paths(self) -> list[str]:
        """All paths of the route."""
        paths = [prefix + self.path for prefix in self.prefixes]
        return paths + [f"{path}/" for path in paths if self.has_slash_form]

    @property
    def contents(self) -> tuple[Any, ...]:
        """The bodies of all responses, of every status."""
        return tuple(content for response in self.responses.values() for content in _as_tuple(response))

    @property
    def is_websocket(self) -> bool:
        return 101 in self.responses

    @property
    def has_head(self) -> bool:
        """Whether the route also answers HEAD. GET routes do, except streams and WebSockets, which may never end."""
        return self.method == "GET" and not self.is_websocket and STREAM_CONTENT not in self.contents


def limits_of(request: web.Request) -> Limits:
    return request.app[HUB_KEY].limits


def base_path_of(request: web.Request) -> str:
    """Return the setting `base_path`, which precedes each path that the hub writes into a response."""
    return request.app[HUB_KEY].settings.base_path


def route_path(request: web.Request) -> str:
    """Return the path of the route that the router chose, without `base_path`; "/" if it found none."""
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    return path.removeprefix(base_path_of(request)) or "/"


def make_error_headers(refusal: HubError) -> dict[str, str]:
    """Return the headers of an error response (RFC 9110).

    How to sign in (11.6.1), which protocol to use (15.5.22), and when to try again (10.2.3).
    """
    if refusal.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if refusal.status == 426:
        return {"Upgrade": "websocket", "Connection": "close, Upgrade", "Sec-WebSocket-Version": "13"}
    if "retryAfterMs" in refusal.fields:
        return {"Retry-After": str(max(1, ceil(refusal.fields["retryAfterMs"] / 1000)))}
    return {}


def _as_tuple(response: Any) -> tuple[Any, ...]:
    return response if isinstance(response, tuple) else (response,)


def json_fields(value: Any) -> dict[str, Any]:
    """Return the fields of an attrs instance for JSON, without those that are None."""
    fields = attrs.asdict(value, filter=lambda _, field: field is not None)
    return cast(dict[str, Any], msgspec.to_builtins(fields))  # attrs leaves parts of messages as they are


def json_response(value: Any, status: int = 200) -> web.Response:
    return web.json_response(json_fields(value), status=status)


def file_response(path: Path, content: Content, headers: Mapping[str, str]) -> web.FileResponse:
    """Return a file as a response. Its media type is from *content*: Python's guess depends on the version."""
    return web.FileResponse(path, headers={"Content-Type": f"{content.media}; charset=utf-8", **headers})


def read_query(request: web.Request, kind: type[T]) -> T:
    """Return the query as an instance of *kind*. Raises BadQuery, or BadId for a bad id."""
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as error:
        expectation, field = split_error(error, kind)
        if field in ID_FIELDS and ID_FORM in expectation:
            raise BadId(describe_bad_id(f"?{field}=")) from None
        unknown = re.fullmatch("Object contains unknown field `(.*)`", expectation)
        if unknown is not None:
            names = ", ".join(field.name for field in msgspec.structs.fields(cast(Any, kind)))
            raise BadQuery(f"unknown query parameter {quote(unknown[1])}: use {names}") from None
        raise BadQuery(
            f"?{field}= is wrong: {expectation}" if field else f"the address is wrong: {expectation}"
        ) from None
