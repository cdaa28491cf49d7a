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
    # Events lie in the order of their commits; where those of a session are is noted later, many at once (see PLACE).
    """
    ALTER TABLE sessions RENAME TO old_sessions;
    CREATE TABLE sessions (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, floor INTEGER NOT NULL,
        created INTEGER NOT NULL
    );
    INSERT INTO sessions (id, epoch, floor, created) SELECT id, epoch, floor, created FROM old_sessions;
    DROP TABLE old_sessions;
    ALTER TABLE events RENAME TO old_events;
    CREATE TABLE events (
        n INTEGER PRIMARY KEY, session TEXT NOT NULL, seq INTEGER NOT NULL, ts INTEGER NOT NULL, type TEXT NOT NULL,
        agent TEXT, run TEXT, message TEXT, offset INTEGER,
        content TEXT NOT NULL -- a chunk's text; of other events the whole body as JSON
    );
    INSERT INTO events (session, seq, ts, type, agent, run, message, offset, content)
        SELECT session, seq, ts, type, agent, run, message, offset, content FROM old_events ORDER BY ts, session, seq;
    DROP TABLE old_events;
    CREATE TABLE places (
        session INTEGER NOT NULL, seq INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (session, seq)
    ) WITHOUT ROWID;
    CREATE TABLE placed (upto INTEGER NOT NULL); -- the last n that has a place
    INSERT INTO placed VALUES (0);
    """,
    """
    CREATE TABLE files ( -- what each is; the bytes lie in the files folder, by their digest
        id TEXT PRIMARY KEY, session TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, size INTEGER NOT NULL,
        digest TEXT NOT NULL, created INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX files_of_sessions ON files (session);
    CREATE INDEX files_by_digest ON files (digest);
    """,
    # A session that was deleted, and left something in `places`, has a number after a space for its id (see DELETE).
    """
    ALTER TABLE sessions ADD COLUMN title TEXT;
    ALTER TABLE sessions ADD COLUMN metadata TEXT; -- as JSON
    """,
    # What a message holds beside its text, and which one an agent's message answers: until now the last before it.
    """
    ALTER TABLE messages ADD COLUMN parts TEXT; -- as JSON, as the next
    ALTER TABLE messages ADD COLUMN metadata TEXT;
    ALTER TABLE messages ADD COLUMN user_message TEXT;
    UPDATE messages SET user_message = (SELECT id FROM messages AS asked WHERE asked.session = messages.session
        AND asked.role = 'user' AND asked.seq < messages.seq ORDER BY asked.seq DESC LIMIT 1) WHERE role = 'assistant';
    """,
)

# What a commit inserts: the columns, in the order in which _Plan flattens them.
COLUMNS = {
    "sessions": ("id", "epoch", "floor", "created"),
    "events": ("session", "seq", "ts", "type", "agent", "run", "message", "offset", "content"),
    "messages": (
        *("session", "id", "seq", "ts", "role", "agent", "run", "author", "author_name", "content"),
        *("parts", "metadata", "user_message"),
    ),
    "runs": ("session", "id", "after", "record"),
    "chats": ("session", "principal", "client_msg_id", "digest", "message", "run", "seq"),
    "files": ("id", "session", "name", "type", "size", "digest", "created"),
}
MOST_ROWS = 512  # inserted by one statement
# A run that is saved again keeps its place.
CONFLICTS = {"runs": " ON CONFLICT (session, id) DO UPDATE SET after = excluded.after, record = excluded.record"}

# What has no place is walked once for all that are asked for.
HEADS = """
    WITH asked AS (SELECT n, id, epoch, floor FROM sessions WHERE id IN (SELECT value FROM json_each(?))),
    late AS MATERIALIZED (SELECT session, max(seq) AS seq FROM events
        WHERE n > (SELECT upto FROM placed) AND session IN (SELECT id FROM asked) GROUP BY session)
    SELECT json_group_array(json_array(
        id, epoch, coalesce(late.seq, (SELECT max(seq) FROM places WHERE session = asked.n), floor), floor))
    FROM asked LEFT JOIN late ON late.session = asked.id"""
END_RUNS = """
    DELETE FROM runs WHERE (session, id) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
REMOVE = """
    DELETE FROM messages WHERE (session, id) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""

# Give a place to the events that have none yet.
PLACE = (
    """
    INSERT INTO places SELECT s.n, e.seq, e.n FROM events e JOIN sessions s ON s.id = e.session
    WHERE e.n > (SELECT upto FROM placed) ORDER BY s.n, e.seq""",
    "UPDATE placed SET upto = coalesce((SELECT max(n) FROM events), 0)",
)

