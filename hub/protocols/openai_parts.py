"""The parts of a message's content in OpenAI's form: texts, images, sound and files."""

import re
from typing import Annotated, Any

import msgspec

from hub.ids import quote
from hub.messages.parts import JsonParts, Parts
from hub.protocols.openai_errors import bad_request_error
from hub.protocols.reading import split_error

PART_TYPES = ("text", "image_url", "input_audio", "file", "refusal")
DATA_URL = re.compile(r"data:([^;,]+)(?:;[^;,]*)*;base64,(.*)", re.DOTALL)
AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}


class ImageAddress(msgspec.Struct):
    """The address of an image: a URL, or its bytes as a URL of the scheme `data`."""

    url: str
    detail: str | None = None


class AudioData(msgspec.Struct):
    """A sound recording in base64."""

    data: str
    format: str


class FileData(msgspec.Struct):
    """A file: its bytes as a URL of the scheme `data`, or the id that the model's provider gave to it."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class ContentPart(msgspec.Struct):
    """One part of a message's content."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(PART_TYPES)})]
    text: str | None = None
    refusal: str | None = None
    image_url: ImageAddress | str | None = None  # some clients send the text alone
    input_audio: AudioData | None = None
    file: FileData | None = None


def read_content(content: str | list[ContentPart] | None, param: str) -> tuple[str, JsonParts]:
    """Return the text of a content, and its parts in the form of the hub: none if all of it is text.

    Raises OpenAIError, with the name *param*, for a part that is malformed or not supported.
    """
    if not isinstance(content, list):
        return content or "", ()
    text = "".join(part.text or part.refusal or "" for part in content)
    if all(part.type in ("text", "refusal") for part in content):
        return text, ()
    try:
        parts = msgspec.convert([_convert_content(part, param) for part in content], Parts)
    except msgspec.ValidationError as error:
        problem, field = split_error(error, Parts)
        raise bad_request_error(f"a part of the content is malformed: {problem} - at `{field}`", param) from None
    return text, tuple(msgspec.to_builtins(parts))


def _convert_content(part: ContentPart, param: str) -> dict[str, Any]:
    if part.type in ("text", "refusal"):
        return {"type": "text", "text": part.text or part.refusal or ""}
    if part.type == "image_url" and part.image_url is not None:
        image = ImageAddress(part.image_url) if isinstance(part.image_url, str) else part.image_url
        detail = {"metadata": {"detail": image.detail}} if image.detail else {}
        return {"type": "image", "source": _read_address(image.url)} | detail
    if part.type == "input_audio" and part.input_audio is not None:
        audio = part.input_audio
        source = {"type": "data", "value": audio.data, "mimeType": AUDIO_TYPES.get(audio.format, "audio/unknown")}
        return {"type": "audio", "source": source}
    if part.type == "file" and part.file is not None:
        return _convert_file(part.file, param)
    text = f"the hub does not support content of the type {quote(part.type)} in this form: send text or an image"
    raise bad_request_error(text, param)


def _convert_file(file: FileData, param: str) -> dict[str, Any]:
    if file.file_id is not None:
        return {"type": "document", "source": {"type": "file", "value": file.file_id}}
    source = _read_address(file.file_data or "")
    if source["type"] != "data":
        raise bad_request_error("the file needs file_data, such as data:application/pdf;base64,..., or file_id", param)
    name = {"filename": file.filename} if file.filename else {}
    return {"type": "binary", "mimeType": source["mimeType"], "data": source["value"]} | name


def _read_address(url: str) -> dict[str, Any]:
    """Return the source at a URL; the bytes of a `data:` URL are in the source."""
    match = DATA_URL.fullmatch(url)
    return {"type": "url", "value": url} if match is None else {"type": "data", "mimeType": match[1], "value": match[2]}
