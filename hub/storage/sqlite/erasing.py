"""Erase what a principal wrote in a session: see SessionStore.erase_messages()."""

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import attrs
import msgspec

from hub.ids import Key
from hub.messages import Author, InterruptResolved, UserMessage
from hub.storage.log import ERASED
from hub.storage.sqlite import damage
from hub.storage.sqlite.event_rows import EventRow, UnreadableEvents, decode_strip_rows, encode_json, to_json
from hub.storage.sqlite.sql import FILE_JSON, query_json
from hub.storage.sqlite.strips import fetch_row

WORD = re.compile(r"\w+")  # the ids of files are such words

_decode_message = msgspec.json.Decoder(UserMessage).decode
_decode_reply = msgspec.json.Decoder(InterruptResolved).decode


@attrs.frozen
class MessageErasure:
    """Request for SessionStore.erase_messages(), in a commit that only erases.

    The result has the new `epoch` and the fields of the FileRecords of `files`. It is empty if nothing was erased.
    """

    key: Key
    principal: str


# A strip that cannot be decoded is selected, too: then nothing is erased, because the strip may have the old text.
STRIPS_TO_ERASE = """
    SELECT json_group_array(n) FROM strips WHERE session = :number
    AND (NOT json_valid(events) OR instr(events, :principal))"""
ERASE_MESSAGES = f"""
    UPDATE messages SET content = '{ERASED}', parts = NULL, metadata = NULL, request = NULL, author_name = ''
    WHERE session = :session AND author = :principal AND (
        content <> '{ERASED}' OR parts IS NOT NULL OR metadata IS NOT NULL OR request IS NOT NULL
        OR author_name <> '')"""
ERASE_RUNS = f"""
    UPDATE runs SET record = json_remove(
        json_set(record, '$.message', '{ERASED}', '$.author.name', ''), '$.parts', '$.metadata', '$.request')
    WHERE session = :session AND json_extract(iif(json_valid(record), record, '{{}}'), '$.author.id') = :principal
    AND (json_extract(record, '$.message'), json_extract(record, '$.author.name')) IS NOT ('{ERASED}', '')"""
ERASE_CHATS = "UPDATE chats SET digest = '' WHERE session = :session AND principal = :principal AND digest <> ''"
# The rest of the table `damaged` that may have text of the session: these parts cannot be decoded, so all go.
ERASE_DAMAGED_PARTS = """
    UPDATE damaged SET events = x'' WHERE length(events) AND (
        session = :number OR session IS NULL AND instr(events, CAST(:principal AS BLOB)))"""
DELETE_DAMAGED_RUNS = """
    DELETE FROM runs WHERE session = :session AND NOT json_valid(record) AND instr(record, :principal)"""
# The files of the session whose ids are in :words, and in no message of another user.
SELECT_FILES = """
    SELECT id FROM files WHERE session = :session AND id IN (SELECT value FROM json_each(:words)) AND NOT EXISTS (
        SELECT 1 FROM messages m WHERE m.session = :session AND role = 'user' AND author <> :principal
        AND (instr(content, files.id) OR instr(parts, files.id) OR instr(metadata, files.id)))"""


def erase_messages(db: sqlite3.Connection, erasure: MessageErasure, epoch: str) -> dict[str, Any]:
    """Erase messages, and set the new *epoch*. Return the result of the request.

    Call this in a transaction. Raises UnreadableEvents if events of the session are damaged.
    """
    damage.move_all_to_strips(db)
    number = query_json(db, "SELECT CAST(n AS TEXT) FROM sessions WHERE id = ?", (erasure.key,))
    if number is None:
        return {}
    values = {"session": erasure.key, "principal": erasure.principal, "number": number}
    words = {*_find_words_of_messages(db, values)}
    count = _erase_events(db, values, words)
    for statement in (ERASE_MESSAGES, ERASE_RUNS, ERASE_CHATS, ERASE_DAMAGED_PARTS, DELETE_DAMAGED_RUNS):
        count += db.execute(statement, values).rowcount
    if not count:
        return {}
    db.execute("UPDATE sessions SET epoch = ? WHERE id = ?", (epoch, erasure.key))
    return {"epoch": epoch, "files": _delete_files(db, values, words)}


