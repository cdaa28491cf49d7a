"""Set damaged events aside, so that they harm no session but their own.

The writer moves all rows of `loose` to `strips` again and again, and a row that cannot be string would stop that for
all sessions. So such a row is split into its parts, one for each session. Sound parts stay; damaged ones go to the
table `damaged`. If a damaged part comes after the last sound event of a session, the session's head is unknown, and
the log refuses further appends to it.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import structlog

from hub.ids import ID_PATTERN, Key
from hub.storage.sqlite.event_reading import UNKNOWN_SEQ
from hub.storage.sqlite.event_rows import StoredCommit, UnreadableEvents
from hub.storage.sqlite.strips import move_to_strips

# The begin of a part (see StoredCommit): the session's key and the first seq. The text of an event cannot match it,
# because JSON puts a backslash before each quote.
PART_START = re.compile(rb'\["((?:%b/)?%b)",(?:([0-9]+),)?' % (ID_PATTERN.encode(), ID_PATTERN.encode()))

_decode_commit = msgspec.json.Decoder(StoredCommit).decode
_scan_json = json.JSONDecoder().raw_decode

_log = structlog.get_logger("hub.storage.sqlite.log")


class CommitPart(NamedTuple):
    """The bytes of one session's events in a commit; key and seq are None if the bytes do not begin as a part does."""

    key: Key | None
    seq: int | None
    text: bytes


def move_sound_to_strips(db: sqlite3.Connection) -> None:
    """Move all rows of `loose` to `strips`, and damaged parts to `damaged`, in the caller's transaction."""
    try:
        move_to_strips(db)
    except UnreadableEvents:
        _set_damaged_aside(db)
        move_to_strips(db)


def _set_damaged_aside(db: sqlite3.Connection) -> None:
    for n, text in db.execute("SELECT n, CAST(events AS BLOB) FROM loose ORDER BY n").fetchall():
        if _is_sound(text):
            continue
        sound, damaged_parts = _sort_parts(text)
        for part in damaged_parts:
            statement = (
                "INSERT INTO damaged (session, seq, events) VALUES ((SELECT n FROM sessions WHERE id = ?), ?, ?)"
            )
            db.execute(statement, part)
        sessions = [part.key or "unknown" for part in damaged_parts]
        _log.error("log_damaged", row=n, sessions=sessions, advice="hubbub check names what is damaged")
        if sound:
            db.execute("UPDATE loose SET events = ? WHERE n = ?", ((b"[%b]" % b",".join(sound)).decode(), n))
        else:
            db.execute("DELETE FROM loose WHERE n = ?", (n,))


def _sort_parts(text: bytes) -> tuple[list[bytes], list[CommitPart]]:
    """Return the sound parts of a commit, and the damaged ones."""
    sound: list[bytes] = []
    damaged_parts: list[CommitPart] = []
    for part in split_commit(text):
        sound_text = _read_sound_part(part.text) if part.key is not None else b""
        if not sound_text:
            damaged_parts.append(part)
            continue
        sound.append(sound_text)
        rest = part.text[len(sound_text) :].strip(b",]")
        if rest:  # its session is not known
            damaged_parts.append(CommitPart(None, part.seq, rest))
    return sound, damaged_parts


def split_commit(text: bytes) -> Iterator[CommitPart]:
    """Yield the parts of a commit whose JSON is damaged."""
    marks = list(PART_START.finditer(text))
    start = marks[0].start() if marks else len(text)
    if start > 1:  # more than the opening bracket
        yield CommitPart(None, None, text[:start])
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)]):
        yield CommitPart(Key(mark[1].decode()), int(mark[2] or UNKNOWN_SEQ), text[mark.start() : end])


def _read_sound_part(text: bytes) -> bytes:
    """Return the JSON array at the begin of *text*; empty if it is damaged."""
    try:
        string = text.decode(errors="surrogateescape")
        array = string[: _scan_json(string)[1]].encode()
    except ValueError:
        return b""
    return array if _is_sound(b"[%b]" % array) else b""


def _is_sound(text: bytes) -> bool:
    try:
        text.decode()  # the decoder checks UTF-8 only in the values that it decodes
        return all(events for *_, events in _decode_commit(text))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
