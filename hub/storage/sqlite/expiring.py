"""Delete old messages and files: see SessionStore.expire_messages() and FileStore.expire_files().

The rows of `messages` are numbered in the order of their commits, so the oldest ones have the smallest numbers. A
session with an unfinished run loses nothing, because the run may need its messages and files.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs

from hub.ids import Key
from hub.limits import MiB
from hub.storage.sqlite.event_rows import to_json
from hub.storage.sqlite.sql import FILE_JSON, query_json

# One commit deletes at most this many rows, and ends with the message that reaches DROPPED_BYTES.
DROPPED_ROWS, DROPPED_BYTES = 500, 4 * MiB


class Cutoff(NamedTuple):
    """The messages with numbers up to *n* have to go, if they are not younger than *ts* (ms).

    A new message may get the number of a deleted one, but not an old time.
    """

    n: int
    ts: int


@attrs.frozen
class MessageDrop:
    """Request to delete the messages up to *cutoff* that come after the number *after*, as many as one commit may.

    The result is empty if there are none. Else `last` is the number of the last one that was looked at, and `keys` are
    the sessions that lost messages.
    """

    cutoff: Cutoff
    after: int


@attrs.frozen(kw_only=True)
class FileDrop:
    """Request to delete the files *ids* that are older than *before* (ms).

    A file stays if a message after the number *last_message* names it. The result is as of SessionDeletion.
    """

    ids: Sequence[str]
    before: int
    last_message: int


# --- messages -------------------------------------------------------------------------------------------------------

# The number before that of the first young message. A message from the future does not count: the clock was wrong.
LAST_OLD_MESSAGE = """
    SELECT CAST(coalesce((SELECT n FROM messages WHERE ts >= :before AND ts <= :now ORDER BY n LIMIT 1) - 1,
        (SELECT max(n) FROM messages), 0) AS TEXT)"""
# The columns of `messages` that count for `sessions.message_bytes`, as the triggers count them.
MESSAGE_SIZES = """
    SELECT n, ts, length(CAST(content AS BLOB)) + coalesce(length(CAST(parts AS BLOB)), 0)
        + coalesce(length(CAST(metadata AS BLOB)), 0) + coalesce(length(CAST(request AS BLOB)), 0)
    FROM messages ORDER BY n"""
NEXT_OLD_MESSAGES = """
    SELECT n, session, id, length(CAST(content AS BLOB)) + coalesce(length(CAST(parts AS BLOB)), 0) FROM messages m
    WHERE n > :after AND n <= :n AND ts <= :ts AND NOT EXISTS (SELECT 1 FROM runs WHERE session = m.session)
    ORDER BY n LIMIT :limit"""
# The message that is answered by the first message that stays.
QUESTION_OF_FIRST = """
    SELECT user_message FROM messages WHERE session = :session AND n > :n AND user_message IS NOT NULL
    ORDER BY seq, n LIMIT 1"""


def find_old_messages(db: sqlite3.Connection, before: int, now: int) -> Cutoff:
    """Return the cutoff for the messages that are older than *before* (ms)."""
    return Cutoff(query_json(db, LAST_OLD_MESSAGE, {"before": before, "now": now}), before - 1)


def find_excess_messages(db: sqlite3.Connection, max_bytes: int) -> Cutoff | None:
    """Return the cutoff after which messages of *max_bytes* or less are left, or None if there are not more."""
    (size,) = db.execute("SELECT sum(message_bytes) FROM sessions").fetchone()
    excess = (size or 0) - max_bytes
    if excess <= 0:
        return None
    cutoff = None
    for n, ts, message_bytes in db.execute(MESSAGE_SIZES):
        cutoff, excess = Cutoff(n, ts), excess - message_bytes
        if excess <= 0:
            break
    return cutoff


def drop_messages(db: sqlite3.Connection, drop: MessageDrop) -> dict[str, Any]:
    """Delete messages, and return the result of the request. Call this in a transaction."""
    values = drop.cutoff._asdict() | {"after": drop.after, "limit": DROPPED_ROWS}
    ids: dict[int, tuple[Key, str]] = {}
    size = last = 0
    for last, session, message_id, message_bytes in db.execute(NEXT_OLD_MESSAGES, values).fetchall():
        ids[last] = Key(session), message_id
        size += message_bytes
        if size >= DROPPED_BYTES:
            break
    if not ids:
        return {}
    keys = {key for key, _ in ids.values()}
    questions = {(key, _find_question_of_first(db, key, drop.cutoff.n)) for key in keys}
    numbers = [n for n, message in ids.items() if message not in questions]
    db.execute("DELETE FROM messages WHERE n IN (SELECT value FROM json_each(?))", (to_json(numbers),))
    return {"last": last, "keys": {ids[n][0] for n in numbers}}


def _find_question_of_first(db: sqlite3.Connection, key: Key, n: int) -> str | None:
    row = db.execute(QUESTION_OF_FIRST, {"session": key, "n": n}).fetchone()
    return None if row is None else str(row[0])


# --- sessions and files ---------------------------------------------------------------------------------------------

# The sessions without messages, files and runs, to which nothing was written since :before.
IDLE_SESSIONS = """
    SELECT json_group_array(json_array(id, epoch, upto, floor)) FROM (
        SELECT id, epoch, floor, coalesce((SELECT max(upto) FROM strips WHERE session = s.n), floor) AS upto
        FROM sessions s WHERE id > '!' AND messages = 0 AND created < :before
        AND coalesce((SELECT ts FROM strips WHERE session = s.n ORDER BY upto DESC LIMIT 1), 0) < :before
        AND NOT EXISTS (SELECT 1 FROM runs WHERE session = s.id)
        AND NOT EXISTS (SELECT 1 FROM files WHERE session = s.id)
        AND NOT EXISTS (SELECT 1 FROM damaged WHERE session = s.n))"""
IS_NAMED = """
    EXISTS (SELECT 1 FROM messages m WHERE m.session = f.session AND m.n > :last_message
        AND (instr(content, f.id) OR instr(parts, f.id) OR instr(metadata, f.id)))"""
# The number of the last message, and a page of the files that are older than :before: each with its id, and whether a
# message names it.
OLD_FILES = f"""
    SELECT json_array((SELECT coalesce(max(n), 0) FROM messages), (
        SELECT json_group_array(json_array(id, {IS_NAMED})) FROM (
            SELECT id, session FROM files WHERE id > :after AND created < :before ORDER BY id LIMIT :limit) f))"""
FREE_FILES = f"""
    FROM files f WHERE id IN (SELECT value FROM json_each(:ids)) AND created < :before AND NOT {IS_NAMED}
    AND NOT EXISTS (SELECT 1 FROM runs WHERE session = f.session)"""


class OldFiles(NamedTuple):
    """A page of old files, sorted by id: the id of each, and whether a message up to *last_message* names it."""

    last_message: int
    files: list[tuple[str, int]]


def find_old_files(db: sqlite3.Connection, before: int, after: str) -> OldFiles:
    """Return a page of the files that are older than *before* (ms), those after the id *after*."""
    values = {"before": before, "after": after, "limit": DROPPED_ROWS, "last_message": 0}
    return OldFiles(*query_json(db, OLD_FILES, values))


def drop_files(db: sqlite3.Connection, drop: FileDrop) -> list[Any]:
    """Delete files, and return the fields of their FileRecords. Call this in a transaction."""
    values = {"ids": to_json(drop.ids), "before": drop.before, "last_message": drop.last_message}
    files: list[Any] = query_json(db, f"SELECT json_group_array({FILE_JSON}) {FREE_FILES}", values)
    ids = to_json([fields["fileId"] for fields in files])
    db.execute("DELETE FROM files WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    return files
