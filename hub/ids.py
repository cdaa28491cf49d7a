"""The ids that clients use, and the keys of sessions inside the hub."""

import re
from typing import NewType

from hub.text import cut

ID_PATTERN = r"[A-Za-z0-9._:@-]{1,128}"
ID_RULE = "use 1 to 128 of the characters A-Z a-z 0-9 . _ : @ -"
DEFAULT_TENANT = "default"

# The name of a session inside the hub, unique across tenants. Key is a type of its own, so that mypy refuses an id in
# place of a key.
Key = NewType("Key", str)

_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    """Return whether *text* is a valid id."""
    return _ID.fullmatch(text) is not None


def describe_bad_id(name: str, value: str | None = None) -> str:
    """Return the error text for an invalid id in the field or parameter *name*. The text quotes *value*, if given."""
    quotation = "" if value is None else f" {quote(value)}"
    return f"{name}{quotation} is not a valid id: {ID_RULE}"


def quote(text: str) -> str:
    """Quote a client's text for an error, cut to at most 41 characters."""
    return repr(cut(text, 41, "…"))


def session_key(tenant: str, session_id: str) -> Key:
    """Return the key of a session: its id in the default tenant, TENANT/ID in other tenants.

    Ids have no slash, so the two forms are distinct.
    """
    return Key(session_id if tenant == DEFAULT_TENANT else f"{tenant}/{session_id}")


def id_of(key: Key) -> str:
    """Return the session id in a key. Clients see only this part of the key."""
    return key.rpartition("/")[2]


def tenant_of(key: Key) -> str:
    """Return the tenant in a key."""
    return key.rpartition("/")[0] or DEFAULT_TENANT


def key_prefix(tenant: str) -> str:
    """Return the prefix of the keys of a tenant's sessions: TENANT/, or "" for the default tenant."""
    return "" if tenant == DEFAULT_TENANT else f"{tenant}/"
