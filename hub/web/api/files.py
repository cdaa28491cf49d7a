"""Files over HTTP: large values come in as they are, and are handed out whole or in part.

aiohttp's FileResponse would send what lies on disk with an ETag made of its time; here the ETag is the digest, which
If-None-Match and If-Range must be compared with.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import quote

from aiohttp import web
from msgspec import Meta, Struct

from hub.commands import table as commands
from hub.commands.files import ReadableFile
from hub.errors import (
    BadFrame,
    BadType,
    Draining,
    EmptyFile,
    FileTooLarge,
    QuotaExceeded,
    SessionDeleted,
    StorageUnavailable,
    UnknownFile,
    UnknownSession,
    UploadTooSlow,
)
from hub.limits import KiB, size_text
from hub.messages import Id, StoredFile
from hub.storage.records import FileRecord
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, Content, ErrorBody, Route, limits_of, read_query, record_response

FILE_READ_BYTES = 64 * KiB  # read and sent at a time
INLINE_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp"}  # what a browser may show instead of saving it
RANGE_HEADER = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
BYTES_CONTENT = Content("*/*", {"type": "string", "format": "binary"})


class UploadQuery(Struct, frozen=True):
    """Whose file it is, and what it is called."""

    sessionId: Id
    name: Annotated[str, Meta(description="as it is called when it is saved; `file` by default")] | None = None


async def post_file(request: web.Request) -> web.Response:
    """Keep the body as a file of a session, which is made where there is none."""
    hub, limits, want = request.app[HUB_KEY], limits_of(request), read_query(request, UploadQuery)
    if (request.content_length or 0) > limits.file_bytes:
        raise FileTooLarge(f"a file has at most {size_text(limits.file_bytes)}")
    if request.headers.get("Content-Encoding", "identity") != "identity":  # aiohttp takes a cut-off one for whole
        raise BadType("the file has a Content-Encoding: send its bytes as they are, without that header")
    kind = request.headers.get("Content-Type", "")
    name = "file"[: limits.file_name_length] if want.name is None else want.name
    async with await commands.upload(hub, principal_of(request), want.sessionId, name, kind) as incoming:
        end = asyncio.get_running_loop().time() + limits.upload_seconds
        while piece := await _next(request, end):
            await incoming.write(piece)
        kept = await incoming.keep()
    return record_response(kept, status=201)


async def _next(request: web.Request, end: float) -> bytes:
    """Return the next piece of the body; nothing at its end."""
    try:
        async with asyncio.timeout_at(end):
            return await request.content.readany()
    except TimeoutError:
        raise UploadTooSlow("the file did not come in time: send it over a faster line, or a smaller one") from None
    except (ConnectionError, web.RequestPayloadError):
        raise BadFrame("the body broke off before its end") from None


async def get_file(request: web.Request) -> web.StreamResponse:
    """Hand out a file, or the one range of it that is asked for."""
    stored = await commands.open_file(request.app[HUB_KEY], principal_of(request), request.match_info["id"])
    file = stored.file
    headers = _headers(file)
    if any(tag.value in (file.digest, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    part = _range(request, file)
    start, end = part or (0, file.size)
    if start >= end:
        response = record_response(
            ErrorBody(error=f"the file has {file.size} bytes: none of these", code="bad_range"), status=416
        )
        response.headers["Content-Range"] = f"bytes */{file.size}"
        return response
    return await _send_file(request, stored, start, end, part is not None)


async def _send_file(
    request: web.Request, stored: ReadableFile, start: int, end: int, part: bool
) -> web.StreamResponse:
    file = stored.file
    response = web.StreamResponse(headers=_headers(file))
    response.content_length = end - start
    if part:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    async with stored.opened() as read:
        await response.prepare(request)
        if request.method != "HEAD":
            await _send(request, response, read, start, end)
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, read: Callable[[int, int], Awaitable[bytes]], at: int, end: int
) -> None:
    try:
        while at < end:
            piece = await read(at, min(FILE_READ_BYTES, end - at))
            async with asyncio.timeout(limits_of(request).stuck_seconds):
                await response.write(piece)
            at += len(piece)
    except (OSError, EOFError):
        # The client has gone, or takes nothing, or the disk fails: a broken connection says that this was not all.
        if request.transport is not None:
            request.transport.abort()


def _range(request: web.Request, file: FileRecord) -> tuple[int, int] | None:
    """Return where to begin and to end; None where no range, several, or one of another content is asked for."""
    found = RANGE_HEADER.fullmatch(request.headers.get("Range", ""))
    if found is None or request.headers.get("If-Range", f'"{file.digest}"') != f'"{file.digest}"':
        return None
    first, last = found.groups()
    if first:
        return int(first), min(int(last) + 1, file.size) if last else file.size
    return max(file.size - int(last or 0), 0), file.size


def _headers(file: FileRecord) -> dict[str, str]:
    """Return what keeps a file of strangers a file: no browser may guess its type, show it, or run what it holds."""
    kind = "inline" if file.type.lower() in INLINE_TYPES else "attachment"
    plain = re.sub(r'[^ -~]|["\\%]', "_", file.name)  # for who does not read the other: RFC 6266, appendix D
    return {
        "Content-Type": file.type,
        "Content-Disposition": f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(file.name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
        "ETag": f'"{file.digest}"',
        "Accept-Ranges": "bytes",
    }


ROUTES = (
    Route(
        method="POST",
        path="/files",
        handler=post_file,
        tag="Files",
        responses={201: StoredFile},
        body=BYTES_CONTENT,
        query=UploadQuery,
        raises=(
            *(BadType, EmptyFile, FileTooLarge, QuotaExceeded, UploadTooSlow),
            *(UnknownSession, SessionDeleted, Draining, StorageUnavailable),
        ),
    ),
    Route(
        method="GET",
        path="/files/{id}",
        handler=get_file,
        tag="Files",
        responses={200: BYTES_CONTENT, 206: BYTES_CONTENT, 304: None, 416: ErrorBody},
        headers={"Range": Annotated[str, Meta(description="the bytes that are wanted, as `bytes=0-99`")]},
        raises=(UnknownFile, StorageUnavailable),
    ),
)
