"""The sessions of the embedded log, their labels, and their finished messages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast

import attrs
import orjson
from msgspec import Meta

from hub.errors import LogDamaged
from hub.ids import Key, id_of
from hub.messages import Author, Fault, HistoryMessage, Page, PageRequest, StopReason
from hub.messages.lists import read_cursor, write_cursor
from hub.storage.log import SessionStore
from hub.storage.records import FileRecord, Head, SessionLabel, SessionQuery, SessionRow
from hub.storage.sqlite import strips
from hub.storage.sqlite.plan import Delete, Make, Relabel
from hub.storage.sqlite.threads import Threads

MOST = 2**63 - 1  # the largest integer of SQLite
Integer = Annotated[int, Meta(ge=0, le=MOST)]
Row = TypeVar("Row")

# A message as _to_message() reads it.
SHOWN = """json_array(id, role, content, agent, run, author, author_name, seq, ts,
        json(parts), json(metadata), user_message, stop_reason, json(error))"""
SEQ = 7  # its place there
HISTORY = f"""
    WITH last AS (
        SELECT n, seq, length(CAST(content AS BLOB)) + coalesce(length(CAST(parts AS BLOB)), 0) AS size FROM messages
        WHERE session = :session AND (:upto IS NULL OR
            (seq, n) <= (SELECT seq, n FROM messages WHERE session = :session AND id = :upto))
        ORDER BY seq DESC, n DESC LIMIT :last),
    kept AS (SELECT n, sum(size) OVER (ORDER BY seq DESC, n DESC) AS total FROM last)
    SELECT json_group_array({SHOWN}) FROM (
        SELECT m.* FROM messages m JOIN kept ON kept.n = m.n WHERE total <= :bytes ORDER BY m.seq, m.n)"""
TRAIL = f"""
    WITH first AS (SELECT n, seq FROM messages WHERE session = :session AND id = :message)
    SELECT json_group_array({SHOWN}) FROM (
        SELECT m.id, role, iif(m.n = first.n, content, '') AS content, agent, run, author, author_name, m.seq, ts,
            iif(m.n = first.n, parts, NULL) AS parts, iif(m.n = first.n, metadata, NULL) AS metadata, user_message,
            stop_reason, error
        FROM first JOIN messages m ON m.session = :session AND (m.seq, m.n) >= (first.seq, first.n)
        ORDER BY m.seq, m.n LIMIT :most)"""
# In one tenant, by time and id: the index sessions_by_time has them in this order. A list goes on after (:ts, :id).
SESSIONS = {
    order: f"""
        SELECT json_group_array(json_array(id, epoch, messages, ts, title, metadata)) FROM (
            SELECT id, epoch, messages, ts, title, metadata FROM sessions s
            WHERE id > '!' AND substr(id, 1, instr(id, '/')) = :prefix AND (ts, id) {sign} (:ts, :id) AND {bound}
            AND '*' IN (SELECT value FROM json_each(:readers)) AND (:agent IS NULL OR EXISTS (
                SELECT 1 FROM messages WHERE session = s.id AND agent = :agent))
            ORDER BY ts {order}, id {order} LIMIT :limit)"""
    for order, sign, bound in (("asc", ">", "ts < :until"), ("desc", "<", "ts >= :since"))
}
MESSAGES = {order: f"""
        SELECT json_group_array(json_array(n, json({SHOWN}))) FROM (
            SELECT * FROM messages WHERE session = :session AND (seq, n) {sign} (:seq, :n)
            ORDER BY seq {order}, n {order} LIMIT :limit)""" for order, sign in (("asc", ">"), ("desc", "<"))}
LABEL = "SELECT json_array(title, metadata) FROM sessions WHERE id = :session"


@attrs.define(eq=False)
class SqliteSessions(SessionStore):
    """The sessions of one file."""

    threads: Threads

    async def find(self, key: Key) -> Head | None:
        heads = await self.threads.read_events(strips.heads, [key])
        if not heads:
            return None
        name, epoch, seq, floor = heads[0]
        if seq is None:
            raise LogDamaged("the latest events of this session are damaged: delete it, or restore a backup")
        return Head(name, epoch, seq, floor)

    async def make(self, key: Key) -> tuple[Head, bool]:
        return cast(tuple[Head, bool], await self.threads.submit(Make(key)))

    async def list(self, query: SessionQuery, request: PageRequest) -> Page[SessionRow]:
        values: dict[str, Any] = {"prefix": query.prefix, "readers": orjson.dumps([*query.readers]).decode()}
        values |= {"agent": query.agent, "since": query.since, "until": query.until, "limit": request.limit + 1}
        ts, name = (query.until, "") if request.order == "desc" else (query.since, "")
        if request.after is not None:
            after = read_cursor(request.after, tuple[Integer, str])
            ts, name = min((ts, name), after) if request.order == "desc" else max((ts, name), after)
        values |= {"ts": ts, "id": f"{query.prefix}{name}"}
        found = await self.threads.ask(SESSIONS[request.order], values)
        rows = [_to_row(*row) for row in found]
        return _slice(rows, request.limit, lambda row: (row.ts, id_of(row.key)))

    async def find_label(self, key: Key) -> SessionLabel | None:
        row = await self.threads.ask(LABEL, {"session": key})
        return None if row is None else SessionLabel(*_label(row))

    async def relabel(self, key: Key, changes: Mapping[str, Any]) -> None:
        values = dict(changes)
        if values.get("metadata") is not None:
            values["metadata"] = orjson.dumps(values["metadata"]).decode()
        await self.threads.submit(Relabel(key, values))

    async def delete(self, key: Key) -> Sequence[FileRecord]:
        return [FileRecord(**fields) for fields in await self.threads.submit(Delete(key))]

    async def read_last_messages(
        self, key: Key, last: int, most: int, upto: str | None = None
    ) -> Sequence[HistoryMessage]:
        values = {"session": key, "last": last, "upto": upto, "bytes": most}
        return _to_messages(await self.threads.ask(HISTORY, values))

    async def read_messages_from(self, key: Key, message_id: str, most: int) -> Sequence[HistoryMessage]:
        values = {"session": key, "message": message_id, "most": most}
        return _to_messages(await self.threads.ask(TRAIL, values))

    async def list_messages(self, key: Key, request: PageRequest) -> Page[HistoryMessage]:
        seq, n = (0, 0) if request.order == "asc" else (MOST, MOST)
        if request.after is not None:
            seq, n = read_cursor(request.after, tuple[Integer, Integer])
        values = {"session": key, "seq": seq, "n": n, "limit": request.limit + 1}
        rows = await self.threads.ask(MESSAGES[request.order], values)
        page = _slice(rows, request.limit, lambda row: (row[1][SEQ], row[0]))
        return Page(_to_messages([row for _, row in page.rows]), page.next_cursor)


def _slice(rows: Sequence[Row], limit: int, cursor: Callable[[Row], tuple[Any, ...]]) -> Page[Row]:
    """Return *limit* of the rows, of which one more was asked for."""
    return Page(rows[:limit], write_cursor(*cursor(rows[limit - 1])) if len(rows) > limit else None)


def _label(row: Sequence[Any]) -> tuple[str | None, dict[str, Any] | None]:
    title, metadata = row
    return title, None if metadata is None else orjson.loads(metadata)


def _to_row(key: Key, epoch: str, messages: int, ts: int, *label: Any) -> SessionRow:
    title, metadata = _label(label)
    return SessionRow(key=key, epoch=epoch, messages=messages, ts=ts, title=title, metadata=metadata)


def _to_messages(rows: list[list[Any]]) -> list[HistoryMessage]:
    return [_to_message(*row) for row in rows]


def _to_message(
    name: str,
    role: Literal["user", "assistant"],
    content: str,
    agent: str | None,
    run: str | None,
    author: str | None,
    author_name: str,
    seq: int,
    ts: int,
    parts: list[Any] | None,
    metadata: dict[str, Any] | None,
    user_message: str | None,
    stop_reason: StopReason | None,
    error: dict[str, str] | None,
) -> HistoryMessage:
    who = None if author is None else Author(author, author_name)
    held = None if parts is None else tuple(parts)
    return HistoryMessage(
        messageId=name,
        role=role,
        content=content,
        agentId=agent,
        runId=run,
        author=who,
        seq=seq,
        ts=ts,
        parts=held,
        metadata=metadata,
        userMessageId=user_message,
        stopReason=stop_reason,
        error=None if error is None else Fault(**error),
    )
