"""The JSON of events in the tables `loose` and `strips`, and its conversion to Event objects.

A row of `loose` has one commit: the new events of one or more sessions. A row of `strips` has consecutive events of one
session. SQLite finds these rows, but Python decodes them, because SQLite's versions treat U+0000 in JSON differently.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from hub.ids import Key, id_of
from hub.messages import BODIES, Body, Chunk, Event

# One event: seq, ts, type, agent, run, message, offset, content. The content is the text of a chunk, or the JSON of the
# body of another event. Each event gets such a row, so it is a tuple: to make a NamedTuple takes six times as long.
EventRow = tuple[int, int, str, str | None, str | None, str | None, int | None, str]
# One commit, with an item for each session: session, first seq, ts, events.
NewCommit = list[tuple[str, int, int, list[EventRow]]]
StoredCommit = list[tuple[str, int, int, list[Raw]]]  # a NewCommit decoded from `loose`: each event is still JSON

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
    """Events cannot be decoded, or are missing. Other events may be sound."""


def to_json(value: Any) -> str:
    return encode_json(value).decode()


def event_to_commit(session: str, seq: int, ts: int, *columns: Any) -> str:
    """Return the JSON of a commit with one event. The migrations call this function as `as_loose` in SQL."""
    return to_json([(session, seq, ts, [(seq, ts, *columns)])])


def make_session_mark(session: Key) -> str:
    """Return the text that a row of `loose` contains if it has events of the session.

    The text of an event cannot contain the mark, because JSON puts a backslash before each quote.
    """
    return f"[{to_json(session)},"


def join_rows(rows: Sequence[Raw] | Sequence[bytes]) -> bytes:
    """Return the JSON array of rows that are already encoded."""
    return b"[" + b",".join(rows) + b"]"


# *commits* and *strips* below are the `events` of rows, joined by commas, as group_concat() returns them; None if there
# is no row.


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
    """Convert the rows of one session to Event objects. Raises UnreadableEvents."""
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
    except msgspec.MsgspecError as error:  # threads.py recognizes damage by the word "malformed"
        raise UnreadableEvents(f"the log is malformed: {error}") from None
