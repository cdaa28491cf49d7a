"""What the embedded log knows of files."""

from collections.abc import Mapping, Sequence
from typing import cast

import attrs
import orjson

from hub.ids import Key
from hub.storage.log import FileStore
from hub.storage.records import FileRecord
from hub.storage.sqlite.statements import FILE_FIELDS
from hub.storage.sqlite.threads import Threads

FILE = f"SELECT {FILE_FIELDS} FROM files WHERE id = ?"
FILE_BYTES = """
    SELECT json_group_object(session, bytes) FROM (
        SELECT session, sum(max(size, ?)) AS bytes FROM files GROUP BY session)"""
NAMED = """
    SELECT json_group_array(value) FROM json_each(?) WHERE EXISTS (SELECT 1 FROM files WHERE digest = value)"""


@attrs.define(eq=False)
class SqliteFiles(FileStore):
    """The files of one log."""

    threads: Threads

    async def add(self, file: FileRecord) -> None:
        await self.threads.submit(file)

    async def find(self, file_id: str) -> FileRecord | None:
        fields = await self.threads.ask(FILE, (file_id,))
        return FileRecord(**fields) if fields else None

    async def sum_bytes_by_session(self, least: int) -> Mapping[Key, int]:
        return cast(Mapping[Key, int], await self.threads.ask(FILE_BYTES, (least,)))

    async def find_used_digests(self, digests: Sequence[str]) -> Sequence[str]:
        return cast(Sequence[str], await self.threads.ask(NAMED, (orjson.dumps(digests).decode(),)))
