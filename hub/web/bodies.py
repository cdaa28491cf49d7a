"""Reads the bodies of requests with a size limit, and checks them against the class of their route."""

from typing import Any, TypeVar

from aiohttp import web

from hub.errors import BadFrame, TooLarge
from hub.limits import size_text
from hub.protocols.reading import convert, read_object
from hub.web.routes import limits_of

T = TypeVar("T")


async def read_bytes(request: web.Request, max_bytes: int) -> bytes:
    """Read the body of a request.

    Raises TooLarge, and stops reading, past *max_bytes*. Raises BadFrame if the body is incomplete or badly encoded.
    """
    data = bytearray()
    if (request.content_length or 0) <= max_bytes:
        try:
            async for piece in request.content.iter_any():
                data += piece
                if len(data) > max_bytes:
                    break
            else:
                return bytes(data)
        except web.RequestPayloadError:
            text = "the body is incomplete, or does not match its Content-Encoding: send the request again"
            raise BadFrame(text) from None
    raise TooLarge(f"the body is larger than the limit of {size_text(max_bytes)}: send a smaller one")


async def read_fields(request: web.Request, example: str, max_bytes: int | None = None) -> dict[str, Any]:
    """Read the JSON object in a request's body. An empty body is an empty object.

    At most *max_bytes* are read, by default `body_bytes`. Raises BadFrame, with *example*, and TooLarge.
    """
    limits = limits_of(request)
    data = await read_bytes(request, limits.body_bytes if max_bytes is None else max_bytes)
    return read_object(data, limits, example) if data else {}


async def read_body(request: web.Request, kind: type[T], max_bytes: int | None = None) -> T:
    """Read the body as an instance of *kind*, the class of the route. Raises the errors of read_fields(), and BadId."""
    example: str = getattr(kind, "example")
    return convert(await read_fields(request, example, max_bytes), kind, limits_of(request), "body")
