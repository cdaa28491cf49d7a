"""The bodies of requests: bounded as they come, checked as the class that they become says."""

from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
from aiohttp import web

from hub.errors import BadFrame, BadId, TooLarge
from hub.protocols.reading import ID_FIELDS, LIMITS, read_object
from hub.web.routes import parted


class Body(Protocol):
    """A class that a body becomes; *example* is one that is right."""

    example: ClassVar[str]


Kind = TypeVar("Kind", bound=Body)


async def whole(request: web.Request, most: int = LIMITS.body_bytes) -> bytes:
    """Return the body of a request; raises TooLarge past *most* bytes, and reads no further."""
    data = bytearray()
    if (request.content_length or 0) <= most:
        async for piece in request.content.iter_any():
            data += piece
            if len(data) > most:
                break
        else:
            return bytes(data)
    raise TooLarge(f"the body is larger than {most >> 10} KiB, the most that is taken here: send less")


async def fields(request: web.Request, example: str, most: int = LIMITS.body_bytes) -> dict[str, Any]:
    """Return the object in a request's body; none is an empty one. Raises BadFrame, with *example*, and TooLarge."""
    data = await whole(request, most)
    return read_object(data, example) if data else {}


async def read(request: web.Request, kind: type[Kind], most: int = LIMITS.body_bytes) -> Kind:
    """Return the body as the *kind* that the route's row names; raises BadFrame with an example of what is right."""
    try:
        return msgspec.convert(await fields(request, kind.example, most), kind)
    except msgspec.ValidationError as wrong:
        expected, field = parted(wrong)
        if field in ID_FIELDS and "regex" in expected:
            raise BadId(f"{field} is no id: 1 to 128 of A-Z a-z 0-9 . _ : @ -") from None
        raise BadFrame(f"bad body: {wrong}; send for example {kind.example}") from None
