"""Load the files of the hub that messages name, because endpoints cannot read them."""

import base64
from collections.abc import Mapping
from typing import Any

import attrs

from hub.adapters.chat_options import Options
from hub.adapters.chat_parts import FILE_TEXT, convert_part
from hub.errors import AgentError
from hub.hosting.contract import Run
from hub.limits import MiB
from hub.messages.parts import find_file_id

MAX_FILES_BYTES = 32 * MiB  # of all files in one request
Part = Mapping[str, Any]


async def load_files(run: Run, options: Options) -> Run:
    """Return the run with the bytes of the files that its parts and its newest earlier messages name.

    The earlier messages are as many as the option `history` says. Newer files come first, up to MAX_FILES_BYTES. Text
    files become text, together up to `window_bytes`. A file that cannot be sent becomes a line with its name.
    """
    loader = FileLoader(run, options.window_bytes)
    parts = [await loader.load(part) for part in run.parts]
    history = list(run.history)
    for index in range(len(history) - 1, max(len(history) - options.history, 0) - 1, -1):
        if any(find_file_id(part) is not None for part in history[index].parts):
            loaded_parts = [await loader.load(part) for part in history[index].parts]
            history[index] = attrs.evolve(history[index], parts=loaded_parts)
    return attrs.evolve(run, parts=parts, history=history)


@attrs.define
class FileLoader:
    """Loads files for one request."""

    run: Run
    free_text_bytes: int
    free_bytes: int = MAX_FILES_BYTES

    async def load(self, part: Part) -> Part:
        """Return a part with the bytes of the hub's file that it names, and any other part as it is."""
        if find_file_id(part) is None:
            return part
        metadata, media_type = part.get("metadata"), part["source"].get("mimeType") or "application/octet-stream"
        name = str(metadata.get("name") or "file") if isinstance(metadata, Mapping) else "file"
        note = {"type": FILE_TEXT, "text": f"\n[File {name}, {media_type}]\n"}
        if self.free_bytes <= 0 or convert_part(_fill(part, name, media_type, "")) is None:
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
        return _fill(part, name, media_type, base64.b64encode(data).decode())


def _fill(part: Part, name: str, media_type: str, value: str) -> Part:
    """Return a part with the bytes *value*, in base64."""
    return {**part, "filename": name, "source": {"type": "data", "mimeType": media_type, "value": value}}
