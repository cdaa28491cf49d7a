"""The HTTP route that uploads a file: as the body itself, or in a form."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from mimetypes import MimeTypes
from typing import Annotated

import attrs
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from hub.commands import table as commands
from hub.errors import BadFrame, BadId, BadQuery, BadType, FileTooLarge, Unauthenticated, UploadTooSlow
from hub.ids import describe_bad_id
from hub.limits import format_size
from hub.messages import Id
from hub.web.doorkeeper import principal_of
from hub.web.forms import FormPart, FormReader, is_form
from hub.web.routes import HUB_KEY, Content, json_response, limits_of, read_query

# The documents name this type. The hub takes and returns files of every type. The documents do not name forms as a
# second type of the body: code that orval generates for two types does not pass tsc.
BYTES_CONTENT = Content("application/octet-stream", {"type": "string", "format": "binary"})
TYPES_BY_ENDING = MimeTypes(filenames=())  # without the lists of this machine
ANY_TYPE = "application/octet-stream"
CURL_TYPE = "application/x-www-form-urlencoded"  # curl --data-binary sends it for every file
ReadFunction = Callable[[], Awaitable[bytes]]


class UploadQuery(Struct, frozen=True):
    """The session and the name of an uploaded file. The documents have this form of the query."""

    sessionId: Annotated[Id, Meta(description="With a form, it may be a field before the file instead.")]
    name: Annotated[str, Meta(description="The file's name. Default: that in the form, or `file`.")] | None = None


class UploadFormQuery(Struct, frozen=True):
    """The same with a form, which may have the session itself."""

    sessionId: Id | None = None
    name: str | None = None


@attrs.frozen(kw_only=True)
class IncomingFile:
    """A file in the body of a request. read() returns its next bytes, or b"" at its end; call check_end() after it."""

    session_id: str | None
    name: str
    media_type: str
    read: ReadFunction
    check_end: Callable[[], Awaitable[None]]


async def post_file(request: web.Request) -> web.Response:
    """Upload a file to a session.

    The body is the content of the file, and `Content-Type` is its media type. The body may also be a form with one
    file, as browsers and `curl -F` send it. A file without a media type gets that of its name's ending. If the session
    does not exist, it is created.
    """
    hub, query = request.app[HUB_KEY], read_query(request, UploadFormQuery)
    _check_headers(request)
    file = await _find_file(request, query)
    if file.session_id is None:
        raise BadQuery(
            "sessionId is missing: add ?sessionId=ID to the address, or a form field sessionId before the file"
        )
    async with await commands.upload(hub, principal_of(request), file.session_id, file.name, file.media_type) as upload:
        while chunk := await file.read():
            await upload.write(chunk)
        await file.check_end()
        stored_file = await upload.save()
    return json_response(stored_file, status=201)


def _check_headers(request: web.Request) -> None:
    limits = limits_of(request)
    max_bytes = limits.file_bytes + (limits.body_bytes if _has_form(request) else 0)
    if (request.content_length or 0) > max_bytes:
        raise FileTooLarge(f"the file is too large: send at most {format_size(limits.file_bytes)}")
    # aiohttp does not notice if an encoded body is incomplete.
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise BadType("the file has a Content-Encoding: send its bytes as they are, without that header")


def _has_form(request: web.Request) -> bool:
    return is_form(request.headers.get("Content-Type", ""))


async def _find_file(request: web.Request, query: UploadFormQuery) -> IncomingFile:
    limits, media_type = limits_of(request), request.headers.get("Content-Type", "")
    read = partial(_read_chunk, request, asyncio.get_running_loop().time() + limits.upload_seconds)
    # A default name, too, must not be longer than the limit.
    name = "file"[: limits.file_name_length] if query.name is None else query.name
    if not _has_form(request):
        media_type = _guess_type(name) if media_type in ("", CURL_TYPE) else media_type
        return IncomingFile(
            session_id=query.sessionId, name=name, media_type=media_type, read=read, check_end=_expect_nothing
        )
    if not principal_of(request).is_signed_in:
        raise Unauthenticated()  # before the hub reads the fields
    reader = FormReader(media_type=media_type, read_body=read, max_other_bytes=limits.body_bytes)
    session_id, part = await _read_fields(reader)
    if query.name is None:
        name = _make_name(part) or name
    return IncomingFile(
        session_id=query.sessionId or session_id,
        name=name,
        media_type=part.media_type or _guess_type(name),
        read=reader.read,
        check_end=partial(_expect_no_file, reader),
    )


async def _read_fields(reader: FormReader) -> tuple[str | None, FormPart]:
    """Read the fields before the file. Return the sessionId among them, and the head of the file. Drop the others."""
    session_id = None
    while (part := await reader.next_part()) is not None:
        if part.file_name is not None:
            return session_id, part
        if part.name == "sessionId":
            session_id = await reader.read_text()
            try:
                msgspec.convert(session_id, Id)
            except msgspec.ValidationError:
                raise BadId(describe_bad_id("the field sessionId of the form")) from None
    raise BadFrame("the form has no file: send one as a field with a file name, as curl -F file=@notes.txt does")


def _guess_type(name: str) -> str:
    return TYPES_BY_ENDING.guess_type(name)[0] or ANY_TYPE


def _make_name(part: FormPart) -> str:
    """Return the name of the file, without the folders that some clients send (RFC 7578, 4.2)."""
    return re.split(r"[/\\]", part.file_name or "")[-1]


async def _expect_nothing() -> None:
    """Accept the end of a body."""


async def _expect_no_file(reader: FormReader) -> None:
    """Read to the end of the form. Raises BadFrame if a second file follows, or the end is missing."""
    while (part := await reader.next_part()) is not None:
        if part.file_name is not None:
            raise BadFrame("the form has more than one file: send each file in a request of its own")


async def _read_chunk(request: web.Request, deadline: float) -> bytes:
    """Return the next bytes of the body, or b"" at its end.

    Raises UploadTooSlow at *deadline* (the loop's time), and BadFrame if the body is incomplete.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await request.content.readany()
    except TimeoutError:
        raise UploadTooSlow("the upload took too long: send a smaller file, or use a faster connection") from None
    except (ConnectionError, web.RequestPayloadError):
        raise BadFrame("the body is incomplete: the connection was lost; send the file again") from None
