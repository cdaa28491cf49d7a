"""The JSON form of events in the tables `loose` and `strips`, and its conversion from and to Event objects.

A row of `loose` holds one commit: the events of each session that took part in it. A row of `strips` holds consecutive
events of one session. SQLite finds these rows, and Python decodes them: the JSON functions of SQLite's versions differ
in how they treat U+0000.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from hub.ids import Key, id_of
from hub.messages import BODIES, Body, Chunk, Event

# One event: seq, ts, type, agent, run, message, offset, content. The content is the text of a chunk; of another event
# it is the body as JSON. The rows are tuples: a NamedTuple takes six times as long to make, once for each event.
EventRow = tuple[int, int, str, str | None, str | None, str | None, int | None, str]
# One commit, with an item for each session: session, first seq, ts, events.
NewCommit = list[tuple[str, int, int, list[EventRow]]]
StoredCommit = list[tuple[str, int, int, list[Raw]]]  # as decoded: each event is still JSON

JsonText = TypeVar("JsonText", str, bytes)
R = TypeVar("R")

encode_json = msgspec.json.Encoder().encode
_body_decoders: dict[str, Callable[[str], Body]] = {
    name: msgspec.json.Decoder(kind).decode for name, kind in BODIES.items()
}
_decode_rows: Callable[[bytes], list[EventRow]] = msgspec.json.Decoder(list[EventRow]).decode
_decode_strips: Callable[[str], list[list[EventRow]]] = msgspec.json.Decoder(list[list[EventRow]]).decode
_decode_commits: Callable[[str], list[StoredCommit]] = msgspec.json.Decoder(list[StoredCommit]).decode


class UnreadableEvents(sqlite3.DataError):
    """A row of events cannot be decoded, or events are missing; other rows may be sound."""


def to_json(value: Any) -> str:
    return encode_json(value).decode()


def event_to_commit(session: str, seq: int, ts: int, *columns: Any) -> str:
    """Return one event as a commit of its own; the migrations call it as the SQL function `as_loose`."""
    return to_json([(session, seq, ts, [(seq, ts, *columns)])])


def session_mark(session: Key) -> str:
    """Return a text that each commit with events of the session contains, to search the table `loose` for.

    The text of an event cannot contain the mark, because JSON puts a backslash before each quote.
    """
    return f"[{to_json(session)},"


def join_rows(rows: Sequence[Raw]) -> bytes:
    """Return the JSON array of rows that are JSON already."""
    return b"[" + b",".join(rows) + b"]"


# The arguments below are the texts of rows, joined by commas as group_concat() does.


def decode_commits(commits: str | None) -> list[StoredCommit]:
    """Decode rows of `loose`. Raises UnreadableEvents."""
    return _decode(_decode_commits, f"[{commits or ''}]")


def decode_commit_rows(session: Key, commits: str | None) -> list[EventRow]:
    """Decode the events of one session from rows of `loose`. Raises UnreadableEvents."""
    rows = [row for commit in decode_commits(commits) for name, _, _, raws in commit if name == session for row in raws]
    return _decode(_decode_rows, join_rows(rows))


def decode_strip_rows(strips: str | None) -> list[EventRow]:
    """Decode the events in rows of `strips`. Raises UnreadableEvents."""
    return [row for strip in _decode(_decode_strips, f"[{strips or ''}]") for row in strip]


def to_events(session: Key, epoch: str, rows: Iterable[EventRow]) -> list[Event]:
    """Raises UnreadableEvents."""
    events, session_id = [], id_of(session)
    for seq, ts, kind, agent, run, message, offset, content in rows:
        if kind == "stream":
            body: Body = Chunk(message, content, offset)  # type: ignore[arg-type]
        elif kind in _body_decoders:
            body = _decode(_body_decoders[kind], content)
        else:
            raise UnreadableEvents(f"event {seq} of session {session} has the unknown type {kind}")
        events.append(Event(agent, run, body, session_id, epoch, seq, ts))
    return events


def _decode(decode: Callable[[JsonText], R], text: JsonText) -> R:
    try:
        return decode(text)
    except msgspec.MsgspecError as error:  # "malformed" is SQLite's word, too: see threads.py
        raise UnreadableEvents(f"the log is malformed: {error}") from None
