"""Read the heads and the events of sessions, from the tables `strips` and `loose` together.

In each session the events in `loose` come after those in `strips`.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from hub.ids import Key
from hub.messages import Event
from hub.storage.sqlite.event_rows import (
    EventRow,
    UnreadableEvents,
    decode_commit_rows,
    decode_commits,
    decode_strip_rows,
    make_session_mark,
    to_events,
    to_json,
)
from hub.storage.sqlite.strips import fetch_row

UNKNOWN_SEQ = 10**15  # the seq in `damaged` of a part whose seq cannot be read: greater than all others


# --- heads ----------------------------------------------------------------------------------------------------------

# Selects the head of each session in `strips`, with the greatest first seq of its damaged parts, and the commits in
# `loose` that may have later events. The search in `loose` takes long, so it is left out if no session exists.
HEADS = """
    SELECT json_group_array(json_array(
        id, epoch, coalesce((SELECT max(upto) FROM strips WHERE session = sessions.n), floor), floor,
        (SELECT max(seq) FROM damaged WHERE session = sessions.n))),
        iif(count(*), (SELECT group_concat(events) FROM loose
            WHERE EXISTS (SELECT 1 FROM json_each(:marks) WHERE instr(events, value))), NULL)
    FROM sessions WHERE id IN (SELECT value FROM json_each(:sessions))"""


class StoredHead(NamedTuple):
    """The head of a session in the file. *seq* is None if it is unknown, because the last events are damaged."""

    key: Key
    epoch: str
    seq: int | None
    floor: int


def read_heads(db: sqlite3.Connection, sessions: Sequence[Key]) -> list[StoredHead]:
    """Return the heads of the *sessions* that exist. Raises UnreadableEvents."""
    values = {"sessions": to_json(sessions), "marks": to_json([make_session_mark(session) for session in sessions])}
    rows, commits = fetch_row(db, HEADS, values)
    loose_seqs = {
        session: seq + len(events) - 1 for commit in decode_commits(commits) for session, seq, _, events in commit
    }
    heads = []
    for key, epoch, strips_seq, floor, damaged_seq in msgspec.json.decode(rows):
        seq = loose_seqs.get(key, strips_seq)
        is_damaged = damaged_seq is not None and damaged_seq > seq
        heads.append(StoredHead(key, epoch, None if is_damaged else seq, floor))
    return heads


# --- pages ----------------------------------------------------------------------------------------------------------

# The strips of one page. The recursion finds each next strip by the index, so that no other strip is read. It stops
# when the strips have enough events or bytes; 96 bytes of each event are not counted, for its numbers and ids. If there
# is no strip after :after, the page comes from `loose`.
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
        (SELECT group_concat(events) FROM loose WHERE instr(events, :mark))),
        (SELECT min(seq) FROM damaged WHERE session = here.n AND seq > here.after)
    FROM here"""
# The floor of a session, and the commits in `loose` that may have events of the session.
LOOSE_OF_SESSION = """
    SELECT floor, (SELECT group_concat(events) FROM loose WHERE instr(events, :mark))
    FROM sessions WHERE id = :session"""


class PageRow(NamedTuple):
    """The row of PAGE. The page starts after *after*. *damaged_seq* is the first seq of the next damaged part."""

    epoch: str
    after: int
    strips: str | None
    commits: str | None
    damaged_seq: int | None


def read_page(db: sqlite3.Connection, session: Key, after: int, upto: int, limit: int, max_bytes: int) -> list[Event]:
    """Return at most *limit* events with after < seq <= upto. The event that reaches *max_bytes* is the last one.

    A page ends before a missing event. Raises UnreadableEvents if the page would begin with a missing event, or if its
    rows cannot be decoded.
    """
    values = {"session": session, "after": after, "upto": upto, "rows": limit, "bytes": max_bytes}
    fields = fetch_row(db, PAGE, values | {"mark": make_session_mark(session)})
    if fields is None:
        return []
    page = PageRow(*fields)
    after = page.after
    is_from_loose = page.strips is None
    rows: list[EventRow] = []
    source = decode_commit_rows(session, page.commits) if is_from_loose else decode_strip_rows(page.strips)
    size = _add_rows(rows, source, after, upto, max_bytes)
    last = rows[-1][0] if rows else upto
    if not is_from_loose and last < upto and len(rows) < limit and size < max_bytes:
        _add_loose_rows(db, session, rows, last, upto, max_bytes - size)
    if not rows:
        if page.damaged_seq is not None and (page.damaged_seq <= upto or page.damaged_seq == UNKNOWN_SEQ):
            raise UnreadableEvents(f"the log is malformed: the events of session {session} after {after} are missing")
    elif rows[-1][0] - after != len(rows):
        rows = _end_at_gap(session, rows, after)
    return to_events(session, page.epoch, rows[:limit])


