"""The parts of a message besides its text, named after AG-UI's content parts.

Unknown fields are dropped. The hub stores known fields unchanged, and never fetches a URL of a part.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

MimeType = Annotated[str, msgspec.Meta(pattern=r"^[\w.+-]+/[\w.+-]+(;.*)?$(?!\n)", max_length=255)]
ShortText = Annotated[str, msgspec.Meta(max_length=255)]


class DataSource(msgspec.Struct, tag="data", frozen=True, omit_defaults=True):
    """The bytes themselves, in base64."""

    value: bytes
    mimeType: MimeType


class UrlSource(msgspec.Struct, tag="url", frozen=True, omit_defaults=True):
    """The URL of the bytes."""

    value: str
    mimeType: MimeType | None = None


class FileSource(msgspec.Struct, tag="file", frozen=True, omit_defaults=True):
    """The id that a provider gave to an uploaded file. The provider `hubbub` is the hub, any other a model provider."""

    value: str
    provider: ShortText | None = None
    mimeType: MimeType | None = None


PartSource = DataSource | UrlSource | FileSource


class TextPart(msgspec.Struct, tag="text", frozen=True, omit_defaults=True):
    """A piece of text."""

    text: str
    id: ShortText | None = None
    metadata: Any = None


class ImagePart(msgspec.Struct, tag="image", frozen=True, omit_defaults=True):
    """An image."""

    source: PartSource
    id: ShortText | None = None
    metadata: Any = None


class AudioPart(msgspec.Struct, tag="audio", frozen=True, omit_defaults=True):
    """A sound recording."""

    source: PartSource
    id: ShortText | None = None
    metadata: Any = None


class VideoPart(msgspec.Struct, tag="video", frozen=True, omit_defaults=True):
    """A video."""

    source: PartSource
    id: ShortText | None = None
    metadata: Any = None


class DocumentPart(msgspec.Struct, tag="document", frozen=True, omit_defaults=True):
    """A document, such as a PDF."""

    source: PartSource
    id: ShortText | None = None
    metadata: Any = None


class BinaryPart(msgspec.Struct, tag="binary", frozen=True, omit_defaults=True):
    """A file in the form of AG-UI before 1.0: an id, a URL, or the bytes in base64."""

    mimeType: MimeType
    id: ShortText | None = None
    url: str | None = None
    data: bytes | None = None
    filename: ShortText | None = None

    def __post_init__(self) -> None:
        if not (self.id or self.url or self.data):
            raise ValueError("a binary part needs an id, a url or data")


class ToolCallPart(msgspec.Struct, tag="tool_call", frozen=True):
    """A tool call in an agent's message; only the hub makes this part. `arguments` is the JSON that the agent wrote."""

    toolCallId: str
    toolCallName: str
    arguments: str


class ToolResultPart(msgspec.Struct, tag="tool_result", frozen=True, omit_defaults=True):
    """The result of a tool call. A client sends it for a call of its own tools."""

    toolCallId: str
    content: str
    isError: bool | None = None


AnswerPart = TextPart | ImagePart | AudioPart | VideoPart | DocumentPart | BinaryPart
AnswerParts = tuple[AnswerPart, ...]  # what an agent may put into a message
Parts = tuple[AnswerPart | ToolResultPart, ...]  # what a client may send
SOURCE_PARTS = (ImagePart, AudioPart, VideoPart, DocumentPart)
TOOL_PARTS = ("tool_call", "tool_result")  # the types of the parts about tools
# The type of the part that names a file, by the first half of the file's media type; for all others it is `document`.
FILE_PART_TYPES = {"image": "image", "audio": "audio", "video": "video"}
HUB_PROVIDER = "hubbub"  # the provider of a FileSource whose `value` is the id of a file that the hub stores
# Parts as JSON objects, for events, the history and agents.
JsonParts = tuple[dict[str, Any], ...]


def has_results(parts: Parts | None) -> bool:
    """Return whether a message has results of tool calls."""
    return any(isinstance(part, ToolResultPart) for part in parts or ())


def parts_to_json(parts: Parts | AnswerParts | None) -> JsonParts | None:
    """Return parts as JSON objects, or None if there are none."""
    return tuple(msgspec.to_builtins(parts)) if parts else None


def make_file_part(file_id: str, media_type: str, name: str) -> dict[str, Any]:
    """Return the part of a message that names a file of its session; client_js/file_part.js makes the same."""
    part_type = FILE_PART_TYPES.get(media_type.partition("/")[0].lower(), "document")
    source = {"type": "file", "value": file_id, "provider": HUB_PROVIDER, "mimeType": media_type}
    return {"type": part_type, "source": source, "metadata": {"name": name}}


def find_file_id(part: Mapping[str, Any]) -> str | None:
    """Return the id of the hub's file that a part names, as make_file_part() makes it, or None."""
    source = part.get("source")
    if isinstance(source, Mapping) and source.get("type") == "file" and source.get("provider") == HUB_PROVIDER:
        return str(source["value"])
    return None


def find_hub_source(part: AnswerPart | ToolResultPart) -> FileSource | None:
    """Return the source of a part that names a file of the hub, or None."""
    source = part.source if isinstance(part, SOURCE_PARTS) else None
    return source if isinstance(source, FileSource) and source.provider == HUB_PROVIDER else None


def fill_file_part(part: AnswerPart | ToolResultPart, media_type: str, name: str) -> AnswerPart | ToolResultPart:
    """Return a part that names a file of the hub, with the media type and the name of the file where it has none."""
    source = find_hub_source(part)
    if source is None or not isinstance(part, SOURCE_PARTS):
        return part
    metadata = {"name": name, **(part.metadata or {})} if isinstance(part.metadata, dict | None) else part.metadata
    return replace(part, source=replace(source, mimeType=source.mimeType or media_type), metadata=metadata)
