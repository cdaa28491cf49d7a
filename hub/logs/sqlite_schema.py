"""The tables of the embedded log, and every statement about them.

What is read comes back as one JSON value, in one step (sqlite.py says why).
"""

from functools import cache

# Version n of the schema is what the first n scripts make. Never change one that was released.
MIGRATIONS = (
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, epoch TEXT NOT NULL, floor INTEGER NOT NULL, created INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE events (
        session TEXT NOT NULL, seq INTEGER NOT NULL, ts INTEGER NOT NULL, type TEXT NOT NULL, agent TEXT, run TEXT,
        message TEXT, offset INTEGER, content TEXT NOT NULL, -- a chunk's text; of other events the whole body as JSON
        PRIMARY KEY (session, seq)
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        n INTEGER PRIMARY KEY, session TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, ts INTEGER NOT NULL,
        role TEXT NOT NULL, agent TEXT, run TEXT, author TEXT, author_name TEXT, content TEXT NOT NULL,
        UNIQUE (session, id)
    );
    CREATE INDEX messages_in_order ON messages (session, seq);
    CREATE TABLE runs ( -- those that have not ended
        n INTEGER PRIMARY KEY, session TEXT NOT NULL, id TEXT NOT NULL, after INTEGER NOT NULL, record TEXT NOT NULL,
        UNIQUE (session, id)
    );
    CREATE TABLE chats (
        session TEXT NOT NULL, principal TEXT NOT NULL, client_msg_id TEXT NOT NULL, digest TEXT NOT NULL,
        message TEXT NOT NULL, run TEXT NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (session, principal, client_msg_id)
    ) WITHOUT ROWID;
    """,
)

# What a commit inserts: the columns, in the order in which _Plan flattens them.
COLUMNS = {
    "sessions": ("id", "epoch", "floor", "created"),
    "events": ("session", "seq", "ts", "type", "agent", "run", "message", "offset", "content"),
    "messages": ("session", "id", "seq", "ts", "role", "agent", "run", "author", "author_name", "content"),
    "runs": ("session", "id", "after", "record"),
    "chats": ("session", "principal", "client_msg_id", "digest", "message", "run", "seq"),
}
MOST_ROWS = 512  # inserted by one statement
# A run that is saved again keeps its place.
CONFLICTS = {"runs": " ON CONFLICT (session, id) DO UPDATE SET after = excluded.after, record = excluded.record"}

HEADS = """
    SELECT json_group_array(json_array(
        id, epoch, coalesce((SELECT max(seq) FROM events WHERE session = sessions.id), floor), floor))
    FROM sessions WHERE id IN (SELECT value FROM json_each(?))"""
END_RUNS = """
    DELETE FROM runs WHERE (session, id) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""

# seq is dense, so a page is walked number by number, and ends where its text is enough: nothing more is touched.
PAGE = """
    WITH RECURSIVE page AS (
        SELECT seq, ts, type, agent, run, message, offset, content, length(CAST(content AS BLOB)) AS size FROM events
        WHERE session = :session AND seq = (SELECT min(seq) FROM events WHERE session = :session AND seq > :after)
        AND seq <= :upto
        UNION ALL
        SELECT e.seq, e.ts, e.type, e.agent, e.run, e.message, e.offset, e.content,
            page.size + length(CAST(e.content AS BLOB))
        FROM page JOIN events e ON e.session = :session AND e.seq = page.seq + 1
        WHERE page.size < :bytes AND e.seq <= :upto LIMIT :rows)
    SELECT json_array((SELECT epoch FROM sessions WHERE id = :session),
        json((SELECT json_group_array(json_array(seq, ts, type, agent, run, message, offset, content)) FROM page)))"""
# Backwards from the event, no further than where the run started.
BEFORE = """
    WITH last AS (SELECT seq, type, message FROM events WHERE session = :session AND run = :run AND seq < :seq
        ORDER BY seq DESC LIMIT 1),
    start AS (SELECT seq FROM events WHERE session = :session AND run = :run AND seq < :seq AND type = 'run_started'
        ORDER BY seq DESC LIMIT 1)
    SELECT json_array(message, (SELECT group_concat(content, '') FROM (
        SELECT content FROM events WHERE session = :session AND run = :run AND type = 'stream'
        AND seq > coalesce((SELECT seq FROM start), 0) AND seq <= last.seq AND message = last.message ORDER BY seq)))
    FROM last WHERE type = 'stream'"""
HISTORY = """
    WITH last AS (SELECT n, seq, length(CAST(content AS BLOB)) AS size FROM messages WHERE session = :session
        ORDER BY seq DESC, n DESC LIMIT :last),
    kept AS (SELECT n, sum(size) OVER (ORDER BY seq DESC, n DESC) AS total FROM last)
    SELECT json_group_array(json_array(id, role, content, agent, run, author, author_name, seq, ts)) FROM (
        SELECT m.* FROM messages m JOIN kept ON kept.n = m.n WHERE total <= :bytes ORDER BY m.seq, m.n)"""
CHAT = """
    SELECT json_array(principal, client_msg_id, digest, message, run, seq) FROM chats
    WHERE session = :session AND principal = :principal AND client_msg_id = :id"""
UNFINISHED = "SELECT json_group_array(json(record)) FROM (SELECT record FROM runs ORDER BY n)"

USED = """
    SELECT CAST((page_count - freelist_count) * page_size AS TEXT)
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"""
# What could go, as [session, floor, last seq to go]: all that stands before the first event that is young enough,
OLD = """
    SELECT json_group_array(json_array(id, floor, upto)) FROM (
        SELECT id, floor, coalesce(
            (SELECT seq - 1 FROM events e WHERE e.session = s.id AND e.ts >= :before ORDER BY seq LIMIT 1),
            (SELECT max(seq) FROM events e WHERE e.session = s.id), floor) AS upto
        FROM sessions s) WHERE upto > floor"""
# or all that stands where the events, counted from the newest, pass :bytes (64 for a row's numbers and ids).
LARGE = """
    SELECT json_group_array(json_array(id, floor, upto)) FROM (
        SELECT session, max(seq) AS upto FROM (
            SELECT session, seq, sum(length(CAST(content AS BLOB)) + 64) OVER (ORDER BY ts DESC, session, seq DESC)
            AS taken FROM events) WHERE taken > :bytes GROUP BY session) JOIN sessions ON id = session"""
CUT = (
    """
    UPDATE sessions SET floor = cut.upto FROM (
        SELECT json_extract(value, '$[0]') AS session, min(json_extract(value, '$[1]'), coalesce(
            (SELECT min(after) FROM runs WHERE session = json_extract(value, '$[0]')), json_extract(value, '$[1]'))
        ) AS upto FROM json_each(?)) AS cut WHERE id = cut.session AND floor < cut.upto""",
    """
    DELETE FROM events WHERE (session, seq) IN (
        SELECT e.session, e.seq FROM json_each(?) JOIN sessions s ON s.id = json_extract(value, '$[0]')
        JOIN events e ON e.session = s.id AND e.seq <= s.floor)""",
    """
    SELECT json_group_array(json_array(sessions.id, floor)) FROM json_each(?)
    JOIN sessions ON sessions.id = json_extract(value, '$[0]')""",
)


@cache
def insertion(table: str, rows: int) -> str:
    """Return the statement that inserts so many rows; those whose first value is NULL are filler."""
    columns = COLUMNS[table]
    values = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    chosen = f"SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"
    return f"INSERT INTO {table} ({', '.join(columns)}) {chosen}{CONFLICTS.get(table, '')}"