def _add_rows(rows: list[EventRow], source: Iterable[EventRow], after: int, upto: int, max_bytes: int) -> int:
    """Append the rows of *source* with after < seq <= upto, until they have *max_bytes*. Return their size."""
    size = 0
    for row in source:
        if after < row[0] <= upto and size < max_bytes:
            rows.append(row)
            content = row[-1]
            size += len(content) if content.isascii() else len(content.encode())
    return size


def _add_loose_rows(
    db: sqlite3.Connection, session: Key, rows: list[EventRow], last: int, upto: int, max_bytes: int
) -> None:
    """Append rows of `loose` to a page that ends with the last strip; *last* is the last seq of the page.

    If the writer moved the next events to `strips` after the page was read, appends nothing: the next page has them.
    """
    values = {"session": session, "mark": make_session_mark(session)}
    _, commits = fetch_row(db, LOOSE_OF_SESSION, values) or (0, None)
    try:
        loose_rows = decode_commit_rows(session, commits)
    except UnreadableEvents:  # the next page raises this error
        return
    if loose_rows and loose_rows[0][0] <= last + 1:
        _add_rows(rows, loose_rows, last, upto, max_bytes)


def _end_at_gap(session: Key, rows: list[EventRow], after: int) -> list[EventRow]:
    """Return the rows before the first missing seq. Raises UnreadableEvents if there are no such rows."""
    for index, row in enumerate(rows):
        if row[0] != after + 1 + index:
            if not index:
                missing = f"{after + 1} to {row[0] - 1}"
                raise UnreadableEvents(f"the log is malformed: the events {missing} of session {session} are missing")
            return rows[:index]
    return rows


# --- one message ----------------------------------------------------------------------------------------------------

# The last 8 strips up to the strip with the event :seq - 1.
STRIPS_BEFORE = """
    WITH here AS (SELECT n FROM sessions WHERE id = :session)
    SELECT group_concat(events) FROM (
        SELECT events FROM strips WHERE session = (SELECT n FROM here) AND seq < :seq AND upto <= coalesce(
            (SELECT min(upto) FROM strips WHERE session = (SELECT n FROM here) AND upto >= :seq - 1), :seq)
        ORDER BY upto DESC LIMIT 8)"""


def find_streamed_message(db: sqlite3.Connection, session: Key, run: str, seq: int) -> tuple[str, str] | None:
    """Return the result of EventStore.find_message_before(). Raises UnreadableEvents."""
    message, texts = None, []
    db.execute("BEGIN")  # all statements must read the same state of `loose` and `strips`
    try:
        for _, _, kind, _, event_run, event_message, _, content in _read_backwards(db, session, seq):
            if event_run != run:
                continue
            if kind == "run_started" or (message is None and kind != "stream"):
                break
            message = message or event_message
            if kind == "stream" and event_message == message:
                texts.append(content)
    finally:
        db.execute("ROLLBACK")
    return None if message is None else (message, "".join(reversed(texts)))


def _read_backwards(db: sqlite3.Connection, session: Key, seq: int) -> Iterator[EventRow]:
    """Yield the events with floor < seq < *seq*, the latest first.

    Raises UnreadableEvents at a gap, or if a row cannot be decoded.
    """
    values = {"session": session, "mark": make_session_mark(session)}
    session_row = fetch_row(db, LOOSE_OF_SESSION, values)
    if session_row is None:
        return
    floor, commits = session_row
    rows = decode_commit_rows(session, commits)
    while True:
        for row in reversed(rows):
            if floor < row[0] < seq:
                if row[0] != seq - 1:
                    missing = f"{row[0] + 1} to {seq - 1}"
                    raise UnreadableEvents(
                        f"the log is malformed: the events {missing} of session {session} are missing"
                    )
                seq = row[0]
                yield row
        if seq - 1 <= floor:
            return
        (strips,) = fetch_row(db, STRIPS_BEFORE, values | {"seq": seq})
        rows = sorted(decode_strip_rows(strips))
        if not rows or rows[0][0] >= seq:
            raise UnreadableEvents(f"the log is malformed: the events of session {session} before {seq} are missing")
