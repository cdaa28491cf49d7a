"""Build the OpenAPI 3.1 document from the table of routes."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import orjson
from aiohttp import web

from hub import __version__
from hub.errors import (
    BadFrame,
    BadId,
    BadQuery,
    Denied,
    HubError,
    Refused,
    TooLarge,
    Unauthenticated,
    UpgradeRequired,
    UploadTooSlow,
)
from hub.limits import Limits
from hub.messages import Id
from hub.web.api.schemas import Schema, build_schemas, schema_ref, simplify_schema, used_components
from hub.web.routes import STREAM_CONTENT, Content, ErrorBody, Route
from hub.web.sign_in import make_cookie_name

OPENAPI_DESCRIPTION = (
    "The HTTP API of the hub: agents, sessions, their messages and files. /asyncapi.json describes the messages of the "
    "WebSocket. An unknown path gets 404, and a method that the path does not have gets 405."
)


def _security_schemes(base_path: str) -> Schema:
    cookie = make_cookie_name("https", "", base_path)
    plain_cookie = make_cookie_name("http", "", base_path)
    return {
        "token": {"type": "http", "scheme": "bearer", "description": "A key of the hub, or a JWT of its issuer."},
        "cookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie,
            "description": "The cookie of a browser that has used a link. Without https its name is "
            f"`{plain_cookie}-PORT`.",
        },
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "A ticket of `POST /tickets`."},
    }


def build_openapi(routes: Sequence[Route], limits: Limits, base_path: str = "") -> Schema:
    """Return the document. Each class is once in the components. Routes with the tag `Pages` are omitted."""
    routes = [route for route in routes if route.tag != "Pages"]
    kinds = [kind for route in routes for kind in _list_kinds(route)]
    refs, components = build_schemas(kinds, has_types=False, limits=limits)
    refs_by_kind = dict(zip(kinds, refs, strict=True))
    components |= {_body_name(route): _body_schema(route, components) for route in routes if route.path_fields}
    schemes = _security_schemes(base_path)
    paths: dict[str, Schema] = {}
    for route in routes:
        for prefix in route.prefixes:
            paths.setdefault(prefix + route.path, {})[route.method.lower()] = _operation(
                route, prefix, refs_by_kind, components
            )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hubbub", "version": __version__, "description": OPENAPI_DESCRIPTION},
        "servers": [{"url": base_path or "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {"schemas": used_components(paths, components), "securitySchemes": schemes},
        "security": [{}, *({name: []} for name in schemes)],  # {}: a hub without sign-in needs none
    }


def _list_kinds(route: Route) -> Iterator[Any]:
    yield from (content for content in route.contents if content is not None and not isinstance(content, Content))
    yield from (kind for kind in (route.body, route.query) if kind is not None and not isinstance(kind, Content))
    yield from (ErrorBody, route.error_body)


def _operation(route: Route, prefix: str, refs_by_kind: dict[Any, Schema], components: dict[str, Schema]) -> Schema:
    summary, _, text = (inspect.getdoc(route.handler) or "").partition("\n\n")
    operation: Schema = {
        "operationId": _operation_id(route, prefix),
        "tags": [route.tag],
        "summary": summary.replace("\n", " "),
        "parameters": [*_path_parameters(route), *_query_parameters(route, components), *_header_parameters(route)],
        "responses": _responses(route, refs_by_kind),
    }
    if text:
        operation["description"] = text
    if route.body is not None:
        operation["requestBody"] = _body(route, components)
    return operation


def _operation_id(route: Route, prefix: str) -> str:
    """Return the id of a route: the operation, and the prefix if it is not the first one of the route."""
    suffix = "" if prefix == route.prefixes[0] else re.sub(r"\W+", "_", prefix)
    return route.operation + suffix


def _path_parameters(route: Route) -> Iterator[Schema]:
    for name in re.findall(r"\{(\w+)", route.path):
        example = "main" if route.path.startswith(("/agents/", "/models/")) else "s1"
        yield {"name": name, "in": "path", "required": True, "schema": _schema(Id), "example": example}


def _query_parameters(route: Route, components: dict[str, Schema]) -> Iterator[Schema]:
    if route.query is None:
        return
    query_schema = components[route.query.__name__]
    for name, schema in query_schema["properties"].items():
        yield {"name": name, "in": "query", "required": name in query_schema["required"]} | _parameter(schema)


def _header_parameters(route: Route) -> Iterator[Schema]:
    for name, kind in route.headers.items():
        yield {"name": name, "in": "header", "required": False} | _parameter(_schema(kind))


def _parameter(schema: Schema) -> Schema:
    """Return the fields `description` and `schema` of a parameter. The schema does not allow null."""
    schema = dict(schema)
    for choice in schema.pop("anyOf", ()):
        if choice != {"type": "null"}:
            schema |= choice
    description = {"description": schema.pop("description")} if "description" in schema else {}
    return description | {"schema": schema}


def _schema(kind: Any) -> Schema:
    schema = msgspec.json.schema(kind)
    simplify_schema(schema)
    return schema


def _body(route: Route, components: dict[str, Schema]) -> Schema:
    if isinstance(route.body, Content):
        return {"required": True, "content": {route.body.media: {"schema": dict(route.body.schema)}}}
    name = _body_name(route)
    content = {"schema": schema_ref(name), "example": _example(route)}
    return {"required": bool(components[name]["required"]), "content": {"application/json": content}}


def _body_name(route: Route) -> str:
    """Return the name of the schema of a JSON body."""
    name: str = route.body.__name__
    return f"{name}Body" if route.path_fields else name


def _body_schema(route: Route, components: dict[str, Schema]) -> Schema:
    """Return the schema of a body without the fields that are in the path."""
    schema = components[route.body.__name__]
    fields = {name: field for name, field in schema["properties"].items() if name not in route.path_fields}
    required_fields = [name for name in schema["required"] if name in fields]
    return schema | {"title": _body_name(route), "properties": fields, "required": required_fields}


def _example(route: Route) -> Any:
    """Return the first example of the body's class, without the fields that are in the path."""
    fields = orjson.loads(route.body.example.partition(" or ")[0])
    return {name: value for name, value in fields.items() if name not in ("type", *route.path_fields)}


