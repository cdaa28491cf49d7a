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
        *("parts", "metadata", "user_message"),
    ),
    "runs": ("session", "id", "after", "record"),
    "chats": ("session", "principal", "client_msg_id", "digest", "message", "run", "seq"),
    "files": ("id", "session", "name", "type", "size", "digest", "created"),
    "strips": ("session", "seq", "upto", "ts", "size", "events"),
}
MOST_ROWS = 512  # inserted by one statement
# A run that is saved again keeps its place.
CONFLICTS = {"runs": " ON CONFLICT (session, id) DO UPDATE SET after = excluded.after, record = excluded.record"}

# Where sessions stand by their strips, and the commits in which they are, by which they may stand further on; those are
# not looked for where all sessions are new. A mark is in the text of each commit of its session.
HEADS = """
    SELECT json_group_array(json_array(
        id, epoch, coalesce((SELECT max(upto) FROM strips WHERE session = sessions.n), floor), floor)),
        iif(count(*), (SELECT group_concat(events) FROM loose
            WHERE EXISTS (SELECT 1 FROM json_each(:marks) WHERE instr(events, value))), NULL)
    FROM sessions WHERE id IN (SELECT value FROM json_each(:sessions))"""
END_RUNS = """
    DELETE FROM runs WHERE (session, id) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
REMOVE = """
    DELETE FROM messages WHERE (session, id) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""

# What lies loose for the longest, and up to which number; and that it does so no more.
LOOSE = """
    WITH some AS (SELECT n, sum(size) OVER (ORDER BY n) AS total FROM loose ORDER BY n LIMIT :most)
    SELECT max(n), group_concat(events) FROM (
        SELECT n, events FROM loose WHERE n <= coalesce(
            (SELECT min(n) FROM some WHERE total >= :bytes), (SELECT max(n) FROM some)) ORDER BY n)"""
PLACED = "DELETE FROM loose WHERE n <= ?"
NUMBERS = "SELECT json_group_object(id, n) FROM sessions WHERE id IN (SELECT value FROM json_each(?))"

# The strips that hold what comes next, as far as there is need, each found by the one before: nothing more is touched.
# Of their bytes 96 are taken for an event's numbers and ids; the caller leaves out what is too much. A page after the
# last strip is of what lies loose.
PAGE = """
    WITH RECURSIVE here AS (SELECT n, epoch, max(floor, :after) AS after FROM sessions WHERE id = :session),
    page AS (
        SELECT t.upto, t.events, t.size FROM here JOIN strips t ON t.n = (
            SELECT n FROM strips WHERE session = here.n AND upto > here.after ORDER BY upto LIMIT 1)
        WHERE t.seq <= :upto
        UNION ALL
        SELECT t.upto, t.events, t.size + page.size FROM page JOIN here JOIN strips t ON t.n = (
            SELECT n FROM strips WHERE session = here.n AND upto > page.upto ORDER BY upto LIMIT 1)
        WHERE page.size < :bytes + 96 * (page.upto - here.after)
        AND page.upto < here.after + :rows AND t.seq <= :upto)
    SELECT epoch, after, (SELECT group_concat(events) FROM page), iif(EXISTS (SELECT 1 FROM page), NULL,
        (SELECT group_concat(events) FROM loose WHERE instr(events, :mark)))
    FROM here"""
# Backwards from an event: what lies loose, and some of the strips that hold what is before it.
BACK_LATE = """
    SELECT floor, (SELECT group_concat(events) FROM loose WHERE instr(events, :mark))
    FROM sessions WHERE id = :session"""
BACK = """
    WITH here AS (SELECT n FROM sessions WHERE id = :session)
    SELECT group_concat(events) FROM (
        SELECT events FROM strips WHERE session = (SELECT n FROM here) AND seq < :seq AND upto <= coalesce(
            (SELECT min(upto) FROM strips WHERE session = (SELECT n FROM here) AND upto >= :seq - 1), :seq)
        ORDER BY upto DESC LIMIT 8)"""
# A message as plan.py reads it.
SHOWN = """json_array(id, role, content, agent, run, author, author_name, seq, ts,
        json(parts), json(metadata), user_message)"""
HISTORY = f"""
    WITH last AS (
        SELECT n, seq, length(CAST(content AS BLOB)) + coalesce(length(CAST(parts AS BLOB)), 0) AS size FROM messages
        WHERE session = :session AND (:upto IS NULL OR
            (seq, n) <= (SELECT seq, n FROM messages WHERE session = :session AND id = :upto))
        ORDER BY seq DESC, n DESC LIMIT :last),
    kept AS (SELECT n, sum(size) OVER (ORDER BY seq DESC, n DESC) AS total FROM last)
    SELECT json_group_array({SHOWN}) FROM (
        SELECT m.* FROM messages m JOIN kept ON kept.n = m.n WHERE total <= :bytes ORDER BY m.seq, m.n)"""
TRAIL = f"""
    WITH first AS (SELECT n, seq FROM messages WHERE session = :session AND id = :message)
    SELECT json_group_array({SHOWN}) FROM (
        SELECT m.id, role, iif(m.n = first.n, content, '') AS content, agent, run, author, author_name, m.seq, ts,
            iif(m.n = first.n, parts, NULL) AS parts, iif(m.n = first.n, metadata, NULL) AS metadata, user_message
        FROM first JOIN messages m ON m.session = :session AND (m.seq, m.n) >= (first.seq, first.n)
        ORDER BY m.seq, m.n LIMIT :most)"""
