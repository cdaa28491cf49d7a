"""The changes of a commit besides insertions: deletions, erasures, new labels, new floors, and access records."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from hub.ids import Key
from hub.storage.sqlite import damage
from hub.storage.sqlite.access_rows import (
    AccessChange,
    CredentialUse,
    PrincipalErasure,
    apply_access_change,
    delete_old_audit,
)
from hub.storage.sqlite.erasing import MessageErasure, erase_messages
from hub.storage.sqlite.event_rows import to_json
from hub.storage.sqlite.expiring import FileDrop, MessageDrop, drop_files, drop_messages
from hub.storage.sqlite.migrations import MIGRATIONS
from hub.storage.sqlite.sql import FILE_JSON, query_json


class NewFloor(NamedTuple):
    """Request to delete the events of a session up to *floor*, if the session has this epoch."""

    key: Key
    epoch: str
    floor: int


@attrs.frozen
class EventDrop:
    """Request to delete events. The result maps each session that still exists, with the same epoch, to its floor."""

    floors: Sequence[NewFloor]


class FileCopies(NamedTuple):
    """The copies of files that a session gets at the time *now* (ms): see Append.file_copies."""

    key: Key
    ids: Mapping[str, str]
    now: int


@attrs.frozen
class LabelChange:
    """Request to replace the title, the metadata or both. *values* has the new values by column; metadata is JSON."""

    key: Key
    values: dict[str, str | None]


@attrs.frozen
class SessionDeletion:
    """Request to delete a session, in a commit that only deletes sessions.

    The result is a list: the fields of the FileRecord of each file of the session.
    """

    key: Key


@attrs.frozen
class FileDeletion:
    """Request to delete a file. The result is as of SessionDeletion, with the one file or none."""

    file_id: str


@attrs.frozen
class Probe:
    """Request for a commit that changes nothing, to learn whether the file can be written."""


@attrs.frozen
class WalTruncation:
    """Request to remove old text from the write-ahead log."""


Change = (
    EventDrop
    | MessageDrop
    | FileDrop
    | FileDeletion
    | LabelChange
    | SessionDeletion
    | MessageErasure
    | AccessChange
    | PrincipalErasure
    | CredentialUse
    | Probe
    | WalTruncation
)


@attrs.define(kw_only=True)
class Changes:
    """All changes of one commit. apply() fills in the results that add() returned.

    *new_epochs* has the epochs of the sessions in which *erasures* erase messages.
    """

    ended_runs: list[tuple[Key, str]] = attrs.Factory(list)
    removed_messages: list[tuple[Key, str]] = attrs.Factory(list)
    file_copies: list[FileCopies] = attrs.Factory(list)
    drops: list[tuple[EventDrop, dict[Key, int]]] = attrs.Factory(list)  # with the new floors
    message_drops: list[tuple[MessageDrop, dict[str, Any]]] = attrs.Factory(list)  # with the results
    file_drops: list[tuple[FileDrop | FileDeletion, list[Any]]] = attrs.Factory(
        list
    )  # with the fields of the FileRecords
    label_changes: list[LabelChange] = attrs.Factory(list)
    deleted_sessions: dict[Key, list[Any]] = attrs.Factory(dict)  # with the fields of the FileRecords
    erasures: list[tuple[MessageErasure, dict[str, Any]]] = attrs.Factory(list)  # with the results
    new_epochs: dict[Key, str] = attrs.Factory(dict)
    access_changes: list[AccessChange | PrincipalErasure | CredentialUse] = attrs.Factory(list)
    max_audit_entries: int | None = None
    has_probe: bool = False
    has_truncation: bool = False  # no change of the commit: the writer makes it afterwards

    def __bool__(self) -> bool:
        return bool(
            self.ended_runs
            or self.removed_messages
            or self.file_copies
            or self.drops
            or self.message_drops
            or self.file_drops
            or self.label_changes
            or self.deleted_sessions
            or self.erasures
            or self.access_changes
            or self.max_audit_entries is not None
            or self.has_probe
        )

    def add(self, request: Change, new_secret: Callable[[int], str]) -> Any:
        """Plan a request, and return its result."""
        result: Any = None
        if isinstance(request, EventDrop):
            result = {}
            if request.floors:
                self.drops.append((request, result))
        elif isinstance(request, MessageDrop):
            result = {}
            self.message_drops.append((request, result))
        elif isinstance(request, (FileDrop, FileDeletion)):
            result = []
            self.file_drops.append((request, result))
        elif isinstance(request, LabelChange):
            self.label_changes.append(request)
        elif isinstance(request, SessionDeletion):
            result = self.deleted_sessions.setdefault(request.key, [])
        elif isinstance(request, MessageErasure):
            result = {}
            self.erasures.append((request, result))
            self.new_epochs[request.key] = new_secret(8)
        elif isinstance(request, Probe):
            self.has_probe = True
        elif isinstance(request, WalTruncation):
            self.has_truncation = True
        else:
            self.access_changes.append(request)
        return result

    def apply(self, db: sqlite3.Connection) -> None:
        """Write the changes. Call this in a transaction, after the insertions.

        Raises LookupError if a file to copy does not exist.
        """
        if self.ended_runs:
            _delete_by_id(db, "runs", self.ended_runs)
        if self.removed_messages:
            _delete_by_id(db, "messages", self.removed_messages)
        for copies in self.file_copies:
            _copy_files(db, copies)
        for change in self.label_changes:
            _change_label(db, change)
        for drop, floors in self.drops:
            floors.update(_drop_events(db, drop))
        for message_drop, message_result in self.message_drops:
            message_result |= drop_messages(db, message_drop)
        for file_drop, files in self.file_drops:
            files += drop_files(db, file_drop) if isinstance(file_drop, FileDrop) else _delete_file(db, file_drop)
        for access_change in self.access_changes:
            apply_access_change(db, access_change)
        if self.max_audit_entries is not None:
            delete_old_audit(db, self.max_audit_entries)
        for erasure, result in self.erasures:
            result |= erase_messages(db, erasure, self.new_epochs[erasure.key])
        if self.has_probe:
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")  # writes a page without changing it
        if self.deleted_sessions:
            _delete_sessions(db, self.deleted_sessions)


def _delete_by_id(db: sqlite3.Connection, table: str, ids: list[tuple[Key, str]]) -> None:
    """Delete the rows of *table* that have the pairs of session and id in *ids*."""
    db.execute(
        f"""
        DELETE FROM {table} WHERE (session, id) IN
        (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))""",
        (to_json(ids),),
    )


COPY_FILES = """
    INSERT INTO files (id, session, name, type, size, digest, created)
    SELECT ids.value, :session, f.name, f.type, f.size, f.digest, :now
    FROM json_each(:ids) ids JOIN files f ON f.id = ids.key"""


def _copy_files(db: sqlite3.Connection, copies: FileCopies) -> None:
    """Copy the records of files. Raises LookupError if one does not exist: then its blob may be gone, too."""
    values = {"session": copies.key, "ids": to_json(copies.ids), "now": copies.now}
    if db.execute(COPY_FILES, values).rowcount < len(copies.ids):
        raise LookupError("a file that is copied was deleted at the same time: try again")


def _change_label(db: sqlite3.Connection, change: LabelChange) -> None:
    statements = {
        "title": "UPDATE sessions SET title = ? WHERE id = ?",
        "metadata": "UPDATE sessions SET metadata = ? WHERE id = ?",
    }
    for column, value in change.values.items():
        db.execute(statements[column], (value, change.key))


# The new floor is at most the smallest `after` of the session's unfinished runs.
SET_FLOORS = """
    UPDATE sessions SET floor = drops.upto FROM (
        SELECT json_extract(value, '$[0]') AS session, json_extract(value, '$[1]') AS epoch,
        min(json_extract(value, '$[2]'), coalesce(
            (SELECT min(after) FROM runs WHERE session = json_extract(value, '$[0]')), json_extract(value, '$[2]'))
        ) AS upto FROM json_each(?)) AS drops
    WHERE id = drops.session AND sessions.epoch = drops.epoch AND floor < drops.upto"""
# A strip is deleted when the floor reaches its last event. Until then, readers skip its events up to the floor.
DELETE_STRIPS = """
    DELETE FROM strips WHERE n IN (
        SELECT t.n FROM json_each(?) JOIN sessions s ON s.id = json_extract(value, '$[0]')
        JOIN strips t ON t.session = s.n AND t.upto <= s.floor)"""
READ_FLOORS = """
    SELECT json_group_array(json_array(sessions.id, floor)) FROM json_each(?)
    JOIN sessions ON sessions.id = json_extract(value, '$[0]') AND epoch = json_extract(value, '$[1]')"""


def _drop_events(db: sqlite3.Connection, drop: EventDrop) -> Any:
    """Raise the floors, and delete strips. Return (session, floor) of each session that exists with the same epoch."""
    values = (to_json(drop.floors),)
    db.execute(SET_FLOORS, values)
    db.execute(DELETE_STRIPS, values)
    _delete_empty_sessions(db)
    return query_json(db, READ_FLOORS, values)


def _delete_file(db: sqlite3.Connection, deletion: FileDeletion) -> Any:
    """Delete a file, and return a list with the fields of its FileRecord."""
    values = (deletion.file_id,)
    files = query_json(db, f"SELECT json_group_array({FILE_JSON}) FROM files WHERE id = ?", values)
    db.execute("DELETE FROM files WHERE id = ?", values)
    return files


# purge() deletes the strips of a deleted session later, in commits of limited size. Until then the session's row stays,
# so that no new session gets its number. The row gets an id that no session can have: a space and the number. Run this
# statement before messages are deleted: the triggers on `messages` then find no session to update.
FREE_IDS = """
    UPDATE sessions SET id = ' ' || n, title = NULL, metadata = NULL, messages = 0, message_bytes = 0, ts = 0
    WHERE id IN (SELECT value FROM json_each(?))"""


def _delete_sessions(db: sqlite3.Connection, sessions: dict[Key, list[Any]]) -> None:
    """Delete sessions, and add the fields of the FileRecords of each session to its list."""
    damage.move_all_to_strips(db)  # rows of `loose` have session ids: a new session with the id would get them
    for key, files in sessions.items():
        files += query_json(db, f"SELECT json_group_array({FILE_JSON}) FROM files WHERE session = ?", (key,))
    values = (to_json([*sessions]),)
    ids = "(SELECT value FROM json_each(?))"
    db.execute(f"DELETE FROM damaged WHERE session IN (SELECT n FROM sessions WHERE id IN {ids})", values)
    db.execute(FREE_IDS, values)
    for table in ("messages", "runs", "chats", "files", "grants", "invites"):
        db.execute(f"DELETE FROM {table} WHERE session IN {ids}", values)
    _delete_empty_sessions(db)


def _delete_empty_sessions(db: sqlite3.Connection) -> None:
    """Delete the rows of deleted sessions that have no strips left."""
    db.execute("DELETE FROM sessions WHERE id < '!' AND NOT EXISTS (SELECT 1 FROM strips WHERE session = sessions.n)")
