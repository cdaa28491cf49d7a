"""The run store of the embedded log: unfinished runs, and chats with a clientMsgId."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import structlog

from hub.ids import Key
from hub.storage.log import RunStore
from hub.storage.records import ChatRecord, RunRecord
from hub.storage.sqlite.threads import LogThreads

_decode_run = msgspec.json.Decoder(RunRecord).decode

_log = structlog.get_logger("hub.storage.sqlite.log")


@attrs.define(eq=False)
class SqliteRuns(RunStore):
    """The run store of an embedded log."""

    threads: LogThreads

    async def list_unfinished_runs(self) -> Sequence[RunRecord]:
        records = []
        for session, run, text in await self.threads.read(_fetch_runs):
            try:
                records.append(_decode_run(text))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                name, key = run.decode(errors="replace"), session.decode(errors="replace")
                _log.warning("log_run_damaged", path=str(self.threads.path), session=key, run=name, reason=str(error))
        return records

    async def find_chat(self, key: Key, principal: str, client_msg_id: str) -> ChatRecord | None:
        statement = """
            SELECT json_object('principal', principal, 'clientMsgId', client_msg_id, 'digest', digest,
                'messageId', message, 'runId', run, 'seq', seq) FROM chats
            WHERE session = :session AND principal = :principal AND client_msg_id = :id"""
        fields = await self.threads.query_json(statement, {"session": key, "principal": principal, "id": client_msg_id})
        return ChatRecord(**fields) if fields else None


def _fetch_runs(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return (session, run, record) of each run. The values are bytes, because damaged text may not be UTF-8."""
    statement = "SELECT CAST(session AS BLOB), CAST(id AS BLOB), CAST(record AS BLOB) FROM runs ORDER BY n"
    return db.execute(statement).fetchall()
