"""The rows of the access tables: the conversion from and to records, and the writes of one commit."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from hub.access.records import AuditEntry, Credential, Grant, PrincipalRecord, Quota, SessionInvite, UsageRecord
from hub.ids import Key
from hub.storage.access_store import AccessRecord
from hub.storage.sqlite.event_rows import to_json


@attrs.frozen
class AccessTable:
    """A table with a row for each record of one class, and the columns of its primary key or unique id."""

    name: str
    id_columns: tuple[str, ...] = ("id",)


ACCESS_TABLES: dict[type[AccessRecord], AccessTable] = {
    PrincipalRecord: AccessTable("principals"),
    Credential: AccessTable("credentials"),
    Grant: AccessTable("grants", ("session", "principal")),
    SessionInvite: AccessTable("invites"),
    Quota: AccessTable("quotas", ("subject",)),
}


@attrs.frozen
class AccessChange:
    """Request to save or to remove records."""

    records: Sequence[AccessRecord]
    is_removal: bool = False

    @property
    def keys(self) -> set[Key]:
        """The sessions of the grants and invites."""
        return {record.key for record in self.records if isinstance(record, (Grant, SessionInvite))}


@attrs.frozen
class PrincipalErasure:
    """Request to delete a principal with its other records, and its name in the audit."""

    principal: str


@attrs.frozen
class CredentialUse:
    """Request to set the times (ms) of the last use of credentials, by id."""

    times: Mapping[str, int]


@attrs.frozen
class UsageAddition:
    """Request to add amounts to the usage."""

    records: Sequence[UsageRecord]


@attrs.frozen
class AuditAddition:
    """Request to add entries, then to delete the oldest ones until *max_entries* are left."""

    entries: Sequence[AuditEntry]
    max_entries: int


def column_names(kind: type[attrs.AttrsInstance]) -> list[str]:
    """Return the columns for the fields of a record, in the order of the fields."""
    return ["session" if field.name == "key" else field.name for field in attrs.fields(kind)]


def to_columns(record: attrs.AttrsInstance) -> list[Any]:
    """Return the values of the columns of a record. Lists become JSON."""
    values = [getattr(record, field.name) for field in attrs.fields(type(record))]
    return [to_json(value) if isinstance(value, tuple) else value for value in values]


def make_record_json(kind: type[attrs.AttrsInstance]) -> str:
    """Return the SQL of a JSON object with the fields of a record."""
    values = {field.name: column for field, column in zip(attrs.fields(kind), column_names(kind))}
    if kind is Credential:
        values["agents"] = "json(agents)"
    pairs = [f"'{name}', {value}" for name, value in values.items()]
    return f"json_object({', '.join(pairs)})"


def apply_access_change(db: sqlite3.Connection, change: AccessChange | PrincipalErasure | CredentialUse) -> None:
    """Write a change, its records in their order."""
    if isinstance(change, CredentialUse):
        statement = "UPDATE credentials SET used = value FROM json_each(?) WHERE credentials.id = key"
        db.execute(statement, (to_json(change.times),))
        return
    if isinstance(change, PrincipalErasure):
        db.execute("DELETE FROM principals WHERE id = ?", (change.principal,))
        _remove_records_of(db, change.principal)
        db.execute("UPDATE audit SET name = '' WHERE principal = ? AND name <> ''", (change.principal,))
        return
    for record in change.records:
        if change.is_removal:
            _remove(db, record)
        else:
            _save(db, record)


def _save(db: sqlite3.Connection, record: AccessRecord) -> None:
    table, columns = ACCESS_TABLES[type(record)], column_names(type(record))
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns)
    # An upsert, not a replacement: a record keeps its row number, by which lists are sorted.
    db.execute(
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT ({', '.join(table.id_columns)}) DO UPDATE SET {updates}",
        to_columns(record),
    )


def _remove(db: sqlite3.Connection, record: AccessRecord) -> None:
    table, columns = ACCESS_TABLES[type(record)], column_names(type(record))
    values = dict(zip(columns, to_columns(record)))
    condition = " AND ".join(f"{column} = ?" for column in table.id_columns)
    db.execute(f"DELETE FROM {table.name} WHERE {condition}", [values[column] for column in table.id_columns])
    if isinstance(record, PrincipalRecord):
        _remove_records_of(db, record.id)


def _remove_records_of(db: sqlite3.Connection, principal_id: str) -> None:
    for name, column in (("credentials", "principal"), ("grants", "principal"), ("quotas", "subject")):
        db.execute(f"DELETE FROM {name} WHERE {column} = ?", (principal_id,))


def delete_old_audit(db: sqlite3.Connection, max_entries: int) -> None:
    """Delete the oldest entries. Their numbers have no gaps, because only the oldest are deleted."""
    db.execute("DELETE FROM audit WHERE n <= (SELECT max(n) FROM audit) - ?", (max_entries,))
