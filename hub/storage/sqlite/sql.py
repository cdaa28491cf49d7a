"""Insert many rows with one statement, and read one JSON value with one statement.

Each step of a statement releases the GIL (see log.py), so these functions take few steps.
"""

import sqlite3
from functools import cache
from typing import Annotated, Any

import orjson
from msgspec import Meta

# The columns that insert_rows() fills, in the order of the values.
COLUMNS = {
    "sessions": ("id", "epoch", "floor", "created"),
    "loose": ("size", "events"),
    "messages": (
        *("session", "id", "seq", "ts", "role", "agent", "run", "author", "author_name", "content"),
        *("parts", "metadata", "user_message", "stop_reason", "error", "request"),
    ),
    "runs": ("session", "id", "after", "record"),
    "chats": ("session", "principal", "client_msg_id", "digest", "message", "run", "seq"),
    "files": ("id", "session", "name", "type", "size", "digest", "created"),
    "grants": ("session", "principal", "role"),
    "usage": ("day", "tenant", "principal", "agent", "messages", "input_tokens", "output_tokens", "estimated"),
    "audit": ("ts", "tenant", "principal", "name", "action", "target", "address", "is_allowed", "reason"),
    "strips": ("session", "seq", "upto", "ts", "size", "events"),
}
MAX_SQLITE_INTEGER = 2**63 - 1
SqliteInteger = Annotated[int, Meta(ge=0, le=MAX_SQLITE_INTEGER)]
MAX_INSERTED_ROWS = 512  # one statement inserts at most this many rows
UPSERTS = {
    # A run that is saved again must not change its row number, by which unfinished runs are sorted.
    "runs": " ON CONFLICT (session, id) DO UPDATE SET after = excluded.after, record = excluded.record",
    "usage": """ ON CONFLICT (day, tenant, principal, agent) DO UPDATE SET messages = messages + excluded.messages,
        input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
        estimated = estimated + excluded.estimated""",
}
# A row of `files` as a JSON object with the fields of FileRecord.
FILE_JSON = """json_object('fileId', id, 'key', session, 'name', name, 'type', type, 'size', size, 'digest', digest,
    'created', created)"""


def insert_rows(db: sqlite3.Connection, table: str, values: list[Any]) -> None:
    """Insert rows. *values* has the values of the first row, then the values of the second row, and so on.

    insert_rows() may append None to *values*: the number of rows of a statement is rounded up, and the statement skips
    the rows that begin with NULL.
    """
    width = len(COLUMNS[table])
    step = MAX_INSERTED_ROWS * width
    for start in range(0, len(values), step):
        part = values if len(values) <= step else values[start : start + step]
        rows = round_up_rows(len(part) // width)
        part += [None] * (rows * width - len(part))
        db.execute(make_insert_statement(table, rows), part)


def round_up_rows(rows: int) -> int:
    """Round up by at most an eighth. So there are few different statements, and SQLite can cache all of them."""
    step = 1 << max(rows.bit_length() - 4, 0)
    return -(-rows // step) * step


@cache
def make_insert_statement(table: str, rows: int) -> str:
    """Return the statement that inserts *rows* rows, except those whose first value is NULL."""
    columns = COLUMNS[table]
    values = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    select = f"SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"
    return f"INSERT INTO {table} ({', '.join(columns)}) {select}{UPSERTS.get(table, '')}"


def query_json(db: sqlite3.Connection, statement: str, values: Any) -> Any:
    """Decode the JSON in the first column of the first row, and return the value, or None if there is no row."""
    row = db.execute(statement, values).fetchone()
    return None if row is None else orjson.loads(row[0])
