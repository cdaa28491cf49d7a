"""How events lie in the embedded log: loose at first, as they were committed, and later in strips, each of one session.

What one commit brings is one row of JSON, and so is a strip of a session's events: with rows of its own, and an index
by session, an event of 400 sessions took the thread that writes 31,000 instructions, now it takes 27,000. SQLite only
looks for rows; what they say is read here, as its versions differ on NUL in JSON.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from hub.ids import Key, id_of
from hub.limits import KiB, MiB
from hub.messages import BODIES, Body, Chunk, Event
from hub.storage.sqlite import statements as sql

PLACED_COMMITS, PLACED_BYTES = 4096, 4 * MiB  # placed in one go; the commit that passes the bytes is the last
NOWHERE = 10**15  # the seq of a damaged piece whose own cannot be read: behind every event
STRIP_EVENTS = 256
STRIP_BYTES = 64 * KiB  # a strip ends with the event that passes it

# Where sessions stand by their strips, the last place at which a damaged piece begins, and the commits in which they
# are, by which they may stand further on; those are not looked for where all sessions are new. A mark is in the text of
# each commit of its session.
HEADS = """
    SELECT json_group_array(json_array(
        id, epoch, coalesce((SELECT max(upto) FROM strips WHERE session = sessions.n), floor), floor,
        (SELECT max(seq) FROM damaged WHERE session = sessions.n))),
        iif(count(*), (SELECT group_concat(events) FROM loose
            WHERE EXISTS (SELECT 1 FROM json_each(:marks) WHERE instr(events, value))), NULL)
    FROM sessions WHERE id IN (SELECT value FROM json_each(:sessions))"""
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
        (SELECT group_concat(events) FROM loose WHERE instr(events, :mark))),
        (SELECT min(seq) FROM damaged WHERE session = here.n AND seq > here.after)
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

# seq, ts, type, agent, run, message, offset, and a chunk's text; of other events the whole body as JSON.
Row = tuple[int, int, str, str | None, str | None, str | None, int | None, str]
Said = list[tuple[str, int, int, list[Row]]]  # by one commit: session, first seq, ts, events
Commit = list[tuple[str, int, int, list[Raw]]]  # the same, as it comes back

Text = TypeVar("Text", str, bytes)
Found = TypeVar("Found")

_decode: dict[str, Callable[[str], Body]] = {name: msgspec.json.Decoder(kind).decode for name, kind in BODIES.items()}
_strips: Callable[[str], list[list[Row]]] = msgspec.json.Decoder(list[list[Row]]).decode
_rows: Callable[[bytes], list[Row]] = msgspec.json.Decoder(list[Row]).decode
_commits: Callable[[str], list[Commit]] = msgspec.json.Decoder(list[Commit]).decode


class Damaged(sqlite3.DataError):
    """A row of events cannot be read, and others can."""


encode = msgspec.json.Encoder().encode


def to_json(fact: Any) -> str:
    return encode(fact).decode()


def as_loose(session: str, seq: int, ts: int, *more: Any) -> str:
    """Return one event as a commit; the statement that brings an older file up to date calls it."""
    return to_json([(session, seq, ts, [(seq, ts, *more)])])


def to_events(session: Key, epoch: str, rows: Iterable[Row]) -> list[Event]:
    events, name = [], id_of(session)
    for seq, ts, kind, agent, run, message, offset, content in rows:
        if kind == "stream":
            body: Body = Chunk(message, content, offset)  # type: ignore[arg-type]
        elif kind in _decode:
            body = _sound(_decode[kind], content)
        else:
            raise Damaged(f"{session} {seq} is of no kind of event: {kind}")
        events.append(Event(agent, run, body, name, epoch, seq, ts))
    return events


# --- writing --------------------------------------------------------------------------------------------------------


def place(db: sqlite3.Connection) -> None:
    """Move all that lies loose into strips; within a transaction of the caller's.

    Raises Damaged where a commit cannot be read; what is not moved by then stays loose, with all that came after it.
    """
    while True:
        upto, loose = _fetch(db, LOOSE, {"most": PLACED_COMMITS, "bytes": PLACED_BYTES})
        if upto is None:
            return
        store(db, loose)
        db.execute(PLACED, (upto,))


def store(db: sqlite3.Connection, commits: str) -> None:
    """Write what commits say, side by side, into strips; in the caller's transaction. Raises Damaged."""
    said: dict[str, list[tuple[int, list[Raw], list[int]]]] = {}
    for commit in _sound(_commits, f"[{commits}]"):
        for session, seq, ts, events in commit:
            runs = said.setdefault(session, [])
            if not runs or seq != runs[-1][0] + len(runs[-1][1]):  # what lay between was damaged, and is set aside
                runs.append((seq, [], []))
            _, lines, stamps = runs[-1]
            lines += events
            stamps += [ts] * len(events)
    numbers: dict[str, int] = sql.one(db, NUMBERS, (to_json([*said]),))
    values: list[Any] = []
    for session, number in numbers.items():
        for run in said[session]:
            for strip in _pieces(*run):
                values += (number, *strip)
    sql.insert(db, "strips", values)


