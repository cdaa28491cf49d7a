"""The body of a request with files. Their base64 is made while it is sent: it never stands in memory as a whole."""

import base64
import re
from collections.abc import AsyncIterator, Mapping

import attrs

PIECE_BYTES = 192 * 1024  # of a file in one piece of the body; a multiple of 3, so that base64 has no padding inside


@attrs.frozen(eq=False)
class FilledJson:
    """JSON with files in base64. Each iteration gives the whole body, so that it can be sent again.

    A section is JSON, or the key of a file in *files*, which only the owner of the files may change.
    """

    sections: tuple[bytes | str, ...]
    files: Mapping[str, bytes]

    def __len__(self) -> int:
        return sum(
            len(section) if isinstance(section, bytes) else -(-len(self.files[section]) // 3) * 4
            for section in self.sections
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        files = dict(self.files)  # the response may come, and the owner drop the files, before the body is sent
        for section in self.sections:
            if isinstance(section, bytes):
                yield section
            else:
                data = memoryview(files[section])
                for start in range(0, len(data), PIECE_BYTES):
                    yield base64.b64encode(data[start : start + PIECE_BYTES])


def make_body(json: bytes, files: Mapping[str, bytes]) -> bytes | FilledJson:
    """Return *json* with each file at its place: where its key is."""
    if not files:
        return json
    sections = re.split(b"(%b)" % "|".join(files).encode(), json)  # the odd ones are keys
    return FilledJson(
        tuple(section.decode() if index % 2 else section for index, section in enumerate(sections)), files
    )