def _find_words_of_messages(db: sqlite3.Connection, values: dict[str, Any]) -> Iterator[str]:
    statement = "SELECT content, parts, metadata FROM messages WHERE session = :session AND author = :principal"
    for content, *texts in db.execute(statement, values):
        yield from find_words([content, *(msgspec.json.decode(text) for text in texts if text is not None)])


def _erase_events(db: sqlite3.Connection, values: dict[str, Any], words: set[str]) -> int:
    """Erase the events of the principal. Return their number, and add the words of their texts to *words*."""
    count = 0
    for n in query_json(db, STRIPS_TO_ERASE, values):
        (text,) = fetch_row(db, "SELECT events FROM strips WHERE n = :n", {"n": n})
        rows = decode_strip_rows(text)
        new_rows = [_erase_row(row, values["principal"], words) for row in rows]
        changes = sum(new is not old for new, old in zip(new_rows, rows))
        if changes:
            events = encode_json(new_rows)
            db.execute("UPDATE strips SET events = ?, size = ? WHERE n = ?", (events.decode(), len(events), n))
        count += changes
    return count


def _erase_row(row: EventRow, principal: str, words: set[str]) -> EventRow:
    """Return the row without the text of the principal; the same row if the principal did not write it."""
    kind, content = row[2], row[-1]
    if kind not in ("user_message", "interrupt_resolved") or principal not in content:
        return row
    try:
        body = _erase_message(content, principal, words) if kind == "user_message" else _erase_reply(content, principal)
    except msgspec.MsgspecError as error:
        raise UnreadableEvents(f"the log is malformed: {error}") from None
    new_content = content if body is None else to_json(body)
    return row if new_content == content else (*row[:-1], new_content)


def _erase_message(content: str, principal: str, words: set[str]) -> UserMessage | None:
    message = _decode_message(content)
    if message.author.id != principal:
        return None
    words.update(find_words([message.content, message.parts, message.metadata]))
    return attrs.evolve(message, author=Author(principal, ""), content=ERASED, parts=None, metadata=None)


def _erase_reply(content: str, principal: str) -> InterruptResolved | None:
    reply = _decode_reply(content)
    if reply.resolvedBy is None or reply.resolvedBy.id != principal:
        return None
    payload = None if reply.payload is None else ERASED
    return attrs.evolve(reply, resolvedBy=Author(principal, ""), payload=payload)


def find_words(value: Any) -> Iterator[str]:
    """Yield the words of all texts in a JSON value."""
    if isinstance(value, str):
        yield from WORD.findall(value)
    elif isinstance(value, dict):
        yield from find_words([*value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from find_words(item)


def _delete_files(db: sqlite3.Connection, values: dict[str, Any], words: set[str]) -> list[Any]:
    ids = [id for (id,) in db.execute(SELECT_FILES, values | {"words": to_json([*words])})]
    rows = "FROM files WHERE id IN (SELECT value FROM json_each(?))"
    files: list[Any] = query_json(db, f"SELECT json_group_array({FILE_JSON}) {rows}", (to_json(ids),))
    db.execute(f"DELETE {rows}", (to_json(ids),))
    return files


# The sessions for SessionStore.list_keys_of_author(). A row of `loose` counts for all its sessions.
KEYS_OF_AUTHOR = """
    SELECT json_group_array(id) FROM (
        SELECT id FROM sessions WHERE id > '!' AND (
            id IN (SELECT session FROM messages WHERE author = :principal
                UNION SELECT session FROM chats WHERE principal = :principal
                UNION SELECT session FROM runs WHERE instr(record, :principal)
                UNION SELECT json_extract(part.value, '$[0]') FROM loose
                    JOIN json_each(iif(json_valid(events), events, '[]')) part WHERE instr(events, :principal))
            OR n IN (SELECT session FROM strips WHERE instr(events, :principal)))
        ORDER BY id)"""
