"""Read what one principal wrote, from all sessions."""

import sqlite3

import msgspec
import orjson

from hub.ids import Key
from hub.messages import Request
from hub.storage.records import AuthoredMessage
from hub.storage.sqlite.message_rows import MESSAGE_JSON, MessageRow, to_message
from hub.storage.sqlite.sql import FILE_JSON

SCANNED_MESSAGES = 50_000  # one page searches at most this many messages: there is no index of authors

# The messages of :principal, and the answers to them.
AUTHORED_MESSAGES = f"""
    SELECT n, session, {MESSAGE_JSON}, request FROM messages m
    WHERE n > :after AND n <= :after + {SCANNED_MESSAGES} AND (
        author = :principal OR EXISTS (
            SELECT 1 FROM messages u WHERE u.session = m.session AND u.id = m.user_message AND u.author = :principal))
    ORDER BY n"""
LATER_MESSAGE = f"SELECT 1 FROM messages WHERE n > ? + {SCANNED_MESSAGES} LIMIT 1"
# The files in the sessions of which :principal is an owner, and those in other sessions that its messages name.
FILES_OF_AUTHOR = f"""
    SELECT json_group_array({FILE_JSON}) FROM (
        SELECT * FROM files f
        WHERE session IN (SELECT session FROM grants WHERE principal = :principal AND role = 'owner')
        OR EXISTS (SELECT 1 FROM messages m WHERE m.session = f.session AND author = :principal
            AND (instr(content, f.id) OR instr(parts, f.id) OR instr(metadata, f.id)))
        ORDER BY session, created, id)"""


def read_authored_messages(
    db: sqlite3.Connection, principal: str, after: int, limit: int, max_bytes: int
) -> tuple[list[AuthoredMessage], int | None]:
    """Return the result of SessionStore.read_messages_of_author()."""
    messages: list[AuthoredMessage] = []
    size = 0
    for n, session, text, request_text in db.execute(AUTHORED_MESSAGES, {"principal": principal, "after": after}):
        message = to_message(MessageRow(*orjson.loads(text)))
        request = None if request_text is None else msgspec.json.decode(request_text, type=Request)
        messages.append(AuthoredMessage(Key(session), message, request))
        size += len(text) + len(request_text or "")
        if len(messages) == limit or size >= max_bytes:
            return messages, n
    return messages, after + SCANNED_MESSAGES if db.execute(LATER_MESSAGE, (after,)).fetchone() else None