def _pieces(seq: int, lines: list[Raw], stamps: list[int]) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield the first and the last seq, the latest ts, the size and the text of each strip."""
    start = 0
    if len(lines) > STRIP_EVENTS or sum(map(len, lines)) >= STRIP_BYTES:
        size = 0
        for end, line in enumerate(lines[:-1], 1):
            size += len(line)
            if end - start == STRIP_EVENTS or size >= STRIP_BYTES:
                yield _strip(seq + start, lines[start:end], max(stamps[start:end]))
                start, size = end, 0
    yield _strip(seq + start, lines[start:], max(stamps[start:]))


def _strip(seq: int, lines: list[Raw], ts: int) -> tuple[int, int, int, int, str]:
    text = _array(lines)
    return seq, seq + len(lines) - 1, ts, len(text), text.decode()


# --- reading --------------------------------------------------------------------------------------------------------


def heads(db: sqlite3.Connection, sessions: Sequence[Key]) -> list[tuple[Key, str, int | None, int]]:
    """Return (session, epoch, seq, floor) of those that there are; the seq is None where damage hides it."""
    values = {"sessions": to_json(sessions), "marks": to_json([_mark(session) for session in sessions])}
    known, loose = _fetch(db, HEADS, values)
    commits = _sound(_commits, f"[{loose or ''}]")
    late = {session: seq + len(events) - 1 for commit in commits for session, seq, _, events in commit}
    found = []
    for session, epoch, seq, floor, damaged in msgspec.json.decode(known):
        seq = late.get(session, seq)
        found.append((session, epoch, None if damaged is not None and damaged > seq else seq, floor))
    return found


def page(db: sqlite3.Connection, session: Key, after: int, upto: int, rows: int, size: int) -> list[Event]:
    """Return what comes after *after*, to *upto*: *rows* at most, and nothing after what passes *size* bytes."""
    asked = {"session": session, "after": after, "upto": upto, "rows": rows, "bytes": size, "mark": _mark(session)}
    found = _fetch(db, PAGE, asked)
    if found is None:
        return []
    epoch, after, placed, loose, damaged = found
    said: list[Row] = []
    held = _take(said, _late(session, loose) if placed is None else _placed(placed), after, upto, size)
    last = said[-1][0] if said else upto
    if placed is not None and last < upto and len(said) < rows and held < size:
        # The page would end where the strips do. What was placed since then is not loose any more, and is left out.
        _, loose = _fetch(db, BACK_LATE, asked) or (0, None)
        try:
            late = _late(session, loose)
        except Damaged:  # the next page says so
            late = []
        if late and late[0][0] <= last + 1:
            _take(said, late, last, upto, size - held)
    if not said:
        if damaged is not None and (damaged <= upto or damaged == NOWHERE):
            raise Damaged(f"the log is malformed: {session} lacks its events after {after}")
    elif said[-1][0] - after != len(said):
        said = _dense(session, said, after)
    return to_events(session, epoch, said[:rows])


def _dense(session: Key, said: list[Row], after: int) -> list[Row]:
    """Return the rows that follow *after* without a gap; raises Damaged where there is none."""
    for count, row in enumerate(said):
        if row[0] != after + 1 + count:
            if not count:
                raise Damaged(f"the log is malformed: {session} lacks its events {after + 1} to {row[0] - 1}")
            return said[:count]
    return said


def _take(said: list[Row], rows: Iterable[Row], after: int, upto: int, size: int) -> int:
    """Add the rows after *after*, to *upto*, but none after what passes *size* bytes; return the bytes."""
    held = 0
    for row in rows:
        if after < row[0] <= upto and held < size:
            said.append(row)
            content = row[-1]
            held += len(content) if content.isascii() else len(content.encode())
    return held


def find_message_before(db: sqlite3.Connection, session: Key, run: str, seq: int) -> tuple[str, str] | None:
    """Return (messageId, content) of the streamed message that the run's event *seq* ends, or None."""
    message, texts = None, []
    db.execute("BEGIN")  # one view of what lies loose and of the strips
    try:
        for _, _, kind, _, its, of, _, content in _back(db, session, seq):
            if its != run:
                continue
            if kind == "run_started" or (message is None and kind != "stream"):
                break
            message = message or of
            if kind == "stream" and of == message:
                texts.append(content)
    finally:
        db.execute("ROLLBACK")
    return None if message is None else (message, "".join(reversed(texts)))


