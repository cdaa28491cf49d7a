"""Upload, list, read and delete the files of a session, over HTTP."""

import asyncio
import itertools
import mimetypes
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import attrs
import msgspec

from hub.client.failures import ConnectionCut, Failure
from hub.client.http import LONG_TIMEOUT, HttpApi, RequestBody
from hub.client.link import Link, retry_delay
from hub.limits import KiB
from hub.messages import StoredFile
from hub.messages.parts import make_file_part

READ_BYTES = 256 * KiB
DEFAULT_TYPE = "application/octet-stream"
FileContent = bytes | os.PathLike[str]  # the bytes of a file, or the path of one


@attrs.frozen(repr=False)
class FileApi:
    """The files of all sessions."""

    http: HttpApi
    link: Link

    async def upload(self, session_id: str, data: FileContent, name: str | None, media_type: str | None) -> StoredFile:
        """Upload a file. Raises Refusal, ConnectionCut, and OSError if a path cannot be read."""
        if isinstance(data, bytes):
            return await self._post(session_id, name or "file", media_type, lambda: data)
        path = Path(data)
        file = await asyncio.to_thread(path.open, "rb")
        try:
            return await self._post(session_id, name or path.name, media_type, lambda: _read_file(file))
        finally:
            await asyncio.to_thread(file.close)

    async def _post(
        self, session_id: str, name: str, media_type: str | None, make_body: Callable[[], RequestBody]
    ) -> StoredFile:
        answer = await self.http.request_json(
            "POST",
            "/files",
            params={"sessionId": session_id, "name": name},
            headers={"Content-Type": media_type or mimetypes.guess_type(name)[0] or DEFAULT_TYPE},
            make_body=make_body,
            timeout=LONG_TIMEOUT,
        )
        return _to_stored_file(answer)

    async def make_part(self, session_id: str, file: FileContent | StoredFile) -> dict[str, Any]:
        """Upload a file of a message unless it is stored already, and return the part that names it.

        Tries again after a lost connection, as a chat does. Raises Refusal, Closed, and Failure for an unreadable path.
        """
        if not isinstance(file, StoredFile):
            file = await self._upload_with_retries(session_id, file)
        return make_file_part(file.fileId, file.type, file.name)

    async def _upload_with_retries(self, session_id: str, data: FileContent) -> StoredFile:
        for attempt in itertools.count():
            await self.link.wait_until_live()
            try:
                return await self.upload(session_id, data, None, None)
            except ConnectionCut:
                await asyncio.sleep(retry_delay(attempt))
            except OSError as error:
                raise Failure("unreadable_file", f"a file of the message cannot be read: {error}") from error
        raise AssertionError("itertools.count() does not end")

    async def list(self, session_id: str) -> tuple[StoredFile, ...]:
        """Return all files of a session, in the order of their uploads. Raises Refusal, ConnectionCut."""
        files: list[StoredFile] = []
        page: dict[str, Any] = {"more": True, "next": None}
        while page.get("more"):
            params = {"after": page["next"]} if page.get("next") else None
            page = await self.http.request_json("GET", f"/sessions/{quote(session_id)}/files", params=params)
            files += map(_to_stored_file, page.get("data", ()))
        return tuple(files)

    async def read(self, file_id: str) -> bytes:
        """Return the bytes of a file. Raises Refusal, ConnectionCut."""
        return await self.http.request("GET", f"/files/{quote(file_id, safe='')}", timeout=LONG_TIMEOUT)

    async def delete(self, file_id: str) -> None:
        """Delete a file. Raises Refusal, ConnectionCut."""
        await self.http.request("DELETE", f"/files/{quote(file_id, safe='')}")


async def _read_file(file: IO[bytes]) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, 0)  # the second request begins again
    while chunk := await asyncio.to_thread(file.read, READ_BYTES):
        yield chunk


def _to_stored_file(fields: Any) -> StoredFile:
    """Return the file of a response. Raises ConnectionCut if the response is not of a hub."""
    try:
        return msgspec.convert(fields, StoredFile)
    except msgspec.ValidationError as error:
        text = f"the answer about a file is not from a hub ({error}): check the proxy in front of the hub"
        raise ConnectionCut("connection_cut", text) from error
