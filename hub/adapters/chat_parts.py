"""Convert the parts of messages to the content of OpenAI's chat completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from hub.messages.parts import HUB_PROVIDER

ChatContent = str | list[dict[str, Any]]

IMAGE_DETAILS = ("low", "high", "auto")
FILE_TEXT = "file_text"  # the type of a part with the name or the text of a file; the text of the message lacks both
AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def make_content(text: str, parts: Sequence[Mapping[str, Any]]) -> ChatContent:
    """Return the content of a message: its text, followed by the parts that an endpoint may understand.

    If the parts contain the text, they are sent in their own order, without the text.
    """
    contents = [content for part in parts if (content := convert_part(part)) is not None]
    texts = [content["text"] for content in contents if content["type"] == "text"]
    has_text = not text or "".join(part["text"] for part in parts if part["type"] == "text") == text
    if len(texts) == len(contents):
        return "".join(texts) if texts and has_text else "\n\n".join([text, *texts])
    return contents if has_text else [_text(text), *contents]


def join_contents(contents: Sequence[ChatContent]) -> ChatContent:
    """Return one content for several messages of one role."""
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(map(str, contents))
    return [part for content in contents for part in ([_text(content)] if isinstance(content, str) else content)]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def convert_part(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a part in OpenAI's form, or None if that has no such part."""
    kind, source, mime_type = _find_kind(part), part.get("source", part), part.get("mimeType", "")
    source = {"type": "url", "value": part["url"]} if part.get("url") else source
    source = {"type": "data", "value": part["data"], "mimeType": mime_type} if part.get("data") else source
    if kind in ("text", FILE_TEXT):
        return _text(part["text"])
    if kind == "image" and (url := _make_url(source)):
        detail = metadata.get("detail") if isinstance(metadata := part.get("metadata"), Mapping) else None
        return {
            "type": "image_url",
            "image_url": {"url": url} | ({"detail": detail} if detail in IMAGE_DETAILS else {}),
        }
    if kind == "audio" and source.get("type") == "data" and source["mimeType"] in AUDIO_FORMATS:
        audio = {"data": source["value"], "format": AUDIO_FORMATS[source["mimeType"]]}
        return {"type": "input_audio", "input_audio": audio}
    if kind == "document" and source.get("type") == "file" and source.get("provider") != HUB_PROVIDER:
        return {"type": "file", "file": {"file_id": source["value"]}}
    if kind == "document" and source.get("type") == "data":
        return {"type": "file", "file": {"file_data": _make_url(source), "filename": part.get("filename", "document")}}
    return None


def _find_kind(part: Mapping[str, Any]) -> str:
    """Return the type of a part. That of a `binary` part depends on its media type."""
    if part["type"] != "binary":
        return str(part["type"])
    family = part["mimeType"].partition("/")[0]
    return family if family in ("image", "audio", "video") else "document"


def _make_url(source: Mapping[str, Any]) -> str | None:
    """Return the URL of a source; data becomes a URL of the scheme `data`. A file of a provider has no URL."""
    if source.get("type") == "data":
        return f"data:{source['mimeType']};base64,{source['value']}"
    is_public = source.get("type") == "url" and source["value"].startswith(("https://", "http://", "data:"))
    return source["value"] if is_public else None
