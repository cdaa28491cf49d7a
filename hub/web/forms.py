"""Read forms with files (multipart/form-data, RFC 7578) part by part, with bounded memory.

aiohttp's MultipartReader is not used: it drops names with `;` or a backslash, and reads a part in pieces of 8 KiB.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from urllib.parse import unquote

import attrs

from hub.errors import BadFrame, TooLarge
from hub.limits import KiB, format_size

MAX_HEAD_BYTES = 8 * KiB  # of the headers of one part
BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
PARAMETER = re.compile(r';\s*([A-Za-z*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^";\s]*))')
# A name in which each byte that is not ASCII is escaped, and there is at least one.
ESCAPED_NAME = re.compile("(?=.*%[89A-Fa-f])(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")


def is_form(media_type: str) -> bool:
    """Return whether a body of this type is a form with files."""
    return media_type.partition(";")[0].strip().lower() == "multipart/form-data"


@attrs.frozen
class FormPart:
    """The head of a part. The part is a file if *file_name* is not None. *file_name* and *media_type* may be empty."""

    name: str
    file_name: str | None
    media_type: str


@attrs.define(eq=False, kw_only=True)
class FormReader:
    """The parts of a form, in their order. Call next_part(), and then read() until the end of the part.

    *read_body* returns the next bytes of the body, or b"" at its end. *max_other_bytes* is the limit of all bytes
    that are not those of files. Each method raises BadFrame if the form is malformed or incomplete, and TooLarge at the
    limit.
    """

    media_type: str
    read_body: Callable[[], Awaitable[bytes]]
    max_other_bytes: int
    _delimiter: bytes = b""
    _buffer: bytes = b"\r\n"  # a form begins with a delimiter without its line end
    _other_bytes: int = 0
    _is_in_part: bool = True  # what comes before the first delimiter is read as a part
    _is_file: bool = False

    def __attrs_post_init__(self) -> None:
        match = BOUNDARY.search(self.media_type)
        if match is None:
            raise BadFrame("the Content-Type of the form has no boundary: let your HTTP library write this header")
        self._delimiter = b"\r\n--" + (match[1] or match[2]).encode()

    async def next_part(self) -> FormPart | None:
        """Drop the rest of the current part. Return the head of the next part, or None after the last one."""
        while await self.read():
            pass
        while len(self._buffer) < 2:
            await self._read_more()
        if self._buffer.startswith(b"--"):
            await self._drop_rest()
            return None
        if (await self._read_until(b"\r\n")).strip(b" \t"):
            raise BadFrame("the form is malformed: a boundary does not end its line")
        self._buffer = b"\r\n" + self._buffer  # a part may have no headers
        part = _parse_head(await self._read_until(b"\r\n\r\n"))
        self._is_in_part, self._is_file = True, part.file_name is not None
        return part

    async def read(self) -> bytes:
        """Return the next bytes of the current part, or b"" at its end."""
        while self._is_in_part:
            end = self._buffer.find(self._delimiter)
            if end >= 0:
                content, self._buffer = self._buffer[:end], self._buffer[end + len(self._delimiter) :]
                self._is_in_part = False
            else:
                size = max(0, len(self._buffer) - len(self._delimiter) + 1)  # the rest may begin a delimiter
                content, self._buffer = self._buffer[:size], self._buffer[size:]
            if not self._is_file:
                self._count(len(content))
            if content:
                return content
            if self._is_in_part:
                await self._read_more()
        return b""

    async def read_text(self) -> str:
        """Return the text of the current part, a field."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return _decode(b"".join(pieces))

    async def _read_until(self, end: bytes) -> bytes:
        """Return the bytes before *end*, and drop both."""
        while (size := self._buffer.find(end)) < 0 and len(self._buffer) <= MAX_HEAD_BYTES:
            await self._read_more()
        if not 0 <= size <= MAX_HEAD_BYTES:
            raise BadFrame(f"the form is malformed: the head of a part has more than {format_size(MAX_HEAD_BYTES)}")
        data, self._buffer = self._buffer[:size], self._buffer[size + len(end) :]
        self._count(len(data))
        return data

    async def _drop_rest(self) -> None:
        """Read the body to its end. What follows the last boundary has no meaning."""
        while self._buffer:
            self._count(len(self._buffer))
            self._buffer = await self.read_body()

    async def _read_more(self) -> None:
        data = await self.read_body()
        if not data:
            raise BadFrame("the form is incomplete: its last boundary is missing; send it again")
        self._buffer += data

    def _count(self, size: int) -> None:
        self._other_bytes += size
        if self._other_bytes > self.max_other_bytes:
            raise TooLarge(f"the fields of the form have more than {format_size(self.max_other_bytes)}: send fewer")


def _parse_head(head: bytes) -> FormPart:
    """Return the head of a part. Raises BadFrame if the part is no field of a form."""
    headers = dict(_parse_headers(_decode(head)))
    kind, separator, parameters = headers.get("content-disposition", "").partition(";")
    matches = PARAMETER.findall(separator + parameters)
    values = {name.lower(): _unescape(text) or token for name, text, token in matches}
    if kind.strip().lower() != "form-data" or "name" not in values:
        raise BadFrame('the form is malformed: a part needs Content-Disposition: form-data; name="..."')
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise BadFrame("a part of the form has a Content-Transfer-Encoding: send its bytes as they are")
    charset, _, rest = values.get("filename*", "").partition("'")
    file_name = values.get("filename")
    if charset.lower() == "utf-8":
        file_name = unquote(rest.partition("'")[2], errors="replace")
    return FormPart(values["name"], file_name, headers.get("content-type", ""))


def _parse_headers(head: str) -> Iterator[tuple[str, str]]:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        yield name.strip().lower(), value.strip()


def _unescape(text: str) -> str:
    r"""Return the text of a quoted parameter. Browsers escape with %22, and some programs with \".

    RFC 7578, 2 and aiohttp's client escape each byte of a name that is not ASCII.
    """
    text = re.sub(r'\\(["\\])', r"\1", text)
    if ESCAPED_NAME.fullmatch(text):
        with suppress(UnicodeDecodeError):
            return unquote(text, errors="strict")
    return re.sub("%22|%0D|%0A", lambda match: unquote(match[0]), text)


def _decode(data: bytes) -> str:
    """Return bytes as text: UTF-8, or else Latin-1, which pages of another encoding may send."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
