"""The JSON of an export: plain values, with the names of fields as in the HTTP API."""

from typing import Any

import msgspec

from hub.access.records import Credential
from hub.commands.exporting import MessagePage, PrincipalData
from hub.ids import Key, id_of

INTERNAL_FIELDS = {"digest", "is_allowed"}  # the digest of a secret; and what the reason of an audit entry says, too


def present_credential(credential: Credential) -> dict[str, Any]:
    """Return the fields of a credential. The digest of the secret stays in the log."""
    return {name: value for name, value in msgspec.to_builtins(credential).items() if name != "digest"}


def present_principal_data(data: PrincipalData) -> dict[str, Any]:
    """Return the parts of an export, without its messages."""
    return {
        "principal": _to_fields(data.principal),
        "credentials": [_to_fields(credential) for credential in data.credentials],
        "sessions": [
            _name_session(row.key)
            | {"role": data.roles.get(row.key), "title": row.title, "metadata": row.metadata}
            | {"messages": row.messages, "ts": row.ts}
            for row in data.sessions
        ],
        "files": [
            {"fileId": file.fileId}
            | _name_session(file.key)
            | {"name": file.name, "type": file.type, "size": file.size, "sha256": file.digest, "created": file.created}
            for file in data.files
        ],
        "usage": [_to_fields(record) for record in data.usage],
        "audit": [_to_fields(entry) for entry in data.audit],
    }


def present_message_page(page: MessagePage) -> dict[str, Any]:
    """Return a page of messages."""
    messages = [
        _name_session(row.key)
        | _drop_nulls(msgspec.to_builtins(row.message) | {"request": msgspec.to_builtins(row.request)})
        for row in page.messages
    ]
    return {"messages": messages, "after": page.after}


def _name_session(key: Key) -> dict[str, str]:
    return {"sessionId": id_of(key)}


def _drop_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _to_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a record with names such as `inputTokens`, without those that are internal."""
    fields = msgspec.to_builtins(record)
    return {_to_camel_case(name): value for name, value in fields.items() if name not in INTERNAL_FIELDS}


def _to_camel_case(name: str) -> str:
    first, *words = name.split("_")
    return first + "".join(word.capitalize() for word in words)
