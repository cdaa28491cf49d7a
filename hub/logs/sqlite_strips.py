"""How events lie in the embedded log: loose at first, as they were committed, and later in strips, each of one session.

What one commit brings is one row of JSON, and so is a strip of a session's events: with rows of its own, and an index
by session, an event of 400 sessions took the thread that writes 31,000 instructions, now it takes 24,000. SQLite only
looks for rows; what they say is read here, as its versions differ on NUL in JSON.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from hub.logs import sqlite_schema as sql
from hub.messages import BODIES, Chunk, Event

LOOSE_MOST = 4096  # commits that are placed in one go
STRIP_EVENTS = 256
STRIP_BYTES = 64 * 1024  # a strip ends with the event that passes it

# seq, ts, type, agent, run, message, offset, and a chunk's text; of other events the whole body as JSON.
Row = tuple[int, int, str, str | None, str | None, str | None, int | None, str]
Said = list[tuple[str, int, int, list[Row]]]  # by one commit: session, first seq, ts, events

Text = TypeVar("Text", str, bytes)
Found = TypeVar("Found")

_encode = msgspec.json.Encoder().encode
_decode = {name: msgspec.json.Decoder(kind).decode for name, kind in BODIES.items()}
_strips: Callable[[str], list[list[Row]]] = msgspec.json.Decoder(list[list[Row]]).decode
_rows: Callable[[bytes], list[Row]] = msgspec.json.Decoder(list[Row]).decode
_commits: Callable[[str], list[list[tuple[str, int, int, list[Raw]]]]] = msgspec.json.Decoder(
    list[list[tuple[str, int, int, list[Raw]]]]
).decode


def to_json(fact: Any) -> str:
    return _encode(fact).decode()


def as_loose(session: str, seq: int, ts: int, *more: Any) -> str:
    """Return one event as a commit; the statement that brings an older file up to date calls it."""
    return to_json([(session, seq, ts, [(seq, ts, *more)])])


def to_events(session: str, epoch: str, rows: Iterable[Row]) -> list[Event]:
    events = []
    for seq, ts, kind, agent, run, message, offset, content in rows:
        body = Chunk(message, content, offset) if kind == "stream" else _decode[kind](content)  # type: ignore[arg-type]
        events.append(Event(agent, run, body, session, epoch, seq, ts))
    return events


# --- writing --------------------------------------------------------------------------------------------------------


def place(db: sqlite3.Connection) -> None:
    """Move all that lies loose into strips; within a transaction of the caller's."""
    while True:
        upto, loose = db.execute(sql.LOOSE, {"most": LOOSE_MOST}).fetchone()
        if upto is None:
            return
        said: dict[str, list[Raw]] = {}
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for commit in _sound(_commits, f"[{loose}]"):
            for session, seq, ts, events in commit:
                if session in said:
                    said[session] += events
                else:
                    said[session], first[session] = events, seq
                last[session] = ts
        numbers: dict[str, int] = sql.one(db, sql.NUMBERS, (to_json([*said]),))
        values: list[Any] = []
        for session, number in numbers.items():
            for strip in _pieces(said[session], first[session], last[session]):
                values += (number, *strip)
        sql.insert(db, "strips", values)
        db.execute(sql.PLACED, (upto,))


def _pieces(events: list[Raw], seq: int, ts: int) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield the first and the last seq, the ts, the size and the text of each strip; *ts* is the last event's."""
    start = 0
    if len(events) > STRIP_EVENTS or sum(map(len, events)) >= STRIP_BYTES:
        size = 0
        for end, event in enumerate(events[:-1], 1):
            size += len(event)
            if end - start == STRIP_EVENTS or size >= STRIP_BYTES:
                yield _strip(seq + start, _read((event,))[0][1], events[start:end])
                start, size = end, 0
    yield _strip(seq + start, ts, events[start:])


def _strip(seq: int, ts: int, events: list[Raw]) -> tuple[int, int, int, int, str]:
    text = _array(events)
    return seq, seq + len(events) - 1, ts, len(text), text.decode()


# --- reading --------------------------------------------------------------------------------------------------------


def heads(db: sqlite3.Connection, sessions: Sequence[str]) -> list[tuple[str, str, int, int]]:
    """Return (session, epoch, seq, floor) of those that there are."""
    mark = _mark(sessions[0]) if len(sessions) == 1 else ""
    known, loose = db.execute(sql.HEADS, {"sessions": to_json(sessions), "mark": mark}).fetchone()
    commits = _sound(_commits, f"[{loose or ''}]")
    late = {session: seq + len(events) - 1 for commit in commits for session, seq, _, events in commit}
    return [
        (session, epoch, late.get(session, seq), floor) for session, epoch, seq, floor in msgspec.json.decode(known)
    ]


def page(db: sqlite3.Connection, session: str, after: int, upto: int, rows: int, size: int) -> list[Event]:
    """Return what comes after *after*, to *upto*: *rows* at most, and little past *size* bytes of text."""
    asked = {"session": session, "after": after, "upto": upto, "rows": rows, "bytes": size, "mark": _mark(session)}
    found = db.execute(sql.PAGE, asked).fetchone()
    if found is None:
        return []
    epoch, after, placed, loose = found
    if placed is not None:
        said = [row for row in _placed(placed) if after < row[0] <= upto]
    else:
        said, held = [], 0
        for row in _late(session, loose):
            if after < row[0] <= upto and held < size:
                said.append(row)
                held += len(row[-1].encode())
    return to_events(session, epoch, said[:rows])


def message_before(db: sqlite3.Connection, session: str, run: str, seq: int) -> tuple[str, str] | None:
    """Return (messageId, content) of the streamed message that the run's event *seq* ends, or None."""
    message, texts = None, []
    for _, _, kind, _, its, of, _, content in _back(db, session, seq):
        if its != run:
            continue
        if kind == "run_started" or (message is None and kind != "stream"):
            break
        message = message or of
        if kind == "stream" and of == message:
            texts.append(content)
    return None if message is None else (message, "".join(reversed(texts)))


def _back(db: sqlite3.Connection, session: str, seq: int) -> Iterator[Row]:
    """Read backwards from before *seq*; what lies loose first, which may be in a strip by the time that is read."""
    asked = {"session": session, "mark": _mark(session)}
    (loose,) = db.execute(sql.SAID_LATE, asked).fetchone()
    said = _late(session, loose)
    while True:
        for row in reversed(said):
            if row[0] < seq:
                yield row
                seq = row[0]
        (placed,) = db.execute(sql.SAID, asked | {"seq": seq}).fetchone()
        if placed is None:
            return
        said = sorted(_placed(placed))


def _mark(session: str) -> str:
    """Return what is in the text of every commit in which the session said something."""
    return f"[{to_json(session)},"


def _late(session: str, loose: str | None) -> list[Row]:
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
        raise sqlite3.DatabaseError(f"database disk image is malformed: {error}") from None


def _array(events: Sequence[Raw]) -> bytes:
    return b"[" + b",".join(events) + b"]"
