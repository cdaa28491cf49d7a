"""The schema of the embedded log, as one migration for each version."""

import sqlite3

from hub.storage.sqlite.event_rows import event_to_commit

# The first n scripts make version n of the schema. Do not change a released script.
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
    # Events are in the order of commits. The table `places` is an index by session; the hub fills the index in batches.
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
    # A deleted session with rows in `places` has a space and its number as its id (see changes.py).
    """
    ALTER TABLE sessions ADD COLUMN title TEXT;
    ALTER TABLE sessions ADD COLUMN metadata TEXT; -- as JSON
    """,
    # Parts and metadata of messages, and the user message of each answer: for old rows, the last one before the answer.
    """
    ALTER TABLE messages ADD COLUMN parts TEXT; -- as JSON, as the next
    ALTER TABLE messages ADD COLUMN metadata TEXT;
    ALTER TABLE messages ADD COLUMN user_message TEXT;
    UPDATE messages SET user_message = (SELECT id FROM messages AS asked WHERE asked.session = messages.session
        AND asked.role = 'user' AND asked.seq < messages.seq ORDER BY asked.seq DESC LIMIT 1) WHERE role = 'assistant';
    """,
    # Events move from `loose` to `strips` (see strips.py). as_loose() makes a commit of each old event.
    """
    INSERT INTO places SELECT s.n, e.seq, e.n FROM events e JOIN sessions s ON s.id = e.session
        WHERE e.n > (SELECT upto FROM placed) ORDER BY s.n, e.seq;
    CREATE TABLE loose (
        n INTEGER PRIMARY KEY, size INTEGER NOT NULL, -- of the text, in bytes
        events TEXT NOT NULL -- of one commit: [[session, first seq, ts, [event, ...]], ...], each as in a strip
    );
    CREATE TABLE strips (
        n INTEGER PRIMARY KEY, session INTEGER NOT NULL, seq INTEGER NOT NULL, upto INTEGER NOT NULL, -- first and last
        ts INTEGER NOT NULL, -- the latest
        size INTEGER NOT NULL, -- of the text, in bytes
        events TEXT NOT NULL -- [[seq, ts, type, agent, run, message, offset, content], ...]
    );
    CREATE UNIQUE INDEX strips_of_sessions ON strips (session, upto);
    INSERT INTO loose (size, events)
        SELECT length(e.content) + 100, -- or so
            as_loose(s.id, e.seq, e.ts, e.type, e.agent, e.run, e.message, e.offset, e.content)
        FROM places p JOIN sessions s ON s.n = p.session JOIN events e ON e.n = p.n ORDER BY p.session, p.seq;
    DROP TABLE events;
    DROP TABLE places;
    DROP TABLE placed;
    -- For people: nothing in the hub reads it.
    CREATE VIEW events AS
        WITH lines AS (
            SELECT s.id AS session, s.floor AS floor, e.value AS line
            FROM strips t JOIN sessions s ON s.n = t.session JOIN json_each(t.events) e WHERE s.id > '!'
            UNION ALL SELECT json_extract(a.value, '$[0]'), 0, e.value
            FROM loose l JOIN json_each(l.events) a JOIN json_each(a.value, '$[3]') e)
        SELECT session, json_extract(line, '$[0]') AS seq, json_extract(line, '$[1]') AS ts,
            json_extract(line, '$[2]') AS type, json_extract(line, '$[3]') AS agent, json_extract(line, '$[4]') AS run,
            json_extract(line, '$[5]') AS message, json_extract(line, '$[6]') AS offset,
            json_extract(line, '$[7]') AS content -- a chunk's text; of other events the whole body as JSON
        FROM lines WHERE json_extract(line, '$[0]') > floor;
    """,
    # Triggers update the number of messages and the time of the last one in the row of the session, so that a page of
    # sessions is read from the table `sessions` alone.
    """
    ALTER TABLE sessions ADD COLUMN messages INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN ts INTEGER NOT NULL DEFAULT 0; -- of the last message
    UPDATE sessions SET messages = (SELECT count(*) FROM messages WHERE session = sessions.id),
        ts = coalesce((SELECT ts FROM messages WHERE session = sessions.id ORDER BY seq DESC LIMIT 1), 0);
    CREATE INDEX sessions_by_time ON sessions (substr(id, 1, instr(id, '/')), ts, id) WHERE id > '!';
    CREATE TRIGGER message_came AFTER INSERT ON messages BEGIN
        UPDATE sessions SET messages = messages + 1, ts = new.ts WHERE id = new.session;
    END;
    CREATE TRIGGER message_went AFTER DELETE ON messages BEGIN
        UPDATE sessions SET messages = messages - 1,
            ts = coalesce((SELECT ts FROM messages WHERE session = old.session ORDER BY seq DESC LIMIT 1), 0)
        WHERE id = old.session;
    END;
    """,
    # Damaged events are moved to the table `damaged` (see damage.py). The view `events` has all other events.
    """
    CREATE TABLE damaged (
        n INTEGER PRIMARY KEY, session INTEGER, seq INTEGER, -- NULL where they cannot be read either
        events BLOB NOT NULL
    );
    CREATE INDEX damaged_of_sessions ON damaged (session, seq);
    DROP VIEW events;
    CREATE VIEW events AS
        WITH lines AS (
            SELECT s.id AS session, s.floor AS floor, e.value AS line
            FROM strips t JOIN sessions s ON s.n = t.session
            JOIN json_each(iif(json_valid(t.events), t.events, '[]')) e WHERE s.id > '!' AND e.type = 'array'
            UNION ALL SELECT json_extract(a.value, '$[0]'), 0, e.value
            FROM loose l JOIN json_each(iif(json_valid(l.events), l.events, '[]')) a
            JOIN json_each(iif(a.type = 'array', a.value, '[]'), '$[3]') e WHERE e.type = 'array')
        SELECT session, json_extract(line, '$[0]') AS seq, json_extract(line, '$[1]') AS ts,
            json_extract(line, '$[2]') AS type, json_extract(line, '$[3]') AS agent, json_extract(line, '$[4]') AS run,
            json_extract(line, '$[5]') AS message, json_extract(line, '$[6]') AS offset,
            json_extract(line, '$[7]') AS content -- a chunk's text; of other events the whole body as JSON
        FROM lines WHERE json_extract(line, '$[0]') > floor;
    """,
    # A message says how its run ended, because retention deletes the event that says so.
    """
    ALTER TABLE messages ADD COLUMN stop_reason TEXT; -- NULL: it ended by itself, or (in old rows) unknown
    ALTER TABLE messages ADD COLUMN error TEXT; -- as JSON
    """,
    # Who may do what: see hub/access/records.py. The names of the columns are those of the fields.
    """
    CREATE TABLE principals (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, kind TEXT NOT NULL, role TEXT NOT NULL,
        tenant TEXT NOT NULL, created INTEGER NOT NULL
    );
    CREATE TABLE credentials (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, kind TEXT NOT NULL,
        digest TEXT NOT NULL, label TEXT NOT NULL, agents TEXT, -- as JSON
        created INTEGER NOT NULL, expires INTEGER NOT NULL, revoked INTEGER NOT NULL, used INTEGER NOT NULL
    );
    CREATE INDEX credentials_of_principals ON credentials (principal);
    CREATE TABLE grants (
        session TEXT NOT NULL, principal TEXT NOT NULL, role TEXT NOT NULL, PRIMARY KEY (session, principal)
    ) WITHOUT ROWID;
    CREATE INDEX grants_of_principals ON grants (principal, session, role);
    CREATE TABLE invites ( -- to sessions
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, session TEXT NOT NULL, role TEXT NOT NULL, digest TEXT NOT NULL,
        creator TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, revoked INTEGER NOT NULL
    );
    CREATE INDEX invites_of_sessions ON invites (session);
    CREATE TABLE quotas ( -- NULL means no limit
        subject TEXT PRIMARY KEY, runs INTEGER, messages INTEGER, tokens INTEGER, stored_bytes INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE usage (
        day TEXT NOT NULL, tenant TEXT NOT NULL, principal TEXT NOT NULL, agent TEXT NOT NULL,
        messages INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        estimated INTEGER NOT NULL, PRIMARY KEY (day, tenant, principal, agent)
    ) WITHOUT ROWID;
    CREATE TABLE audit (
        n INTEGER PRIMARY KEY, ts INTEGER NOT NULL, tenant TEXT NOT NULL, principal TEXT NOT NULL, name TEXT NOT NULL,
        action TEXT NOT NULL, target TEXT NOT NULL, address TEXT NOT NULL, is_allowed INTEGER NOT NULL,
        reason TEXT NOT NULL
    );
    """,
    # Triggers also update the size of the messages of a session, so that retention knows the size of all messages.
    """
    ALTER TABLE sessions ADD COLUMN message_bytes INTEGER NOT NULL DEFAULT 0; -- of texts, parts and metadata
    UPDATE sessions SET message_bytes = coalesce((
        SELECT sum(length(CAST(content AS BLOB)) + coalesce(length(CAST(parts AS BLOB)), 0)
            + coalesce(length(CAST(metadata AS BLOB)), 0)) FROM messages WHERE session = sessions.id), 0);
    DROP TRIGGER message_came;
    CREATE TRIGGER message_came AFTER INSERT ON messages BEGIN
        UPDATE sessions SET messages = messages + 1, ts = new.ts, message_bytes = message_bytes
            + length(CAST(new.content AS BLOB)) + coalesce(length(CAST(new.parts AS BLOB)), 0)
            + coalesce(length(CAST(new.metadata AS BLOB)), 0)
        WHERE id = new.session;
    END;
    DROP TRIGGER message_went;
    CREATE TRIGGER message_went AFTER DELETE ON messages BEGIN
        UPDATE sessions SET messages = messages - 1,
            ts = coalesce((SELECT ts FROM messages WHERE session = old.session ORDER BY seq DESC LIMIT 1), 0),
            message_bytes = message_bytes
            - length(CAST(old.content AS BLOB)) - coalesce(length(CAST(old.parts AS BLOB)), 0)
            - coalesce(length(CAST(old.metadata AS BLOB)), 0)
        WHERE id = old.session;
    END;
    CREATE TRIGGER message_changed AFTER UPDATE OF content, parts, metadata ON messages BEGIN
        UPDATE sessions SET message_bytes = message_bytes
            + length(CAST(new.content AS BLOB)) + coalesce(length(CAST(new.parts AS BLOB)), 0)
            + coalesce(length(CAST(new.metadata AS BLOB)), 0)
            - length(CAST(old.content AS BLOB)) - coalesce(length(CAST(old.parts AS BLOB)), 0)
            - coalesce(length(CAST(old.metadata AS BLOB)), 0)
        WHERE id = new.session;
    END;
    """,
    # The request of a user's message (tools, sampling and others), for the next runs that answer it.
    """
    ALTER TABLE messages ADD COLUMN request TEXT; -- as JSON
    DROP TRIGGER message_came;
    CREATE TRIGGER message_came AFTER INSERT ON messages BEGIN
        UPDATE sessions SET messages = messages + 1, ts = new.ts, message_bytes = message_bytes
            + length(CAST(new.content AS BLOB)) + coalesce(length(CAST(new.parts AS BLOB)), 0)
            + coalesce(length(CAST(new.metadata AS BLOB)), 0)
            + coalesce(length(CAST(new.request AS BLOB)), 0)
        WHERE id = new.session;
    END;
    DROP TRIGGER message_went;
    CREATE TRIGGER message_went AFTER DELETE ON messages BEGIN
        UPDATE sessions SET messages = messages - 1,
            ts = coalesce((SELECT ts FROM messages WHERE session = old.session ORDER BY seq DESC LIMIT 1), 0),
            message_bytes = message_bytes
            - length(CAST(old.content AS BLOB)) - coalesce(length(CAST(old.parts AS BLOB)), 0)
            - coalesce(length(CAST(old.metadata AS BLOB)), 0)
            - coalesce(length(CAST(old.request AS BLOB)), 0)
        WHERE id = old.session;
    END;
    DROP TRIGGER message_changed;
    CREATE TRIGGER message_changed AFTER UPDATE OF content, parts, metadata, request ON messages BEGIN
        UPDATE sessions SET message_bytes = message_bytes
            + length(CAST(new.content AS BLOB)) + coalesce(length(CAST(new.parts AS BLOB)), 0)
            + coalesce(length(CAST(new.metadata AS BLOB)), 0)
            + coalesce(length(CAST(new.request AS BLOB)), 0)
            - length(CAST(old.content AS BLOB)) - coalesce(length(CAST(old.parts AS BLOB)), 0)
            - coalesce(length(CAST(old.metadata AS BLOB)), 0)
            - coalesce(length(CAST(old.request AS BLOB)), 0)
        WHERE id = new.session;
    END;
    """,
)


def read_schema(db: sqlite3.Connection) -> int:
    """Return the version of the schema, or 0 for an empty database. Raises sqlite3.Error."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate_schema(db: sqlite3.Connection) -> None:
    """Update the schema to the newest version in one transaction, so that a kill changes nothing.

    Raises sqlite3.Error.
    """
    scripts = MIGRATIONS[read_schema(db) :]
    if scripts:
        db.create_function("as_loose", -1, event_to_commit)
        changes = "; ".join((*scripts, f"PRAGMA user_version = {len(MIGRATIONS)}"))
        db.executescript(f"BEGIN IMMEDIATE; {changes}; COMMIT")
