"""The bodies of requests: bounded as they come, checked as the class that they become says."""

from typing import Any, TypeVar

from aiohttp import web

from hub.errors import BadFrame, TooLarge
from hub.limits import size_text
from hub.protocols.reading import convert, read_object
from hub.web.routes import limits_of

T = TypeVar("T")


async def whole(request: web.Request, most: int) -> bytes:
    """Return the body of a request.

    Raises TooLarge past *most* bytes, and reads no further; BadFrame if the body is cut off or badly encoded.
    """
    data = bytearray()
    if (request.content_length or 0) <= most:
        try:
            async for piece in request.content.iter_any():
                data += piece
                if len(data) > most:
                    break
            else:
                return bytes(data)
        except web.RequestPayloadError:
            text = "the body is cut off, or is not encoded as its Content-Encoding says: send it again, whole"
            raise BadFrame(text) from None
    raise TooLarge(f"the body is larger than {size_text(most)}, the most that is taken here: send less")


async def fields(request: web.Request, example: str, most: int | None = None) -> dict[str, Any]:
    """Return the object in a request's body; an empty body is an empty object.

    At most *most* bytes are read, `body_bytes` where it is left out. Raises BadFrame, with *example*, and TooLarge.
    """
    limits = limits_of(request)
    data = await whole(request, limits.body_bytes if most is None else most)
    return read_object(data, limits, example) if data else {}


async def read(request: web.Request, kind: type[T], most: int | None = None) -> T:
    """Return the body as the *kind* that the route's row names; raises what fields() does, and BadId."""
    example: str = getattr(kind, "example")
    return convert(await fields(request, example, most), kind, limits_of(request), "body")
