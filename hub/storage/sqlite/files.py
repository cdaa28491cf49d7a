"""The file store of the embedded log: the records of files."""

from collections.abc import Mapping, Sequence
from typing import cast

import attrs
import orjson

from hub.ids import Key
from hub.storage.log import FileStore
from hub.storage.records import FileRecord
from hub.storage.sqlite.authors import FILES_OF_AUTHOR
from hub.storage.sqlite.sql import FILE_JSON
from hub.storage.sqlite.threads import LogThreads


@attrs.define(eq=False)
class SqliteFiles(FileStore):
    """The file store of an embedded log."""

    threads: LogThreads

    async def add(self, file: FileRecord) -> None:
        await self.threads.submit(file)

    async def find(self, file_id: str) -> FileRecord | None:
        fields = await self.threads.query_json(f"SELECT {FILE_JSON} FROM files WHERE id = ?", (file_id,))
        return FileRecord(**fields) if fields else None

    async def sum_bytes_by_session(self, min_bytes: int) -> Mapping[Key, int]:
        statement = """
            SELECT json_group_object(session, bytes) FROM (
                SELECT session, sum(max(size, ?)) AS bytes FROM files GROUP BY session)"""
        return cast(Mapping[Key, int], await self.threads.query_json(statement, (min_bytes,)))

    async def find_used_digests(self, digests: Sequence[str]) -> Sequence[str]:
        statement = """
            SELECT json_group_array(value) FROM json_each(?)
            WHERE EXISTS (SELECT 1 FROM files WHERE digest = value)"""
        return cast(Sequence[str], await self.threads.query_json(statement, (orjson.dumps(digests).decode(),)))

    async def list_files_of_author(self, principal_id: str) -> Sequence[FileRecord]:
        rows = await self.threads.query_json(FILES_OF_AUTHOR, {"principal": principal_id})
        return [FileRecord(**fields) for fields in rows]
