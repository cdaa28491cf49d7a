"""The event store of the embedded log: append events, read them by pages, and delete old ones (retention)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import attrs

from hub.ids import Key
from hub.limits import Limits
from hub.messages import Event
from hub.storage.log import AppendCallback, EventStore
from hub.storage.records import Append
from hub.storage.sqlite.changes import EventDrop, NewFloor, WalTruncation
from hub.storage.sqlite.event_reading import find_streamed_message, read_page
from hub.storage.sqlite.threads import LogThreads

MAX_DROPPED_EVENTS = 2048  # one commit deletes at most this many events

# The queries below return the fields of DropRanges. They read only `strips`: expire() and the deletion of a session
# first move all events from `loose` to `strips`.
#
# OLD_EVENTS selects, in each session, all events before the first young one (:before or later). If the strip with the
# first young event is damaged, OLD_EVENTS selects no events of the session.
OLD_EVENTS = """
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
# EXCESS_EVENTS selects all strips except the newest ones, which together have :bytes at most.
EXCESS_EVENTS = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT s.id, s.epoch, s.floor, max(t.upto) AS upto FROM (
            SELECT session, upto, sum(size) OVER (ORDER BY ts DESC, n DESC) AS taken FROM strips) t
        JOIN sessions s ON s.n = t.session WHERE taken > :bytes AND s.id > '!' GROUP BY s.n) WHERE upto > floor"""
# DELETED_EVENTS selects all events of deleted sessions (see changes.py).
DELETED_EVENTS = """
    SELECT json_group_array(json_array(id, epoch, floor, upto)) FROM (
        SELECT id, epoch, floor, coalesce((SELECT max(upto) FROM strips WHERE session = s.n), floor) AS upto
        FROM sessions s WHERE id < '!')"""


class DropRange(NamedTuple):
    """The events of a session with floor < seq <= upto."""

    key: Key
    epoch: str
    floor: int
    upto: int


@attrs.define(eq=False)
class SqliteEvents(EventStore):
    """The event store of an embedded log."""

    threads: LogThreads
    limits: Limits

    def append(self, append: Append, callback: AppendCallback, /) -> None:
        self.threads.enqueue(append, callback)

    async def read(self, key: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        limits = self.limits
        rows = min(rows or limits.page_rows, limits.page_rows)
        return await self.threads.read_events(read_page, key, after, upto, rows, limits.page_bytes)

    async def find_message_before(self, key: Key, run_id: str, seq: int) -> tuple[str, str] | None:
        return await self.threads.read_events(find_streamed_message, key, run_id, seq)

    async def expire(self, before: int, max_bytes: int) -> dict[Key, int]:
        threads = self.threads
        await threads.submit(EventDrop(()))  # moves all events to `strips`, the only table that the queries read
        await self.purge()
        floors = await self._drop(OLD_EVENTS, {"before": before})
        used_bytes = await threads.query_json(
            """
            SELECT CAST((page_count - freelist_count) * page_size AS TEXT)
            FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()""",
            (),
        )
        if used_bytes > max_bytes:
            floors |= await self._drop(EXCESS_EVENTS, {"bytes": max_bytes})
        return floors

    async def purge(self, thoroughly: bool = False) -> None:
        await self._drop(DELETED_EVENTS, {})
        if thoroughly:
            await self.threads.submit(WalTruncation())

    async def _drop(self, statement: str, values: dict[str, int]) -> dict[Key, int]:
        """Delete the events that a query selects, but none from the start of an unfinished run on (see changes.py).

        Return the new floor of each session that lost events.
        """
        ranges = [DropRange(*fields) for fields in await self.threads.query_json(statement, values)]
        old_floors = {drop.key: drop.floor for drop in ranges}
        floors: dict[Key, int] = {}
        for new_floors in _split_drops(ranges):
            floors |= await self.threads.submit(EventDrop(new_floors))
        return {key: floor for key, floor in floors.items() if floor > old_floors[key]}


def _split_drops(ranges: Sequence[DropRange]) -> Iterator[list[NewFloor]]:
    """Yield the new floors for one commit at a time. Each commit deletes at most MAX_DROPPED_EVENTS events."""
    floors: list[NewFloor] = []
    capacity = MAX_DROPPED_EVENTS
    for key, epoch, floor, upto in ranges:
        while floor < upto:
            count = min(capacity, upto - floor)
            floor += count
            capacity -= count
            floors.append(NewFloor(key, epoch, floor))
            if capacity == 0:
                yield floors
                floors, capacity = [], MAX_DROPPED_EVENTS
    if floors:
        yield floors
