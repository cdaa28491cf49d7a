"""Read the bodies of requests up to a size limit, and convert JSON bodies to classes."""

import asyncio
from typing import Any, TypeVar

from aiohttp import web

from hub.errors import BadFrame, TooLarge, Unauthenticated, UploadTooSlow
from hub.limits import Limits, format_size
from hub.protocols.reading import convert, read_object
from hub.web.doorkeeper import principal_of
from hub.web.routes import limits_of

T = TypeVar("T")


async def read_bytes(request: web.Request, max_bytes: int) -> bytes:
    """Return the body of a request.

    Past *max_bytes*, stop reading and raise TooLarge. Raise UploadTooSlow after `body_seconds`. Raise BadFrame if the
    body is incomplete, or does not match its Content-Encoding. Of someone who has not signed in, read no more than of
    the first frame of a socket, and raise Unauthenticated past that.
    """
    data, limits, seconds = bytearray(), limits_of(request), limits_of(request).body_seconds
    is_signed_in = principal_of(request).is_signed_in
    if not is_signed_in:
        max_bytes, seconds = min(max_bytes, limits.auth_frame_bytes), min(seconds, limits.auth_seconds)
    if (request.content_length or 0) <= max_bytes:
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.content.iter_any():
                    data += chunk
                    if len(data) > max_bytes:
                        break
                else:
                    return bytes(data)
        except TimeoutError:
            raise UploadTooSlow("the body took too long: send it again, on a faster connection") from None
        except web.RequestPayloadError:
            text = "the body is incomplete, or does not match its Content-Encoding: send the request again"
            raise BadFrame(text) from None
    if not is_signed_in:
        raise Unauthenticated()
    raise TooLarge(f"the body is larger than the limit of {format_size(max_bytes)}: send a smaller one")


async def read_fields(
    request: web.Request, example: str, max_bytes: int | None = None, limits: Limits | None = None
) -> dict[str, Any]:
    """Return the JSON object in a request's body, or an empty object if the body is empty.

    Raises TooLarge if the body is larger than *max_bytes* (by default the limit `body_bytes`). Raises BadFrame if the
    body is incomplete, is not a JSON object, or has values outside *limits* (by default those of the hub). The error
    for a body that is not a JSON object shows *example*.
    """
    limits = limits or limits_of(request)
    data = await read_bytes(request, limits.body_bytes if max_bytes is None else max_bytes)
    return read_object(data, limits, example) if data else {}


async def read_body(request: web.Request, kind: type[T], max_bytes: int | None = None) -> T:
    """Return the body as an instance of *kind*.

    Raises BadId for a bad id, BadFrame for any other wrong field, and the errors of read_fields().
    """
    example: str = getattr(kind, "example")
    return convert(await read_fields(request, example, max_bytes), kind, limits_of(request), "body")
