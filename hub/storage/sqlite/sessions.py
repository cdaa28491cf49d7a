"""The session store of the embedded log: sessions, their labels, and their finished messages."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import attrs
import msgspec
import orjson

from hub.errors import LogDamaged
from hub.ids import Key, id_of
from hub.messages import HistoryMessage, Page, PageRequest, Request
from hub.messages.lists import make_page, read_cursor
from hub.storage.log import EVERYONE, MAX_TOOL_MESSAGES, SessionStore
from hub.storage.records import (
    AuthoredMessage,
    ErasureResult,
    FileRecord,
    Head,
    MessageExpiry,
    SessionLabel,
    SessionQuery,
    SessionRow,
)
from hub.storage.sqlite.authors import read_authored_messages
from hub.storage.sqlite.changes import LabelChange, SessionDeletion
from hub.storage.sqlite.erasing import KEYS_OF_AUTHOR, MessageErasure
from hub.storage.sqlite.event_reading import read_heads
from hub.storage.sqlite.expiring import (
    IDLE_SESSIONS,
    Cutoff,
    MessageDrop,
    find_excess_messages,
    find_old_messages,
)
from hub.storage.sqlite.message_rows import MESSAGE_JSON, MessageRow, to_message, to_messages
from hub.storage.sqlite.plan import SessionCreation
from hub.storage.sqlite.sql import MAX_SQLITE_INTEGER, SqliteInteger
from hub.storage.sqlite.threads import LogThreads


def _make_session_lists(source: str) -> dict[str, str]:
    """Return a query for each order, of the sessions of one tenant in *source*. A page begins after (:ts, :id)."""
    return {
        order: f"""
        SELECT json_group_array(json_array(id, epoch, messages, ts, title, metadata)) FROM (
            SELECT id, epoch, messages, ts, title, metadata FROM {source}
            WHERE id > '!' AND substr(id, 1, instr(id, '/')) = :prefix AND (ts, id) {sign} (:ts, :id) AND {bound}
            AND (:agent IS NULL OR EXISTS (SELECT 1 FROM messages WHERE session = s.id AND agent = :agent))
            ORDER BY ts {order}, id {order} LIMIT :limit)"""
        for order, sign, bound in (("asc", ">", "ts < :until"), ("desc", "<", "ts >= :since"))
    }


# All sessions, in the order of the index sessions_by_time, so that only the rows of the page are read.
SESSION_LISTS = _make_session_lists("sessions s")
# The sessions in which :readers have grants. CROSS JOIN, so that SQLite reads the grants first, not all sessions.
GRANTED_SESSION_LISTS = _make_session_lists("""(
                SELECT DISTINCT session FROM grants WHERE principal IN (SELECT value FROM json_each(:readers)))
            CROSS JOIN sessions s ON s.id = session""")


# The newest messages whose parts contain one of :words, each a tool call id as JSON.
TOOL_MESSAGES = f"""
    WITH found AS (
        SELECT * FROM messages WHERE session = :session AND parts IS NOT NULL
        AND EXISTS (SELECT 1 FROM json_each(:words) WHERE instr(parts, value)) ORDER BY seq DESC, n DESC LIMIT :limit)
    SELECT json_group_array({MESSAGE_JSON}) FROM (
        SELECT id, role, '' AS content, agent, run, author, author_name, seq, ts, parts, NULL AS metadata, user_message,
            stop_reason, error FROM found ORDER BY seq, n)"""


@attrs.define(eq=False)
class SqliteSessions(SessionStore):
    """The session store of an embedded log."""

    threads: LogThreads

    async def find(self, key: Key) -> Head | None:
        heads = await self.threads.read_events(read_heads, [key])
        if not heads:
            return None
        _, epoch, seq, floor = heads[0]
        if seq is None:
            raise LogDamaged("the latest events of this session are damaged: delete it, or restore a backup")
        return Head(key, epoch, seq, floor)

    async def make(self, key: Key, owner: str = "") -> tuple[Head, bool]:
        return cast(tuple[Head, bool], await self.threads.submit(SessionCreation(key, owner)))

    async def list(self, query: SessionQuery, request: PageRequest) -> Page[SessionRow]:
        values: dict[str, Any] = {"prefix": query.prefix, "readers": orjson.dumps([*query.readers]).decode()}
        values |= {"agent": query.agent, "since": query.since, "until": query.until, "limit": request.limit + 1}
        ts, name = (query.until, "") if request.order == "desc" else (query.since, "")
        if request.after is not None:
            after = read_cursor(request.after, tuple[SqliteInteger, str])
            ts, name = min((ts, name), after) if request.order == "desc" else max((ts, name), after)
        values |= {"ts": ts, "id": f"{query.prefix}{name}"}
        lists = SESSION_LISTS if EVERYONE <= {*query.readers} else GRANTED_SESSION_LISTS
        rows = await self.threads.query_json(lists[request.order], values)
        sessions = [_to_session_row(*row) for row in rows]
        return make_page(sessions, request.limit, lambda row: (row.ts, id_of(row.key)))

    async def find_label(self, key: Key) -> SessionLabel | None:
        statement = "SELECT json_array(title, metadata) FROM sessions WHERE id = ?"
        row = await self.threads.query_json(statement, (key,))
        return None if row is None else SessionLabel(row[0], _decode_metadata(row[1]))

    async def relabel(self, key: Key, changes: Mapping[str, Any]) -> None:
        values = dict(changes)
        if values.get("metadata") is not None:
            values["metadata"] = orjson.dumps(values["metadata"]).decode()
        await self.threads.submit(LabelChange(key, values))

    async def delete(self, key: Key) -> Sequence[FileRecord]:
        return [FileRecord(**fields) for fields in await self.threads.submit(SessionDeletion(key))]

    async def erase_messages(self, key: Key, principal_id: str) -> ErasureResult:
        result = await self.threads.submit(MessageErasure(key, principal_id))
        return ErasureResult(result.get("epoch"), [FileRecord(**fields) for fields in result.get("files", ())])

    async def expire_messages(self, before: int, max_bytes: int | None) -> MessageExpiry:
        now = self.threads.writer.seams.now()
        keys = await self._drop_messages(await self.threads.read(find_old_messages, before, now))
        if max_bytes is not None:
            cutoff = await self.threads.read(find_excess_messages, max_bytes)
            if cutoff is not None:
                keys |= await self._drop_messages(cutoff)
                before = max(before, cutoff.ts + 1)
        return MessageExpiry(keys, before)

    async def _drop_messages(self, cutoff: Cutoff) -> set[Key]:
        """Delete messages in commits of limited size. Return the sessions that lost messages."""
        keys: set[Key] = set()
        after = 0
        while result := await self.threads.submit(MessageDrop(cutoff, after)):
            after = result["last"]
            keys |= result["keys"]
        return keys

    async def list_idle_sessions(self, before: int) -> Sequence[Head]:
        rows = await self.threads.query_json(IDLE_SESSIONS, {"before": before})
        return [Head(*row) for row in rows]

    async def list_keys_of_author(self, principal_id: str) -> Sequence[Key]:
        return cast(Sequence[Key], await self.threads.query_json(KEYS_OF_AUTHOR, {"principal": principal_id}))

    async def read_messages_of_author(
        self, principal_id: str, after: int, limit: int, max_bytes: int
    ) -> tuple[Sequence[AuthoredMessage], int | None]:
        return await self.threads.read(read_authored_messages, principal_id, after, limit, max_bytes)

    async def read_last_messages(
        self, key: Key, last: int, max_bytes: int, upto: str | None = None
    ) -> Sequence[HistoryMessage]:
        statement = f"""
            WITH last AS (
                SELECT n, seq, length(CAST(content AS BLOB)) + coalesce(length(CAST(parts AS BLOB)), 0) AS size
                FROM messages WHERE session = :session AND (:upto IS NULL OR
                    (seq, n) <= (SELECT seq, n FROM messages WHERE session = :session AND id = :upto))
                ORDER BY seq DESC, n DESC LIMIT :last),
            sums AS (SELECT n, sum(size) OVER (ORDER BY seq DESC, n DESC) AS total FROM last)
            SELECT json_group_array({MESSAGE_JSON}) FROM (
                SELECT m.* FROM messages m JOIN sums ON sums.n = m.n WHERE total <= :bytes ORDER BY m.seq, m.n)"""
        values = {"session": key, "last": last, "upto": upto, "bytes": max_bytes}
        return to_messages(await self.threads.query_json(statement, values))

    async def read_messages_from(self, key: Key, message_id: str, limit: int) -> Sequence[HistoryMessage]:
        statement = f"""
            WITH first AS (SELECT n, seq FROM messages WHERE session = :session AND id = :message)
            SELECT json_group_array({MESSAGE_JSON}) FROM (
                SELECT m.id, role, iif(m.n = first.n, content, '') AS content, agent, run, author, author_name, m.seq,
                    ts, iif(m.n = first.n, parts, NULL) AS parts, iif(m.n = first.n, metadata, NULL) AS metadata,
                    user_message, stop_reason, error
                FROM first JOIN messages m ON m.session = :session AND (m.seq, m.n) >= (first.seq, first.n)
                ORDER BY m.seq, m.n LIMIT :limit)"""
        values = {"session": key, "message": message_id, "limit": limit}
        return to_messages(await self.threads.query_json(statement, values))

    async def find_request(self, key: Key, message_id: str) -> Request | None:
        statement = "SELECT coalesce(request, 'null') FROM messages WHERE session = :session AND id = :id"
        fields = await self.threads.query_json(statement, {"session": key, "id": message_id})
        return None if fields is None else msgspec.convert(fields, Request)

    async def read_tool_messages(self, key: Key, call_ids: Collection[str]) -> Sequence[HistoryMessage]:
        # orjson writes non-ASCII ids as the rows have them.
        words = orjson.dumps([orjson.dumps(id).decode() for id in call_ids]).decode()
        values = {"session": key, "words": words, "limit": MAX_TOOL_MESSAGES}
        return to_messages(await self.threads.query_json(TOOL_MESSAGES, values))

    async def list_messages(self, key: Key, request: PageRequest) -> Page[HistoryMessage]:
        sign, seq, n = (">", 0, 0) if request.order == "asc" else ("<", MAX_SQLITE_INTEGER, MAX_SQLITE_INTEGER)
        if request.after is not None:
            seq, n = read_cursor(request.after, tuple[SqliteInteger, SqliteInteger])
        order = request.order
        statement = f"""
            SELECT json_group_array(json_array(n, json({MESSAGE_JSON}))) FROM (
                SELECT * FROM messages WHERE session = :session AND (seq, n) {sign} (:seq, :n)
                ORDER BY seq {order}, n {order} LIMIT :limit)"""
        values = {"session": key, "seq": seq, "n": n, "limit": request.limit + 1}
        numbered_rows = [(n, MessageRow(*row)) for n, row in await self.threads.query_json(statement, values)]
        page = make_page(numbered_rows, request.limit, lambda item: (item[1].seq, item[0]))
        return Page([to_message(row) for _, row in page.rows], page.next_cursor)


def _decode_metadata(text: str | None) -> dict[str, Any] | None:
    return None if text is None else cast(dict[str, Any], orjson.loads(text))


def _to_session_row(
    key: Key, epoch: str, messages: int, ts: int, title: str | None, metadata: str | None
) -> SessionRow:
    return SessionRow(key=key, epoch=epoch, messages=messages, ts=ts, title=title, metadata=_decode_metadata(metadata))
