"""Ids as clients write them, and the keys by which the hub names sessions."""

import re
from typing import NewType

from hub.text import cut

ID_PATTERN = r"[A-Za-z0-9._:@-]{1,128}"
ID_RULE = "1 to 128 of A-Z a-z 0-9 . _ : @ -"
DEFAULT_TENANT = "default"

# A session's name below the use cases, unique in the hub. A type of its own, so that no id is taken for one.
Key = NewType("Key", str)

_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    """Return whether clients may use this text as an id."""
    return _ID.fullmatch(text) is not None


def describe_bad_id(name: str, value: str | None = None) -> str:
    """Return the sentence that refuses an id; *name* says where it came from."""
    shown = "" if value is None else f" {quote(value)}"
    return f"{name}{shown} is no id: {ID_RULE}"


def quote(text: str) -> str:
    """Return a client's text as an error may quote it."""
    return repr(cut(text, 41, "…"))


def session_key(tenant: str, session_id: str) -> Key:
    """Return the key of a session, which is unique in the hub: its id, or TENANT/ID outside of the default tenant.

    No id has a slash, so the two forms cannot be mistaken for each other.
    """
    return Key(session_id if tenant == DEFAULT_TENANT else f"{tenant}/{session_id}")


def id_of(key: Key) -> str:
    """Return the id of a session, which is unique in its tenant, and all that clients see of its key."""
    return key.rpartition("/")[2]


def tenant_of(key: Key) -> str:
    """Return the tenant that a session belongs to."""
    return key.rpartition("/")[0] or DEFAULT_TENANT


def key_prefix(tenant: str) -> str:
    """Return what the keys of a tenant's sessions begin with; "" stands for keys without a slash."""
    return "" if tenant == DEFAULT_TENANT else f"{tenant}/"