def _back(db: sqlite3.Connection, session: Key, seq: int) -> Iterator[Row]:
    """Read backwards from before *seq* to the floor."""
    asked = {"session": session, "mark": _mark(session)}
    late = _fetch(db, BACK_LATE, asked)
    if late is None:
        return
    floor, loose = late
    said = _late(session, loose)
    while True:
        for row in reversed(said):
            if floor < row[0] < seq:
                if row[0] != seq - 1:
                    raise Damaged(f"the log is malformed: {session} lacks its events {row[0] + 1} to {seq - 1}")
                seq = row[0]
                yield row
        if seq - 1 <= floor:
            return
        (placed,) = _fetch(db, BACK, asked | {"seq": seq})
        said = sorted(_placed(placed or ""))
        if not said or said[0][0] >= seq:
            raise Damaged(f"the log is malformed: {session} has nothing before {seq} where it should be")


def _fetch(db: sqlite3.Connection, statement: str, values: dict[str, Any]) -> Any:
    try:
        return db.execute(statement, values).fetchone()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        raise Damaged("the log is malformed: bytes that are no UTF-8") from None


def _mark(session: Key) -> str:
    """Return what is in the text of every commit in which the session said something, and seldom in another's.

    It is in no text that was said, where each quote comes after a backslash.
    """
    return f"[{to_json(session)},"


def _late(session: Key, loose: str | None) -> list[Row]:
    commits = _sound(_commits, f"[{loose or ''}]")
    return _read([event for commit in commits for its, _, _, events in commit if its == session for event in events])


def _placed(strips: str) -> list[Row]:
    return [row for strip in _sound(_strips, f"[{strips}]") for row in strip]


def _read(events: Sequence[Raw]) -> list[Row]:
    return _sound(_rows, _array(events))


def _sound(decode: Callable[[Text], Found], text: Text) -> Found:
    """Decode; damage is said as SQLite would say it."""
    try:
        return decode(text)
    except msgspec.MsgspecError as error:
        raise Damaged(f"the log is malformed: {error}") from None


def _array(lines: Sequence[Raw]) -> bytes:
    return b"[" + b",".join(lines) + b"]"
