"""Move damaged events to the table `damaged`, so that they affect only their own session.

The writer regularly moves all rows of `loose` to `strips`. A row that cannot be decoded would stop these moves for all
sessions. So this module splits the row into its parts, one for each session. Sound parts stay in `loose`; damaged parts
are moved to `damaged`. If a damaged part comes after the last sound event of a session, the session's head is unknown:
the log refuses appends to the session.
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
from hub.storage.sqlite.event_rows import StoredCommit, UnreadableEvents, join_rows
from hub.storage.sqlite.strips import move_to_strips

# The start of a part (see StoredCommit): the session's key and the first seq. The text of an event cannot match this
# pattern, because JSON puts a backslash before each quote.
PART_START = re.compile(rb'\["((?:%b/)?%b)",(?:([0-9]+),)?' % (ID_PATTERN.encode(), ID_PATTERN.encode()))

_decode_commit = msgspec.json.Decoder(StoredCommit).decode
_scan_json = json.JSONDecoder().raw_decode

_log = structlog.get_logger("hub.storage.sqlite.log")


INSERT_DAMAGED = "INSERT INTO damaged (session, seq, events) VALUES ((SELECT n FROM sessions WHERE id = ?), ?, ?)"


class CommitPart(NamedTuple):
    """The bytes of one session's part of a commit.

    *key* is None if it cannot be read. *seq* is the seq of the first event: UNKNOWN_SEQ if only the key can be read,
    and None if neither can be read. Text after a sound part is a part without a key, with the seq of the sound part.
    """

    key: Key | None
    seq: int | None
    text: bytes


def move_all_to_strips(db: sqlite3.Connection) -> None:
    """Move all rows of `loose` to `strips`, but damaged parts to `damaged`. Call this in a transaction."""
    try:
        move_to_strips(db)
    except UnreadableEvents:
        _move_damaged_parts(db)
        move_to_strips(db)


def _move_damaged_parts(db: sqlite3.Connection) -> None:
    """Move the damaged parts of all rows of `loose` to `damaged`."""
    for n, text in db.execute("SELECT n, CAST(events AS BLOB) FROM loose ORDER BY n").fetchall():
        if _is_sound(text):
            continue
        sound_texts, damaged_parts = _sort_parts(text)
        for part in damaged_parts:
            db.execute(INSERT_DAMAGED, part)
        sessions = [part.key or "unknown" for part in damaged_parts]
        _log.error("log_damaged", row=n, sessions=sessions, advice="hubbub check names what is damaged")
        if sound_texts:
            db.execute("UPDATE loose SET events = ? WHERE n = ?", (join_rows(sound_texts).decode(), n))
        else:
            db.execute("DELETE FROM loose WHERE n = ?", (n,))


def _sort_parts(text: bytes) -> tuple[list[bytes], list[CommitPart]]:
    """Return the JSON of the sound parts of a commit, and the damaged parts."""
    sound_texts: list[bytes] = []
    damaged_parts: list[CommitPart] = []
    for part in split_commit(text):
        sound_text = _read_sound_part(part.text) if part.key is not None else b""
        if not sound_text:
            damaged_parts.append(part)
            continue
        sound_texts.append(sound_text)
        rest = part.text[len(sound_text) :].strip(b",]")
        if rest:  # the session of the rest is unknown
            damaged_parts.append(CommitPart(None, part.seq, rest))
    return sound_texts, damaged_parts


def split_commit(text: bytes) -> Iterator[CommitPart]:
    """Yield the parts of a damaged commit, sound or not, in their order."""
    marks = list(PART_START.finditer(text))
    start = marks[0].start() if marks else len(text)
    if start > 1:  # there is more than the opening bracket
        yield CommitPart(None, None, text[:start])
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)]):
        yield CommitPart(Key(mark[1].decode()), int(mark[2] or UNKNOWN_SEQ), text[mark.start() : end])


def _read_sound_part(text: bytes) -> bytes:
    """Return the JSON array at the start of *text*; empty if the array is damaged."""
    try:
        string = text.decode(errors="surrogateescape")
        array = string[: _scan_json(string)[1]].encode()
    except ValueError:
        return b""
    return array if _is_sound(b"[%b]" % array) else b""


def _is_sound(text: bytes) -> bool:
    """Return True if *text* is a StoredCommit in UTF-8, and each of its parts has events."""
    try:
        text.decode()  # the decoder checks UTF-8 only in the values that it decodes
        return all(events for *_, events in _decode_commit(text))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