# Of a session what has a place comes before what has none. seq is dense, so the former is walked number by number, and
# the page ends where its text is enough: nothing more is touched. A page after the last place is of the latter alone.
PAGE = """
    WITH RECURSIVE here AS (SELECT n, epoch FROM sessions WHERE id = :session),
    page AS (
        SELECT e.*, length(CAST(content AS BLOB)) AS size FROM places p JOIN events e ON e.n = p.n
        WHERE p.session = (SELECT n FROM here) AND p.seq =
            (SELECT min(seq) FROM places WHERE session = (SELECT n FROM here) AND seq > :after)
        AND p.seq <= :upto
        UNION ALL
        SELECT e.*, page.size + length(CAST(e.content AS BLOB))
        FROM page JOIN places p ON p.session = (SELECT n FROM here) AND p.seq = page.seq + 1 JOIN events e ON e.n = p.n
        WHERE page.size < :bytes AND p.seq <= :upto LIMIT :rows),
    late AS (SELECT *, sum(length(CAST(content AS BLOB))) OVER (ORDER BY seq) AS size FROM events
        WHERE NOT EXISTS (SELECT 1 FROM page) AND n > (SELECT upto FROM placed)
        AND session = :session AND seq > :after AND seq <= :upto LIMIT :rows),
    found AS (SELECT * FROM page UNION ALL
        SELECT * FROM late WHERE size - length(CAST(content AS BLOB)) < :bytes)
    SELECT json_array((SELECT epoch FROM here),
        json((SELECT json_group_array(json_array(seq, ts, type, agent, run, message, offset, content)) FROM found)))"""
# Backwards from the event, no further than where the run started.
BEFORE = """
    WITH here AS (SELECT n FROM sessions WHERE id = :session),
    late AS (SELECT seq, type, message, content FROM events
        WHERE n > (SELECT upto FROM placed) AND session = :session AND run = :run AND seq < :seq),
    start AS (SELECT coalesce((SELECT max(seq) FROM late WHERE type = 'run_started'),
        (SELECT p.seq FROM places p JOIN events e ON e.n = p.n WHERE p.session = (SELECT n FROM here) AND p.seq < :seq
        AND e.run = :run AND e.type = 'run_started' ORDER BY p.seq DESC LIMIT 1), 0) AS seq),
    said AS (SELECT * FROM late WHERE seq > (SELECT seq FROM start) UNION ALL
        SELECT p.seq, type, message, content FROM places p JOIN events e ON e.n = p.n
        WHERE p.session = (SELECT n FROM here) AND p.seq > (SELECT seq FROM start) AND p.seq < :seq AND e.run = :run),
    last AS (SELECT seq, type, message FROM said ORDER BY seq DESC LIMIT 1)
    SELECT json_array(message, (SELECT group_concat(content, '') FROM (
        SELECT content FROM said WHERE type = 'stream' AND message = last.message ORDER BY seq)))
    FROM last WHERE type = 'stream'"""
# A message as sqlite_plan.py reads it.
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
        WHERE id > '!' AND (:agent IS NULL OR EXISTS (
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
UNFINISHED = "SELECT json_group_array(json(record)) FROM (SELECT record FROM runs ORDER BY n)"

USED = """
    SELECT CAST((page_count - freelist_count) * page_size AS TEXT)
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"""
# What could go, as [session, epoch, floor, last to go]: all that stands before the first event that is young enough,
OLD = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT id, epoch, floor, coalesce(
            (SELECT p.seq - 1 FROM places p JOIN events e ON e.n = p.n
            WHERE p.session = s.n AND e.ts >= :before ORDER BY p.seq LIMIT 1),
            (SELECT max(seq) FROM places p WHERE p.session = s.n), floor) AS upto
        FROM sessions s WHERE id > '!') WHERE upto > floor"""
# or all that stands where the events, counted from the newest, pass :bytes (64 for a row's numbers and ids). What has
# no place yet is too young to go. An event whose session was deleted stands in none that has its id now.
LARGE = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT s.id, s.epoch, s.floor, max(e.seq) AS upto FROM (
            SELECT n, session, seq, sum(length(CAST(content AS BLOB)) + 64) OVER (ORDER BY n DESC) AS taken
            FROM events) e
        JOIN sessions s ON s.id = e.session JOIN places p ON p.session = s.n AND p.seq = e.seq
        WHERE taken > :bytes AND p.n = e.n GROUP BY s.n)"""
# Of a deleted session only events and places are left, which a new one of that id has nothing to do with: the number n,
# by which places know it, stays taken until the last of them is dropped.
EMPTY = "DELETE FROM sessions WHERE id < '!' AND NOT EXISTS (SELECT 1 FROM places WHERE session = sessions.n)"
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
        SELECT id, epoch, floor, coalesce((SELECT max(seq) FROM places WHERE session = s.n), floor
        ) AS upto
        FROM sessions s WHERE id < '!')"""
CUT = (
    """
    UPDATE sessions SET floor = cut.upto FROM (
        SELECT json_extract(value, '$[0]') AS session, json_extract(value, '$[1]') AS epoch,
        min(json_extract(value, '$[2]'), coalesce(
            (SELECT min(after) FROM runs WHERE session = json_extract(value, '$[0]')), json_extract(value, '$[2]'))
        ) AS upto FROM json_each(?)) AS cut
    WHERE id = cut.session AND sessions.epoch = cut.epoch AND floor < cut.upto""",
    """
    DELETE FROM events WHERE n IN (
        SELECT p.n FROM json_each(?) JOIN sessions s ON s.id = json_extract(value, '$[0]')
        JOIN places p ON p.session = s.n AND p.seq <= s.floor)""",
    """
    DELETE FROM places WHERE (session, seq) IN (
        SELECT p.session, p.seq FROM json_each(?) JOIN sessions s ON s.id = json_extract(value, '$[0]')
        JOIN places p ON p.session = s.n AND p.seq <= s.floor)""",
    # SQLite counts on from the greatest n that is left.
    "UPDATE placed SET upto = min(upto, coalesce((SELECT max(n) FROM events), 0)) WHERE ? IS NOT NULL",
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
