"""Events that cannot be read are set aside, so that a damaged row harms only the sessions whose events it has.

What lies loose is moved into strips again and again; a row that cannot be read would stop that for all. So it is taken
apart, as far as the beginnings of its pieces can be found: those that are sound stay, the others go into the table
`damaged`. A session with a damaged piece behind its last sound event has no known head: it takes nothing more.
"""

import json
import re
import sqlite3
from collections.abc import Iterator

import msgspec
import structlog

from hub.ids import ID_PATTERN, Key
from hub.storage.sqlite import strips

# How the piece of a session begins in a commit (see strips.Commit): its key, and its first seq. Nothing else begins so:
# in what was said each quote comes after a backslash.
PIECE = re.compile(rb'\["((?:%b/)?%b)",(?:([0-9]+),)?' % (ID_PATTERN.encode(), ID_PATTERN.encode()))

DAMAGED = "INSERT INTO damaged (session, seq, events) VALUES ((SELECT n FROM sessions WHERE id = ?), ?, ?)"

_commit = msgspec.json.Decoder(strips.Commit).decode
_scan = json.JSONDecoder().raw_decode

_log = structlog.get_logger("hub.storage.sqlite.log")


def place(db: sqlite3.Connection) -> None:
    """Move all that lies loose into strips, but for what cannot be read; within a transaction of the caller's."""
    try:
        strips.place(db)
    except strips.Damaged:
        _set_aside(db)
        strips.place(db)


def _set_aside(db: sqlite3.Connection) -> None:
    """Take each row of `loose` apart that cannot be read."""
    for n, text in db.execute("SELECT n, CAST(events AS BLOB) FROM loose ORDER BY n").fetchall():
        if _is_sound(text):
            continue
        sound: list[bytes] = []
        sessions: list[str] = []
        for key, seq, piece in pieces(text):
            whole = _whole(piece) if key is not None else b""
            sound += [whole] if whole else []
            rest = piece[len(whole) :].strip(b",]") if whole else piece
            if rest:
                key = None if whole else key
                sessions.append(key or "unknown")
                db.execute(DAMAGED, (key, seq, rest))
        _log.error("log_damaged", row=n, sessions=sessions, advice="hubbub check names what is damaged")
        if sound:
            db.execute("UPDATE loose SET events = ? WHERE n = ?", ((b"[%b]" % b",".join(sound)).decode(), n))
        else:
            db.execute("DELETE FROM loose WHERE n = ?", (n,))


def pieces(text: bytes) -> Iterator[tuple[Key | None, int | None, bytes]]:
    """Yield the key, the first seq and the text of each piece of a commit; None for what begins as no piece does."""
    marks = list(PIECE.finditer(text))
    start = marks[0].start() if marks else len(text)
    if start > 1:  # more than the bracket
        yield None, None, text[:start]
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)]):
        yield Key(mark[1].decode()), int(mark[2] or strips.NOWHERE), text[mark.start() : end]


def _whole(piece: bytes) -> bytes:
    """Return a sound piece without what follows it, or nothing where it is damaged."""
    try:
        text = piece.decode(errors="surrogateescape")
        whole = text[: _scan(text)[1]].encode()
    except ValueError:
        return b""
    return whole if _is_sound(b"[%b]" % whole) else b""


def _is_sound(text: bytes) -> bool:
    try:
        text.decode()  # of which the decoder checks only what it reads
        return all(events for *_, events in _commit(text))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
