"""Make the id of a file, and check its name and its media type."""

import re

from hub.errors import BadQuery, BadType
from hub.seams import Seams

FILE_ID = re.compile("f_[0-9a-f]{32}")

# TYPE/SUBTYPE follows RFC 6838, and the parameters follow RFC 9110, section 8.3.1.
_TOKEN, _NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
MEDIA_TYPE = re.compile(rf'{_NAME}/{_NAME}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*')
MAX_MEDIA_TYPE_LENGTH = 255
# Control characters, slashes, Unicode's line ends, surrogates, and the characters that change the direction of text. A
# change of direction can make a name look as if it had another extension.
FORBIDDEN_IN_NAME = re.compile("[\0-\x1f\x7f-\x9f/\\\\\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def make_file_id(seams: Seams) -> str:
    """Return a new id, which cannot be guessed and matches FILE_ID."""
    return f"f_{seams.new_secret(16)}"


def check_file_name(name: str, max_length: int) -> None:
    """Raise BadQuery if a file must not have this name."""
    if not name or len(name) > max_length or FORBIDDEN_IN_NAME.search(name):
        raise BadQuery(f"the name of a file has 1 to {max_length} characters, and no slash or control character")


def check_media_type(type: str) -> None:
    """Raise BadType if a file must not have this type."""
    if (
        len(type) > MAX_MEDIA_TYPE_LENGTH
        or not MEDIA_TYPE.fullmatch(type)
        or type.lower().startswith("multipart/form-data")
    ):
        raise BadType("the type of a file is a media type, such as text/plain or image/png, and its bytes are the body")