def _responses(route: Route, refs_by_kind: dict[Any, Schema]) -> Schema:
    responses = {status: _response(status, response, refs_by_kind) for status, response in route.responses.items()}
    codes_by_status: dict[int, list[str]] = {}
    for code, status in _list_errors(route):
        if code not in codes_by_status.setdefault(status, []):
            codes_by_status[status].append(code)
    for status, codes in codes_by_status.items():
        content = {"application/json": {"schema": refs_by_kind[route.error_body]}}
        responses.setdefault(status, {"description": " or ".join(f"`{code}`" for code in codes), "content": content})
    return {str(status): responses[status] for status in sorted(responses)}


OPEN_TAGS = ("Health", "Pages", "Documents")  # the tags of routes that need no sign-in


def _list_errors(route: Route) -> Iterator[tuple[str, int]]:
    """Yield each error code that a route may return, with its status."""
    kinds: list[type[HubError]] = [Refused, HubError, *route.raises]
    if route.tag not in OPEN_TAGS:
        kinds += [Unauthenticated, Denied]
    if route.body is not None:
        kinds += [BadFrame, BadId, TooLarge, UploadTooSlow]
    if route.query is not None:
        kinds += [BadQuery, BadId]
    if route.is_websocket or STREAM_CONTENT in route.contents:
        yield "http_version_not_supported", web.HTTPVersionNotSupported.status_code
    if route.is_websocket:
        yield "bad_request", 400  # the key of the handshake is wrong
        kinds.append(UpgradeRequired)
    yield from ((kind.code, kind.status) for kind in kinds)


def _response(status: int, response: Any, refs_by_kind: dict[Any, Schema]) -> Schema:
    media_types: Schema = {}
    for content in response if isinstance(response, tuple) else (response,):
        if isinstance(content, Content):
            media_types[content.media] = {"schema": dict(content.schema)}
        elif content is not None:
            media_types["application/json"] = {"schema": refs_by_kind[content]}
    return {"description": web.Response(status=status).reason} | ({"content": media_types} if media_types else {})
