"""Move events from the table `loose` (one row for each commit) to the table `strips` (each row of one session).

A commit writes the events of all its sessions as one row of `loose`: that is the cheapest write. A reader of one
session has to search all rows of `loose`, so the writer moves them to `strips` before there are many. A row of `strips`
has up to STRIP_EVENTS consecutive events of one session, and an index finds the row by session and seq.

Measured with 400 sessions: an event costs the writer thread 27,000 instructions with both tables, and 31,000 with one
table that has a row and an index entry for each event.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import Raw

from hub.limits import KiB, MiB
from hub.storage.sqlite.event_rows import UnreadableEvents, decode_commits, join_rows, to_json
from hub.storage.sqlite.sql import insert_rows, query_json

STEP_COMMITS, STEP_BYTES = 4096, 4 * MiB  # a step of the move ends with the commit that reaches one of these limits
STRIP_EVENTS = 256
STRIP_BYTES = 64 * KiB  # a strip ends with the event that reaches this size

# Selects the oldest rows of `loose`, enough for one step. Returns the number of the last of them, and their events.
OLDEST_LOOSE = """
    WITH some AS (SELECT n, sum(size) OVER (ORDER BY n) AS total FROM loose ORDER BY n LIMIT :commits)
    SELECT max(n), group_concat(events) FROM (
        SELECT n, events FROM loose WHERE n <= coalesce(
            (SELECT min(n) FROM some WHERE total >= :bytes), (SELECT max(n) FROM some)) ORDER BY n)"""


def move_to_strips(db: sqlite3.Connection) -> None:
    """Move all rows of `loose` to `strips`. Call this in a transaction.

    Raises UnreadableEvents if a row cannot be decoded. Then all rows of the same step and all later rows are still in
    `loose`.
    """
    while True:
        upto, commits = fetch_row(db, OLDEST_LOOSE, {"commits": STEP_COMMITS, "bytes": STEP_BYTES})
        if upto is None:
            return
        write_strips(db, commits)
        db.execute("DELETE FROM loose WHERE n <= ?", (upto,))


def fetch_row(db: sqlite3.Connection, statement: str, values: dict[str, Any]) -> Any:
    """Return the first row of a query, or None. Raises UnreadableEvents if a text in the row is not UTF-8."""
    try:
        return db.execute(statement, values).fetchone()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        raise UnreadableEvents("the log is malformed: some bytes are not UTF-8") from None


class EventBlock(NamedTuple):
    """Consecutive events of one session: the seq of the first event, and the JSON and the time (ms) of each event."""

    first_seq: int
    rows: list[Raw]
    times: list[int]


class Strip(NamedTuple):
    """A row of `strips` without its session: *seq* to *upto* are its seqs, *ts* the latest time, *size* is in bytes."""

    seq: int
    upto: int
    ts: int
    size: int
    events: str


def write_strips(db: sqlite3.Connection, commits: str) -> None:
    """Insert the events of *commits* into `strips`. Call this in a transaction.

    *commits* has the JSON of each commit, joined by commas. Skips the events of sessions that do not exist. Raises
    UnreadableEvents.
    """
    blocks = _group_by_session(commits)
    statement = "SELECT json_group_object(id, n) FROM sessions WHERE id IN (SELECT value FROM json_each(?))"
    numbers: dict[str, int] = query_json(db, statement, (to_json([*blocks]),))
    values: list[Any] = []
    for session, number in numbers.items():
        for block in blocks[session]:
            for strip in _split(block):
                values += (number, *strip)
    insert_rows(db, "strips", values)


def _group_by_session(commits: str) -> dict[str, list[EventBlock]]:
    """Return the events of each session. Where events are missing, because they were damaged, a new block begins."""
    blocks: dict[str, list[EventBlock]] = {}
    for commit in decode_commits(commits):
        for session, seq, ts, events in commit:
            session_blocks = blocks.setdefault(session, [])
            if not session_blocks or seq != session_blocks[-1].first_seq + len(session_blocks[-1].rows):
                session_blocks.append(EventBlock(seq, [], []))
            _, rows, times = session_blocks[-1]
            rows += events
            times += [ts] * len(events)
    return blocks


def _split(block: EventBlock) -> Iterator[Strip]:
    """Yield the strips of a block. Each but the last ends with the event that reaches STRIP_EVENTS or STRIP_BYTES."""
    rows = block.rows
    start = 0
    if len(rows) > STRIP_EVENTS or sum(map(len, rows)) >= STRIP_BYTES:
        size = 0
        for end, row in enumerate(rows[:-1], 1):
            size += len(row)
            if end - start == STRIP_EVENTS or size >= STRIP_BYTES:
                yield _make_strip(block, start, end)
                start, size = end, 0
    yield _make_strip(block, start, len(rows))


def _make_strip(block: EventBlock, start: int, end: int) -> Strip:
    text = join_rows(block.rows[start:end])
    first = block.first_seq
    return Strip(first + start, first + end - 1, max(block.times[start:end]), len(text), text.decode())
