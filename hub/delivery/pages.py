"""A cache of log pages for catch-up. A cached page is read once, and encoded once for each protocol."""

import asyncio
from collections.abc import Sequence
from sys import getsizeof
from typing import NamedTuple

import attrs
import orjson
from msgspec.structs import replace

from hub.ids import Key
from hub.limits import Limits
from hub.messages import Chunk, Event
from hub.protocols import WireProtocol
from hub.storage.log import EventStore

# The memory of a decoded JSON value, as a multiple of its text: measured for tool arguments and state snapshots.
JSON_MEMORY_FACTOR = 4
EVENT_MEMORY_BYTES = 500  # the memory of an event without its text: tracemalloc reports 450 in the SQLite log


class PageKey(NamedTuple):
    """The key of a page that starts after *cursor* in one epoch of a session."""

    session: Key
    epoch: str | None
    cursor: int


@attrs.define(eq=False, kw_only=True)
class LogPage:
    """Events of a session in order: the first events that the log has after the cursor of *key*.

    *head* was the session's head at the time of the read. *frames* has the encoding of all events for each shared
    protocol that has used the page. *size* is an estimate of the memory of a cached page in bytes.

    A page never becomes invalid, because the log is append-only.
    """

    key: PageKey
    head: int
    events: Sequence[Event]
    frames: dict[WireProtocol, bytes] = attrs.Factory(dict)
    size: int = 0

    def is_contiguous(self) -> bool:
        """Return whether the page begins with the event after the cursor, in the epoch of *key*.

        If not, retention has deleted that event, or the session was deleted and made again.
        """
        _, epoch, cursor = self.key
        return bool(self.events) and (self.events[0].epoch, self.events[0].seq) == (epoch, cursor + 1)

    def has_half(self, head: int) -> bool:
        """Return True if the page has at least half of the events after its cursor, up to *head*."""
        return 2 * (self.events[-1].seq - self.key.cursor) >= head - self.key.cursor


@attrs.define(eq=False, repr=False, kw_only=True)
class PageCache:
    """Reads pages for all clients. Concurrent reads of one page share a single query (single flight).

    *size* is the total size of the cached pages. Above `kept_page_bytes`, the least recently used page is evicted.
    A cached page never ends after the session's head, because the head does not move back within an epoch.
    """

    store: EventStore
    limits: Limits
    size: int = 0
    _pages: dict[PageKey, LogPage] = attrs.Factory(dict)
    _reads: dict[PageKey, asyncio.Task[LogPage]] = attrs.Factory(dict)

    async def read(
        self, session: Key, epoch: str | None, cursor: int, head: int, max_rows: int | None = None
    ) -> LogPage:
        """Return a page of the events after *cursor*; see EventStore.read() for *max_rows*.

        *head* is the session's head. The page may end before the head, but is empty only if the log has no event after
        *cursor* up to *head*. Raises LogDamaged, StorageUnavailable.
        """
        key = PageKey(session, epoch, cursor)
        page = self._pages.get(key)
        # A page that was read near the head is short. A client that lags far gets one new, long page instead of many
        # short ones: a cached page is used only if it has half of the missing events, or is large.
        if page is not None and (page.has_half(head) or 2 * page.size > self.limits.page_bytes):
            self._pages[key] = self._pages.pop(key)
            await asyncio.sleep(0)  # a series of cached pages must not block the loop
            return page
        if key not in self._reads:
            self._reads[key] = asyncio.create_task(self._read(key, head, max_rows))
        return await asyncio.shield(self._reads[key])  # cancelling one reader must not cancel the others

    async def _read(self, key: PageKey, head: int, max_rows: int | None) -> LogPage:
        try:
            page = LogPage(key=key, head=head, events=await self.store.read(key.session, key.cursor, head, max_rows))
        finally:
            is_current = self._reads.get(key) is asyncio.current_task()  # else evict_session() was called meanwhile
            if is_current:
                del self._reads[key]
        if is_current and page.is_contiguous():
            self._evict(key)
            self._pages[key] = page
            self._grow(page, sum(map(_estimate_size, page.events)))
        return page

    def encode(self, page: LogPage, protocol: WireProtocol) -> bytes:
        """Return the frames of all events of a page. Clients of the same shared protocol get the same bytes."""
        # As a key of *frames*, a protocol that is not shared would keep its one client and request in memory.
        if not protocol.is_shared:
            return protocol.events(merge_chunks(page.events, self.limits.page_bytes))
        if protocol not in page.frames:
            data = page.frames[protocol] = protocol.events(merge_chunks(page.events, self.limits.page_bytes))
            self._grow(page, len(data))
        return page.frames[protocol]

    def evict_session(self, session: Key) -> None:
        """Evict the pages of a session that was deleted, or in which messages were erased."""
        for key in [key for key in self._reads if key.session == session]:
            del self._reads[key]
        for key in [key for key in self._pages if key.session == session]:
            self._evict(key)

    def _grow(self, page: LogPage, size: int) -> None:
        """Add *size* bytes to a page, and to the cache if the page is in it. Evict pages until the limit is kept."""
        page.size += size
        if self._pages.get(page.key) is page:
            self.size += size
        while self.size > self.limits.kept_page_bytes:
            self._evict(next(iter(self._pages)))

    def _evict(self, key: PageKey) -> None:
        page = self._pages.pop(key, None)
        if page is not None:
            self.size -= page.size


def _estimate_size(event: Event) -> int:
    """Return an estimate of an event's memory in bytes."""
    body = event.body
    if type(body) is Chunk:
        return EVENT_MEMORY_BYTES + getsizeof(body.content)
    return EVENT_MEMORY_BYTES + JSON_MEMORY_FACTOR * len(orjson.dumps(attrs.asdict(body)))


def merge_chunks(events: Sequence[Event], max_bytes: int) -> list[Event]:
    """Merge consecutive chunks of one message.

    The merged event has the seq of the last chunk, and the offset of the first chunk.
    Only chunks with consecutive seqs are merged: after a frame with seq x, the client must have all events up to x.
    A merged text has at most *max_bytes* of UTF-8. A single longer chunk stays as it is.
    """
    merged_events: list[Event] = []
    texts: list[str] = []
    first: Chunk | None = None
    size = 0
    for event in events:
        chunk = event.body if isinstance(event.body, Chunk) else None
        text = chunk.content if chunk is not None else ""
        text_bytes = len(text) if text.isascii() else len(text.encode())
        is_same_message = chunk is not None and first is not None and chunk.messageId == first.messageId
        if is_same_message and event.seq == merged_events[-1].seq + 1 and size + text_bytes <= max_bytes:
            merged_events[-1] = event
            texts.append(text)
            size += text_bytes
            continue
        _join_texts(merged_events, first, texts)
        merged_events.append(event)
        first, texts, size = chunk, [text], text_bytes
    _join_texts(merged_events, first, texts)
    return merged_events


def _join_texts(merged_events: list[Event], first: Chunk | None, texts: list[str]) -> None:
    """Replace the last event's text by the joined *texts*. *first* is the first of the merged chunks."""
    if first is not None and len(texts) > 1:
        merged_events[-1] = replace(merged_events[-1], body=attrs.evolve(first, content="".join(texts)))
