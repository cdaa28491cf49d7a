"""The tables of the embedded log, and every statement about them.

What is read comes back in one row, mostly of one JSON value, and so in one step (log.py says why).
"""

import sqlite3
from functools import cache
from typing import Any

import orjson

# What is inserted: the columns, in the order in which values are given.
COLUMNS = {
    "sessions": ("id", "epoch", "floor", "created"),
    "loose": ("size", "events"),
    "messages": (
        *("session", "id", "seq", "ts", "role", "agent", "run", "author", "author_name", "content"),
        *("parts", "metadata", "user_message", "stop_reason", "error"),
    ),
    "runs": ("session", "id", "after", "record"),
    "chats": ("session", "principal", "client_msg_id", "digest", "message", "run", "seq"),
    "files": ("id", "session", "name", "type", "size", "digest", "created"),
    "strips": ("session", "seq", "upto", "ts", "size", "events"),
}
MOST_ROWS = 512  # inserted by one statement
# A run that is saved again keeps its place.
CONFLICTS = {"runs": " ON CONFLICT (session, id) DO UPDATE SET after = excluded.after, record = excluded.record"}

END_RUNS = """
    DELETE FROM runs WHERE (session, id) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
REMOVE = """
    DELETE FROM messages WHERE (session, id) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""

# A row of `files` as a JSON object with the fields of FileRecord.
FILE_FIELDS = """json_object('fileId', id, 'key', session, 'name', name, 'type', type, 'size', size, 'digest', digest,
    'created', created)"""
FILES_OF = f"SELECT json_group_array({FILE_FIELDS}) FROM files WHERE session = ?"
RELABEL = {
    "title": "UPDATE sessions SET title = ? WHERE id = ?",
    "metadata": "UPDATE sessions SET metadata = ? WHERE id = ?",
}

# Of a deleted session only strips are left, which a new one of that id has nothing to do with: the number n, by which
# they know it, stays taken until the last of them is dropped.
EMPTY = "DELETE FROM sessions WHERE id < '!' AND NOT EXISTS (SELECT 1 FROM strips WHERE session = sessions.n)"
DELETE = (
    """
    DELETE FROM damaged WHERE session IN (
        SELECT n FROM sessions WHERE id IN (SELECT value FROM json_each(?)))""",
    # First: what follows then counts the messages of no session down.
    """
    UPDATE sessions SET id = ' ' || n, title = NULL, metadata = NULL, messages = 0, ts = 0
    WHERE id IN (SELECT value FROM json_each(?))""",
    "DELETE FROM messages WHERE session IN (SELECT value FROM json_each(?))",
    "DELETE FROM runs WHERE session IN (SELECT value FROM json_each(?))",
    "DELETE FROM chats WHERE session IN (SELECT value FROM json_each(?))",
    "DELETE FROM files WHERE session IN (SELECT value FROM json_each(?))",
)
CUT = (
    """
    UPDATE sessions SET floor = cut.upto FROM (
        SELECT json_extract(value, '$[0]') AS session, json_extract(value, '$[1]') AS epoch,
        min(json_extract(value, '$[2]'), coalesce(
            (SELECT min(after) FROM runs WHERE session = json_extract(value, '$[0]')), json_extract(value, '$[2]'))
        ) AS upto FROM json_each(?)) AS cut
    WHERE id = cut.session AND sessions.epoch = cut.epoch AND floor < cut.upto""",
    # A strip goes with the last of its events; until then the floor hides those before it.
    """
    DELETE FROM strips WHERE n IN (
        SELECT t.n FROM json_each(?) JOIN sessions s ON s.id = json_extract(value, '$[0]')
        JOIN strips t ON t.session = s.n AND t.upto <= s.floor)""",
    f"{EMPTY} AND ? IS NOT NULL",
)
FLOORS = """
    SELECT json_group_array(json_array(sessions.id, floor)) FROM json_each(?)
    JOIN sessions ON sessions.id = json_extract(value, '$[0]') AND epoch = json_extract(value, '$[1]')"""


def rounded(rows: int) -> int:
    """Return for how many rows a statement is made that inserts so many: up to an eighth more, so that few exist."""
    step = 1 << max(rows.bit_length() - 4, 0)
    return -(-rows // step) * step


@cache
def insertion(table: str, rows: int) -> str:
    """Return the statement that inserts so many rows; those whose first value is NULL are filler."""
    columns = COLUMNS[table]
    values = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    chosen = f"SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"
    return f"INSERT INTO {table} ({', '.join(columns)}) {chosen}{CONFLICTS.get(table, '')}"


def insert(db: sqlite3.Connection, table: str, values: list[Any]) -> None:
    """Insert rows whose values are given one after the other."""
    width = len(COLUMNS[table])
    step = MOST_ROWS * width
    for start in range(0, len(values), step):
        part = values if len(values) <= step else values[start : start + step]
        rows = rounded(len(part) // width)
        part += [None] * (rows * width - len(part))
        db.execute(insertion(table, rows), part)


def one(db: sqlite3.Connection, statement: str, values: Any) -> Any:
    """Return the one JSON value that a statement finds, or None."""
    row = db.execute(statement, values).fetchone()
    return None if row is None else orjson.loads(row[0])
