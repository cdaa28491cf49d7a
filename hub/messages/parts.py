"""What a message holds beside its text, by the names of AG-UI's content parts, and its metadata.

Only what is checked passes: a field that is not known is left out. The hub keeps parts as they are; it never fetches
what they point at.
"""

from typing import Annotated, Any

import msgspec

MimeType = Annotated[str, msgspec.Meta(pattern=r"^[\w.+-]+/[\w.+-]+(;.*)?$(?!\n)", max_length=255)]
Short = Annotated[str, msgspec.Meta(max_length=255)]


class Data(msgspec.Struct, tag="data", frozen=True, omit_defaults=True):
    """Bytes, as base64."""

    value: bytes
    mimeType: MimeType


class Url(msgspec.Struct, tag="url", frozen=True, omit_defaults=True):
    """Where the bytes are."""

    value: str
    mimeType: MimeType | None = None


class File(msgspec.Struct, tag="file", frozen=True, omit_defaults=True):
    """What a provider calls the bytes that it has already."""

    value: str
    provider: Short | None = None
    mimeType: MimeType | None = None


Source = Data | Url | File


class Text(msgspec.Struct, tag="text", frozen=True, omit_defaults=True):
    text: str
    id: Short | None = None
    metadata: Any = None


class Image(msgspec.Struct, tag="image", frozen=True, omit_defaults=True):
    source: Source
    id: Short | None = None
    metadata: Any = None


class Audio(msgspec.Struct, tag="audio", frozen=True, omit_defaults=True):
    source: Source
    id: Short | None = None
    metadata: Any = None


class Video(msgspec.Struct, tag="video", frozen=True, omit_defaults=True):
    source: Source
    id: Short | None = None
    metadata: Any = None


class Document(msgspec.Struct, tag="document", frozen=True, omit_defaults=True):
    source: Source
    id: Short | None = None
    metadata: Any = None


class Binary(msgspec.Struct, tag="binary", frozen=True, omit_defaults=True):
    """What AG-UI had before 1.0: bytes by one of an id, an address, or base64."""

    mimeType: MimeType
    id: Short | None = None
    url: str | None = None
    data: bytes | None = None
    filename: Short | None = None

    def __post_init__(self) -> None:
        if not (self.id or self.url or self.data):
            raise ValueError("binary needs one of id, url and data")


Parts = tuple[Text | Image | Audio | Video | Document | Binary, ...]
# As an event, the history and an agent have them: JSON objects.
Plain = tuple[dict[str, Any], ...]


def plain(parts: Parts | None) -> Plain | None:
    """Return checked parts as JSON objects; none is None."""
    return tuple(msgspec.to_builtins(parts)) if parts else None
