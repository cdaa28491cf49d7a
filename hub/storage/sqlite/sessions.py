"""The sessions of the embedded log, their labels, and their finished messages."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, cast

import attrs
import orjson

from hub.ids import Key
from hub.messages import Author, Message
from hub.storage.log import SessionStore
from hub.storage.records import File, Head, Label, SessionRow
from hub.storage.sqlite import strips
from hub.storage.sqlite.plan import Delete, Make, Relabel
from hub.storage.sqlite.threads import Threads

# A message as _to_message() reads it.
SHOWN = """json_array(id, role, content, agent, run, author, author_name, seq, ts,
        json(parts), json(metadata), user_message)"""
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
            iif(m.n = first.n, parts, NULL) AS parts, iif(m.n = first.n, metadata, NULL) AS metadata, user_message
        FROM first JOIN messages m ON m.session = :session AND (m.seq, m.n) >= (first.seq, first.n)
        ORDER BY m.seq, m.n LIMIT :most)"""
SESSIONS = """
    WITH found AS (SELECT id, epoch, title, metadata, (SELECT count(*) FROM messages WHERE session = s.id) AS messages,
        coalesce((SELECT ts FROM messages WHERE session = s.id ORDER BY seq DESC LIMIT 1), 0) AS ts FROM sessions s
        WHERE id > '!' AND iif(:prefix = '', instr(id, '/') = 0, substr(id, 1, length(:prefix)) = :prefix)
        AND '*' IN (SELECT value FROM json_each(:readers)) AND (:agent IS NULL OR EXISTS (
            SELECT 1 FROM messages WHERE session = s.id AND agent = :agent))),
    fits AS (SELECT * FROM found WHERE ts >= :since AND ts < :until)
    SELECT json_array((SELECT count(*) FROM fits), json((
        SELECT json_group_array(json_array(id, epoch, messages, ts, title, metadata)) FROM (
            SELECT * FROM fits ORDER BY ts DESC, id LIMIT :size OFFSET :skip))))"""
HISTORY_PAGE = f"""
    SELECT json_array((SELECT count(*) FROM messages WHERE session = :session), json((
        SELECT json_group_array({SHOWN}) FROM (
            SELECT * FROM messages WHERE session = :session ORDER BY seq, n LIMIT :size OFFSET :skip))))"""
LABEL = "SELECT json_array(title, metadata) FROM sessions WHERE id = :session"


@attrs.define(eq=False)
class SqliteSessions(SessionStore):
    """The sessions of one file."""

    threads: Threads

    async def find(self, key: Key) -> Head | None:
        heads = await self.threads.read_events(strips.heads, [key])
        return Head(*heads[0]) if heads else None

    async def make(self, key: Key) -> tuple[Head, bool]:
        return cast(tuple[Head, bool], await self.threads.submit(Make(key)))

    async def page(
        self, prefix: str, readers: Collection[str], skip: int, size: int, agent: str | None, since: int, until: int
    ) -> tuple[int, Sequence[SessionRow]]:
        values = {"prefix": prefix, "readers": orjson.dumps([*readers]).decode(), "skip": skip, "size": size}
        values |= {"agent": agent, "since": since, "until": until}
        total, rows = await self.threads.ask(SESSIONS, values)
        return total, [SessionRow(name, epoch, count, ts, *_label(label)) for name, epoch, count, ts, *label in rows]

    async def label(self, key: Key) -> Label | None:
        row = await self.threads.ask(LABEL, {"session": key})
        return None if row is None else Label(*_label(row))

    async def relabel(self, key: Key, changes: Mapping[str, Any]) -> None:
        values = dict(changes)
        if values.get("metadata") is not None:
            values["metadata"] = orjson.dumps(values["metadata"]).decode()
        await self.threads.submit(Relabel(key, values))

    async def delete(self, key: Key) -> Sequence[File]:
        return [File(*row) for row in await self.threads.submit(Delete(key))]

    async def last_messages(self, key: Key, last: int, most: int, upto: str | None = None) -> Sequence[Message]:
        values = {"session": key, "last": last, "upto": upto, "bytes": most}
        return _to_messages(await self.threads.ask(HISTORY, values))

    async def trail(self, key: Key, message_id: str, most: int) -> Sequence[Message]:
        values = {"session": key, "message": message_id, "most": most}
        return _to_messages(await self.threads.ask(TRAIL, values))

    async def messages(self, key: Key, skip: int, size: int) -> tuple[int, Sequence[Message]]:
        total, rows = await self.threads.ask(HISTORY_PAGE, {"session": key, "skip": skip, "size": size})
        return total, _to_messages(rows)


def _label(row: list[Any]) -> tuple[str | None, dict[str, Any] | None]:
    title, metadata = row
    return title, None if metadata is None else orjson.loads(metadata)


def _to_messages(rows: list[list[Any]]) -> list[Message]:
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
) -> Message:
    who = None if author is None else Author(author, author_name)
    held = None if parts is None else tuple(parts)
    return Message(name, role, content, agent, run, who, seq, ts, held, metadata, user_message)
