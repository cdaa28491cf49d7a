"""HTTP routes of files: list, download, download of one byte range, and deletion. The upload is in uploads.py.

aiohttp's FileResponse derives its ETag from the time of the file. Here the ETag is the SHA-256 of the content, and
If-None-Match and If-Range are compared with it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import quote

from aiohttp import web
from msgspec import Meta

from hub.commands import table as commands
from hub.commands.files import ReadableFile
from hub.errors import (
    BadId,
    BadType,
    Draining,
    EmptyFile,
    FileTooLarge,
    PrincipalQuotaExceeded,
    QuotaExceeded,
    SessionDeleted,
    StorageUnavailable,
    UnknownFile,
    UnknownSession,
    UploadTooSlow,
)
from hub.limits import KiB
from hub.messages import StoredFile
from hub.storage.records import FileRecord
from hub.web.api.session_shapes import PageBody, PageQuery, page_response, read_page_request, read_session_id
from hub.web.api.uploads import BYTES_CONTENT, UploadQuery, post_file
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, ErrorBody, Route, json_response, limits_of, read_query

FILE_READ_BYTES = 64 * KiB  # per read from the disk, and per write to the socket
INLINE_TYPES = {
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
}  # a browser may show these, and saves files of all other types
RANGE_HEADER = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


async def get_files(request: web.Request) -> web.Response:
    """List the files of a session, in the order of their uploads."""
    session_id, page_request = read_session_id(request), read_page_request(request, read_query(request, PageQuery))
    return page_response(
        await commands.list_files(request.app[HUB_KEY], principal_of(request), session_id, page_request)
    )


async def delete_one_file(request: web.Request) -> web.Response:
    """Delete a file. Messages that name it stay."""
    await commands.delete_file(request.app[HUB_KEY], principal_of(request), request.match_info["id"])
    return web.Response(status=204)


async def get_file(request: web.Request) -> web.StreamResponse:
    """Download a file, or one byte range of it."""
    readable = await commands.open_file(request.app[HUB_KEY], principal_of(request), request.match_info["id"])
    file = readable.file
    headers = _build_headers(file)
    if any(tag.value in (file.digest, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    byte_range = _parse_range(request, file)
    start, end = byte_range or (0, file.size)
    if start >= end:
        response = json_response(
            ErrorBody(error=f"the range is outside the file: the file has {file.size} bytes", code="bad_range"),
            status=416,
        )
        response.headers["Content-Range"] = f"bytes */{file.size}"
        return response
    return await _send_file(request, readable, start, end, is_partial=byte_range is not None)


async def _send_file(
    request: web.Request, readable: ReadableFile, start: int, end: int, is_partial: bool
) -> web.StreamResponse:
    file = readable.file
    response = web.StreamResponse(headers=_build_headers(file))
    response.content_length = end - start
    if is_partial:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    async with readable.open() as read_range:
        await response.prepare(request)
        if request.method != "HEAD":
            await _write_range(request, response, read_range, start, end)
    return response


async def _write_range(
    request: web.Request,
    response: web.StreamResponse,
    read_range: Callable[[int, int], Awaitable[bytes]],
    offset: int,
    end: int,
) -> None:
    try:
        while offset < end:
            chunk = await read_range(offset, min(FILE_READ_BYTES, end - offset))
            async with asyncio.timeout(limits_of(request).stuck_seconds):
                await response.write(chunk)
            offset += len(chunk)
    except (OSError, EOFError):
        # The client has disconnected or does not read, or the disk fails. Aborting the connection shows the client that
        # the file is incomplete.
        if request.transport is not None:
            request.transport.abort()


def _parse_range(request: web.Request, file: FileRecord) -> tuple[int, int] | None:
    """Return the start and the end (exclusive) of the requested byte range, or None for the complete file.

    The complete file is sent if the Range is missing or does not match RANGE_HEADER (several ranges do not), or if
    If-Range differs from the ETag. If the range has no byte of the file, the start is not below the end.
    """
    match = RANGE_HEADER.fullmatch(request.headers.get("Range", ""))
    if match is None or request.headers.get("If-Range", f'"{file.digest}"') != f'"{file.digest}"':
        return None
    first, last = match.groups()
    if first:
        return int(first), min(int(last) + 1, file.size) if last else file.size
    return max(file.size - int(last or 0), 0), file.size


def _build_headers(file: FileRecord) -> dict[str, str]:
    """Return the headers of a file. A browser must not guess the type of untrusted content, or run it."""
    disposition = "inline" if file.type.lower() in INLINE_TYPES else "attachment"
    # For clients that do not know filename*: RFC 6266, appendix D.
    ascii_name = re.sub(r'[^ -~]|["\\%]', "_", file.name)
    encoded_name = quote(file.name, safe="")
    return {
        "Content-Type": file.type,
        "Content-Disposition": f"{disposition}; filename=\"{ascii_name}\"; filename*=UTF-8''{encoded_name}",
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
            *(BadType, EmptyFile, FileTooLarge, QuotaExceeded, PrincipalQuotaExceeded, UploadTooSlow),
            *(UnknownSession, SessionDeleted, Draining, StorageUnavailable),
        ),
    ),
    Route(
        method="GET",
        path="/files/{id}",
        handler=get_file,
        tag="Files",
        responses={200: BYTES_CONTENT, 206: BYTES_CONTENT, 304: None, 416: ErrorBody},
        headers={"Range": Annotated[str, Meta(description="The requested byte range, such as `bytes=0-99`.")]},
        raises=(UnknownFile, StorageUnavailable),
    ),
    Route(
        method="DELETE",
        path="/files/{id}",
        handler=delete_one_file,
        tag="Files",
        responses={204: None},
        raises=(UnknownFile, Draining, StorageUnavailable),
        operation="delete_file",
    ),
    Route(
        method="GET",
        path="/sessions/{id}/files",
        handler=get_files,
        tag="Files",
        responses={200: PageBody[StoredFile]},
        query=PageQuery,
        raises=(BadId, UnknownSession, StorageUnavailable),
    ),
)
