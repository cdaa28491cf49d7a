"""The events of the embedded log: appended, read by the page, and dropped when they are old."""

from collections.abc import Iterator, Sequence

import attrs

from hub.ids import Key
from hub.limits import Limits
from hub.messages import Event
from hub.storage.log import AppendCallback, EventStore
from hub.storage.records import Append
from hub.storage.sqlite import strips
from hub.storage.sqlite.plan import Cut
from hub.storage.sqlite.threads import Threads

CUT_ROWS = 2048  # dropped in one commit

USED = """
    SELECT CAST((page_count - freelist_count) * page_size AS TEXT)
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"""
# What could go, as [session, epoch, floor, last to go]: all that stands before the first event that is young enough
# (where that is in a damaged strip, nothing),
OLD = """
    WITH young AS (
        SELECT s.n AS session, (SELECT t.n FROM strips t WHERE t.session = s.n AND t.ts >= :before
            ORDER BY t.upto LIMIT 1) AS n
        FROM sessions s WHERE id > '!')
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT id, epoch, floor, iif(young.n IS NULL,
            coalesce((SELECT max(upto) FROM strips t WHERE t.session = s.n), floor),
            (SELECT min(CASE type WHEN 'array' THEN json_extract(value, '$[0]') END) - 1
                FROM strips t JOIN json_each(iif(json_valid(t.events), t.events, '[]'))
                WHERE t.n = young.n AND CASE type WHEN 'array' THEN json_extract(value, '$[1]') END >= :before)) AS upto
        FROM sessions s JOIN young ON young.session = s.n) WHERE upto > floor"""
# or all the strips that are left when what they take, counted from the newest, passes :bytes. What lies loose is too
# young to go.
LARGE = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT s.id, s.epoch, s.floor, max(t.upto) AS upto FROM (
            SELECT session, upto, sum(size) OVER (ORDER BY ts DESC, n DESC) AS taken FROM strips) t
        JOIN sessions s ON s.n = t.session WHERE taken > :bytes AND s.id > '!' GROUP BY s.n) WHERE upto > floor"""
DELETED = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT id, epoch, floor, coalesce((SELECT max(upto) FROM strips WHERE session = s.n), floor) AS upto
        FROM sessions s WHERE id < '!')"""


@attrs.define(eq=False)
class SqliteEvents(EventStore):
    """The events of one file."""

    threads: Threads
    limits: Limits

    def append(self, append: Append, done: AppendCallback) -> None:
        self.threads.give(append, done)

    async def read(self, key: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        limits = self.limits
        rows = min(rows or limits.page_rows, limits.page_rows)
        return await self.threads.read_events(strips.page, key, after, upto, rows, limits.page_bytes)

    async def find_message_before(self, key: Key, run_id: str, seq: int) -> tuple[str, str] | None:
        return await self.threads.read_events(strips.find_message_before, key, run_id, seq)

    async def expire(self, before: int, max_bytes: int) -> dict[Key, int]:
        threads = self.threads
        await threads.submit(Cut(()))  # all that is kept gets its place
        await self.purge()
        floors = await self._drop(await threads.ask(OLD, {"before": before}))
        if await threads.ask(USED, ()) > max_bytes:
            floors |= await self._drop(await threads.ask(LARGE, {"bytes": max_bytes}))
        return floors

    async def purge(self) -> None:
        await self._drop(await self.threads.ask(DELETED, ()))

    async def _drop(self, doomed: list[tuple[Key, str, int, int]]) -> dict[Key, int]:
        before = {session: floor for session, _, floor, _ in doomed}
        floors: dict[Key, int] = {}
        for pieces in _pieces(doomed):
            floors |= await self.threads.submit(Cut(pieces))
        return {session: floor for session, floor in floors.items() if floor > before[session]}


def _pieces(doomed: Sequence[tuple[Key, str, int, int]]) -> Iterator[list[tuple[Key, str, int]]]:
    """Cut what is to be dropped, as (session, epoch, floor, upto), into lists of at most CUT_ROWS events."""
    piece: list[tuple[Key, str, int]] = []
    room = CUT_ROWS
    for session, epoch, floor, upto in doomed:
        while floor < upto:
            taken = min(room, upto - floor)
            floor += taken
            room -= taken
            piece.append((session, epoch, floor))
            if room == 0:
                yield piece
                piece, room = [], CUT_ROWS
    if piece:
        yield piece
