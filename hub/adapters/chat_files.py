"""Load the files of the hub that messages name, because endpoints cannot read them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import attrs

from hub.adapters.chat_options import Options
from hub.adapters.chat_parts import FILE_TEXT, convert_part
from hub.errors import AgentError
from hub.hosting.contract import Run
from hub.limits import MiB
from hub.messages.parts import find_file_id

MAX_FILES_BYTES = 32 * MiB  # of all files in one request
MAX_SENT_BYTES = 4 * MAX_FILES_BYTES  # of all files that are in memory for the requests of one agent
Part = Mapping[str, Any]


class LoadedRun(NamedTuple):
    """A run whose parts have the files of the hub. A place in a part is the key of the file's bytes in *files*."""

    run: Run
    files: dict[str, bytes]


@attrs.define(eq=False)
class FileLoader:
    """Loads files for the requests of one agent. If others have too many bytes in memory, a request waits for them."""

    _free_bytes: int = MAX_SENT_BYTES
    _lock: asyncio.Lock = attrs.Factory(asyncio.Lock)
    _release_event: asyncio.Event = attrs.Factory(asyncio.Event)

    @asynccontextmanager
    async def load(self, run: Run, options: Options) -> AsyncIterator[LoadedRun]:
        """Yield the run with its files: see load_files(). At the end of the block, the files are dropped."""
        if not _has_files(run, options):
            yield LoadedRun(run, {})
            return
        async with self._lock:  # only one request at a time has bytes that do not count yet
            result = await load_files(run, options)
            size = sum(len(data) for data in result.files.values())
            while self._free_bytes < size:
                self._release_event.clear()
                await self._release_event.wait()
            self._free_bytes -= size
        try:
            yield result
        finally:
            result.files.clear()
            self._free_bytes += size
            self._release_event.set()


def _has_files(run: Run, options: Options) -> bool:
    parts = [part for index in _list_newest(run, options) for part in run.history[index].parts]
    return any(find_file_id(part) is not None for part in [*run.parts, *parts])


def _list_newest(run: Run, options: Options) -> range:
    """Return the places in the history of the messages whose files are sent, the newest first."""
    return range(len(run.history) - 1, max(len(run.history) - options.history, 0) - 1, -1)


async def load_files(run: Run, options: Options) -> LoadedRun:
    """Return the run with the files that its parts and its newest earlier messages name.

    The earlier messages are as many as the option `history` says. Newer files come first, up to MAX_FILES_BYTES. Text
    files become text, together up to `window_bytes`. A file that cannot be sent becomes a line with its name.
    """
    reader = _FileReader(run, options.window_bytes)
    parts = [await reader.read(part) for part in run.parts]
    history = list(run.history)
    for index in _list_newest(run, options):
        if history[index].parts:
            history[index] = attrs.evolve(
                history[index], parts=[await reader.read(part) for part in history[index].parts]
            )
    return LoadedRun(attrs.evolve(run, parts=parts, history=history), reader.files)


@attrs.define
class _FileReader:
    """Reads the files for one request."""

    run: Run
    free_text_bytes: int
    free_bytes: int = MAX_FILES_BYTES
    files: dict[str, bytes] = attrs.Factory(dict)

    async def read(self, part: Part) -> Part:
        """Return a part with a place for the hub's file that it names, and any other part as it is."""
        if find_file_id(part) is None:
            return part
        metadata, media_type = part.get("metadata"), part["source"].get("mimeType") or "application/octet-stream"
        name = str(metadata.get("name") or "file") if isinstance(metadata, Mapping) else "file"
        note = {"type": FILE_TEXT, "text": f"\n[File {name}, {media_type}]\n"}
        place = secrets.token_hex(16)  # no text of a message can contain it
        filled_part = {**part, "filename": name, "source": {"type": "data", "mimeType": media_type, "value": place}}
        if self.free_bytes <= 0 or convert_part(filled_part) is None:
            return note
        try:
            data = await self.run.file(part)
        except AgentError:  # the file was deleted
            return note
        self.free_bytes -= len(data)
        if self.free_bytes < 0:
            return note
        if media_type.startswith("text/"):  # few endpoints take documents other than PDF
            text = data[: self.free_text_bytes].decode(errors="ignore")
            self.free_text_bytes -= len(text.encode())
            return note | {"text": f"{note['text']}{text}\n"}
        self.files[place] = data
        return filled_part
