"""The runs of the embedded log that have not ended, and what chats with a clientMsgId were answered."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import structlog

from hub.ids import Key
from hub.storage.log import RunStore
from hub.storage.records import ChatRecord, RunRecord
from hub.storage.sqlite.threads import Threads

CHAT = """
    SELECT json_object('principal', principal, 'clientMsgId', client_msg_id, 'digest', digest, 'messageId', message,
        'runId', run, 'seq', seq) FROM chats
    WHERE session = :session AND principal = :principal AND client_msg_id = :id"""
# Bytes, and a row for each, unlike all else: one that is damaged must not hide the others.
UNFINISHED = "SELECT CAST(session AS BLOB), CAST(id AS BLOB), CAST(record AS BLOB) FROM runs ORDER BY n"

_record = msgspec.json.Decoder(RunRecord).decode

_log = structlog.get_logger("hub.storage.sqlite.log")


@attrs.define(eq=False)
class SqliteRuns(RunStore):
    """The runs of one file."""

    threads: Threads

    async def list_unfinished(self) -> Sequence[RunRecord]:
        records = []
        for session, run, text in await self.threads.read(_rows, UNFINISHED):
            try:
                records.append(_record(text))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                name, key = run.decode(errors="replace"), session.decode(errors="replace")
                _log.warning("log_run_damaged", path=str(self.threads.path), session=key, run=name, reason=str(error))
        return records

    async def find_chat(self, key: Key, principal: str, client_msg_id: str) -> ChatRecord | None:
        fields = await self.threads.ask(CHAT, {"session": key, "principal": principal, "id": client_msg_id})
        return ChatRecord(**fields) if fields else None


def _rows(db: sqlite3.Connection, statement: str) -> list[tuple[Any, ...]]:
    return db.execute(statement).fetchall()