SESSIONS = """
    WITH found AS (SELECT id, epoch, title, metadata, (SELECT count(*) FROM messages WHERE session = s.id) AS messages,
        coalesce((SELECT ts FROM messages WHERE session = s.id ORDER BY seq DESC LIMIT 1), 0) AS ts FROM sessions s
        WHERE id > '!' AND iif(:prefix = '', instr(id, '/') = 0, substr(id, 1, length(:prefix)) = :prefix)
        AND '*' IN (SELECT value FROM json_each(:readers)) AND (:agent IS NULL OR EXISTS (
            SELECT 1 FROM messages WHERE session = s.id AND agent = :agent))),
    fits AS (SELECT * FROM found WHERE ts >= :since AND ts < :until)
    SELECT json_array((SELECT count(*) FROM fits), json((
        SELECT json_group_array(json_array(id, epoch, messages, ts, title, metadata)) FROM (
            SELECT * FROM fits ORDER BY ts DESC, id LIMIT :size OFFSET :skip))))"""
HISTORY_PAGE = f"""
    SELECT json_array((SELECT count(*) FROM messages WHERE session = :session), json((
        SELECT json_group_array({SHOWN}) FROM (
            SELECT * FROM messages WHERE session = :session ORDER BY seq, n LIMIT :size OFFSET :skip))))"""
CHAT = """
    SELECT json_array(principal, client_msg_id, digest, message, run, seq) FROM chats
    WHERE session = :session AND principal = :principal AND client_msg_id = :id"""
FILE = "SELECT json_array(id, session, name, type, size, digest, created) FROM files WHERE id = ?"
FILES_OF = """
    SELECT json_group_array(json_array(id, session, name, type, size, digest, created)) FROM files WHERE session = ?"""
FILE_BYTES = """
    SELECT json_group_object(session, bytes) FROM (
        SELECT session, sum(max(size, ?)) AS bytes FROM files GROUP BY session)"""
NAMED = """
    SELECT json_group_array(value) FROM json_each(?) WHERE EXISTS (SELECT 1 FROM files WHERE digest = value)"""
LABEL = "SELECT json_array(title, metadata) FROM sessions WHERE id = :session"
RELABEL = {
    "title": "UPDATE sessions SET title = ? WHERE id = ?",
    "metadata": "UPDATE sessions SET metadata = ? WHERE id = ?",
}
# Bytes, and a row for each, unlike all else: one that is damaged must not hide the others.
UNFINISHED = "SELECT CAST(session AS BLOB), CAST(id AS BLOB), CAST(record AS BLOB) FROM runs ORDER BY n"

USED = """
    SELECT CAST((page_count - freelist_count) * page_size AS TEXT)
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"""
# What could go, as [session, epoch, floor, last to go]: all that stands before the first event that is young enough
# (where that is in a damaged strip, nothing),
OLD = """
    WITH young AS (
        SELECT s.n AS session, (SELECT t.n FROM strips t WHERE t.session = s.n AND t.ts >= :before
            ORDER BY t.upto LIMIT 1) AS n
        FROM sessions s WHERE id > '!')
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT id, epoch, floor, iif(young.n IS NULL,
            coalesce((SELECT max(upto) FROM strips t WHERE t.session = s.n), floor),
            (SELECT min(json_extract(value, '$[0]')) - 1
                FROM strips t JOIN json_each(iif(json_valid(t.events), t.events, '[]'))
                WHERE t.n = young.n AND json_extract(value, '$[1]') >= :before)) AS upto
        FROM sessions s JOIN young ON young.session = s.n) WHERE upto > floor"""
# or all the strips that are left when what they take, counted from the newest, passes :bytes. What lies loose is too
# young to go.
LARGE = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT s.id, s.epoch, s.floor, max(t.upto) AS upto FROM (
            SELECT session, upto, sum(size) OVER (ORDER BY ts DESC, n DESC) AS taken FROM strips) t
        JOIN sessions s ON s.n = t.session WHERE taken > :bytes AND s.id > '!' GROUP BY s.n) WHERE upto > floor"""
# Of a deleted session only strips are left, which a new one of that id has nothing to do with: the number n, by which
# they know it, stays taken until the last of them is dropped.
EMPTY = "DELETE FROM sessions WHERE id < '!' AND NOT EXISTS (SELECT 1 FROM strips WHERE session = sessions.n)"
DELETE = (
    "DELETE FROM messages WHERE session IN (SELECT value FROM json_each(?))",
    "DELETE FROM runs WHERE session IN (SELECT value FROM json_each(?))",
    "DELETE FROM chats WHERE session IN (SELECT value FROM json_each(?))",
    "DELETE FROM files WHERE session IN (SELECT value FROM json_each(?))",
    """
    UPDATE sessions SET id = ' ' || n, title = NULL, metadata = NULL
    WHERE id IN (SELECT value FROM json_each(?))""",
)
DELETED = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT id, epoch, floor, coalesce((SELECT max(upto) FROM strips WHERE session = s.n), floor) AS upto
        FROM sessions s WHERE id < '!')"""
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
