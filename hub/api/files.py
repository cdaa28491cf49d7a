"""Files over HTTP: large values come in as they are, and are handed out whole or in part.

aiohttp's FileResponse would send what lies on disk with an ETag made of its time; here the ETag is the digest, which
If-None-Match and If-Range must be compared with.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from aiohttp import web

from hub.clients import NODE
from hub.config import KiB
from hub.errors import BadFrame, BadId, FileTooLarge, TooSlow
from hub.logs import File
from hub.protocols.reading import ID

PIECE = 64 * KiB  # read and sent at a time
SHOWN = {"image/png", "image/jpeg", "image/gif", "image/webp"}  # what a browser may show instead of saving it
RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def posted(request: web.Request) -> web.Response:
    """Keep the body as a file of a session, which is made where there is none."""
    node = request.app[NODE]
    limits = node.settings.limits
    session_id = request.query.get("sessionId", "")
    if not ID.fullmatch(session_id):
        raise BadId("?sessionId= is needed, the session's id: 1 to 128 of A-Z a-z 0-9 . _ : @ -")
    node.refuse_if_draining()
    if (request.content_length or 0) > limits.file_bytes:
        raise FileTooLarge(f"a file has at most {limits.file_bytes} bytes")
    kind = request.headers.get("Content-Type", "")
    async with node.files.upload(session_id, request.query.get("name", "file"), kind) as upload:
        end = asyncio.get_running_loop().time() + limits.upload_seconds
        while piece := await _next(request, end):
            await upload.write(piece)
        await upload.end()
        async with node.use(session_id):
            file = await upload.keep()
    said = {"fileId": file.fileId, "sessionId": session_id, "name": file.name, "type": file.type, "size": file.size}
    return web.json_response(said, status=201)


async def _next(request: web.Request, end: float) -> bytes:
    """Return the next piece of the body; nothing at its end."""
    try:
        async with asyncio.timeout_at(end):
            return await request.content.readany()
    except TimeoutError:
        raise TooSlow("the file did not come in time: send it over a faster line, or a smaller one") from None
    except (ConnectionError, web.RequestPayloadError):
        raise BadFrame("the body broke off before its end") from None


async def fetched(request: web.Request) -> web.StreamResponse:
    """Hand out a file, or the one range of it that is asked for."""
    files = request.app[NODE].files
    file = await files.file(request.match_info["id"])
    headers = _headers(file)
    if any(tag.value in (file.digest, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    part = _range(request, file)
    start, end = part or (0, file.size)
    if start >= end:
        said = {"error": f"the file has {file.size} bytes: none of these", "code": "bad_range"}
        return web.json_response(said, status=416, headers={"Content-Range": f"bytes */{file.size}"})
    response = web.StreamResponse(headers=headers)
    response.content_length = end - start
    if part is not None:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    async with files.opened(file) as read:
        await response.prepare(request)
        if request.method != "HEAD":
            await _send(request, response, read, start, end)
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, read: Callable[[int, int], Awaitable[bytes]], at: int, end: int
) -> None:
    try:
        while at < end:
            piece = await read(at, min(PIECE, end - at))
            async with asyncio.timeout(request.app[NODE].settings.limits.stuck_seconds):
                await response.write(piece)
            at += len(piece)
    except (OSError, EOFError):
        # The client has gone, or takes nothing, or the disk fails: a broken connection says that this was not all.
        if request.transport is not None:
            request.transport.abort()


def _range(request: web.Request, file: File) -> tuple[int, int] | None:
    """Return where to begin and to end; None where no range, several, or one of another content is asked for."""
    found = RANGE.fullmatch(request.headers.get("Range", ""))
    if found is None or request.headers.get("If-Range", f'"{file.digest}"') != f'"{file.digest}"':
        return None
    first, last = found.groups()
    if first:
        return int(first), min(int(last) + 1, file.size) if last else file.size
    return max(file.size - int(last or 0), 0), file.size


def _headers(file: File) -> dict[str, str]:
    """Return what keeps a file of strangers a file: no browser may guess its type, show it, or run what it holds."""
    kind = "inline" if file.type.lower() in SHOWN else "attachment"
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


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/files", posted),
    ("GET", "/files/{id}", fetched),
    ("HEAD", "/files/{id}", fetched),
)
