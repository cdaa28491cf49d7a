"""The file store of the embedded log: the records of files."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import attrs
import orjson

from hub.ids import Key
from hub.messages import Page, PageRequest
from hub.messages.lists import make_page, read_cursor
from hub.storage.log import FileStore
from hub.storage.records import FileRecord
from hub.storage.sqlite.authors import FILES_OF_AUTHOR
from hub.storage.sqlite.changes import FileDeletion
from hub.storage.sqlite.event_rows import to_json
from hub.storage.sqlite.expiring import FileDrop, find_old_files
from hub.storage.sqlite.sql import FILE_JSON, MAX_SQLITE_INTEGER, SqliteInteger
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

    async def find_in_session(self, key: Key, file_ids: Collection[str]) -> Sequence[FileRecord]:
        statement = f"""
            SELECT json_group_array({FILE_JSON}) FROM files
            WHERE session = ? AND id IN (SELECT value FROM json_each(?))"""
        rows = await self.threads.query_json(statement, (key, to_json([*file_ids])))
        return [FileRecord(**fields) for fields in rows]

    async def list(self, key: Key, request: PageRequest) -> Page[FileRecord]:
        order = request.order
        sign, created, file_id = (">", 0, "") if order == "asc" else ("<", MAX_SQLITE_INTEGER, "")
        if request.after is not None:
            created, file_id = read_cursor(request.after, tuple[SqliteInteger, str])
        statement = f"""
            SELECT json_group_array(json({FILE_JSON})) FROM (
                SELECT * FROM files WHERE session = :session AND (created, id) {sign} (:created, :id)
                ORDER BY created {order}, id {order} LIMIT :limit)"""
        values = {"session": key, "created": created, "id": file_id, "limit": request.limit + 1}
        files = [FileRecord(**fields) for fields in await self.threads.query_json(statement, values)]
        return make_page(files, request.limit, lambda file: (file.created, file.fileId))

    async def delete(self, file_id: str) -> FileRecord | None:
        files = await self.threads.submit(FileDeletion(file_id))
        return FileRecord(**files[0]) if files else None

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

    async def expire_files(self, before: int, after: str) -> tuple[Sequence[FileRecord], str | None]:
        page = await self.threads.read(find_old_files, before, after)
        if not page.files:
            return [], None
        ids = [file_id for file_id, is_named in page.files if not is_named]
        drop = FileDrop(ids=ids, before=before, last_message=page.last_message)
        records = [FileRecord(**fields) for fields in await self.threads.submit(drop)] if ids else []
        return records, page.files[-1][0]

    async def list_files_of_author(self, principal_id: str) -> Sequence[FileRecord]:
        rows = await self.threads.query_json(FILES_OF_AUTHOR, {"principal": principal_id})
        return [FileRecord(**fields) for fields in rows]
