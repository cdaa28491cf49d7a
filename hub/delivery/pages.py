"""What clients catch up with: pages of the log, read once and encoded once for all who need them."""

import asyncio
from collections.abc import Sequence
from sys import getsizeof

import attrs
import orjson
from msgspec.structs import replace

from hub.ids import Key
from hub.limits import Limits
from hub.messages import Chunk, Event
from hub.protocols import WireProtocol
from hub.storage.log import EventStore

# A JSON value in memory takes so many times the bytes of its text: measured for tool arguments and state snapshots.
JSON_WEIGHT = 4
EVENT_BYTES = 500  # of an event beside its text; tracemalloc says 450 for a page of the SQLite log

PageKey = tuple[Key, str | None, int]  # the key of a session, its epoch, and the seq after which a page starts


@attrs.define(eq=False, kw_only=True)
class LogPage:
    """Neighbours in a session's log: the first of those that came after its place when the log had *upto*.

    The log is only ever added to, so a page stays true. *encoded* is all of it as a protocol says it.
    """

    place: PageKey
    upto: int
    events: Sequence[Event]
    encoded: dict[WireProtocol, bytes] = attrs.Factory(dict)
    size: int = 0

    def sound(self) -> bool:
        """Say whether it follows its place without a gap; where retention went past the place it does not."""
        _, epoch, after = self.place
        return bool(self.events) and (self.events[0].epoch, self.events[0].seq) == (epoch, after + 1)

    def halfway(self, upto: int) -> bool:
        after, last = self.place[2], self.events[-1].seq
        return 2 * (last - after) >= upto - after


@attrs.define(eq=False, repr=False, kw_only=True)
class PageCache:
    """Stands between those who catch up and the log: one read for all who are at the same place.

    What was read lately is kept, *kept_page_bytes* of it at most; the least recently used goes. A page is never past
    the head of one who asks: the head of a session does not go back while its epoch stays.
    """

    store: EventStore
    limits: Limits
    size: int = 0
    _kept: dict[PageKey, LogPage] = attrs.Factory(dict)
    _reads: dict[PageKey, asyncio.Task[LogPage]] = attrs.Factory(dict)

    async def read(self, key: Key, epoch: str | None, after: int, upto: int, rows: int | None = None) -> LogPage:
        """Return what follows *after*, where the session's head is *upto*; see EventStore.read for *rows*.

        The page may end before *upto*; as with the log's own, it has an event where there is one.
        """
        place = (key, epoch, after)
        page = self._kept.get(place)
        # A page that was read at the head is short. Who lacks more takes it where it is half of the way, and so goes
        # through few even of many such pages; otherwise they are read anew, as one.
        if page is not None and (page.halfway(upto) or 2 * page.size > self.limits.page_bytes):
            self._kept[place] = self._kept.pop(place)
            await asyncio.sleep(0)  # many pages in a row, none of them waited for, must not hold the loop
            return page
        if place not in self._reads:
            self._reads[place] = asyncio.create_task(self._read(place, upto, rows))
        return await asyncio.shield(self._reads[place])  # one who is cancelled does not take the others' page away

    async def _read(self, place: PageKey, upto: int, rows: int | None) -> LogPage:
        key, _, after = place
        try:
            page = LogPage(place=place, upto=upto, events=await self.store.read(key, after, upto, rows))
        finally:
            del self._reads[place]
        if page.sound():
            self._drop(place)
            self._kept[place] = page
            self._count(page, sum(map(_weight, page.events)))
        return page

    def encode(self, page: LogPage, protocol: WireProtocol) -> bytes:
        """Return all of the page as *protocol* says it, made once for all who speak it."""
        if not protocol.shared:  # kept, it would keep its one client's request and session, too
            return protocol.events(merged(page.events, self.limits.page_bytes))
        if protocol not in page.encoded:
            data = page.encoded[protocol] = protocol.events(merged(page.events, self.limits.page_bytes))
            self._count(page, len(data))
        return page.encoded[protocol]

    def forget(self, key: Key) -> None:
        """Drop what is kept of a session that was deleted."""
        for place in [place for place in self._kept if place[0] == key]:
            self._drop(place)

    def _count(self, page: LogPage, size: int) -> None:
        """Add to what a page takes, and let others go for it."""
        page.size += size
        if self._kept.get(page.place) is page:
            self.size += size
        while self.size > self.limits.kept_page_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, place: PageKey) -> None:
        page = self._kept.pop(place, None)
        if page is not None:
            self.size -= page.size


def _weight(event: Event) -> int:
    """Return about the bytes that an event takes in memory."""
    body = event.body
    if type(body) is Chunk:
        return EVENT_BYTES + getsizeof(body.content)
    return EVENT_BYTES + JSON_WEIGHT * len(orjson.dumps(attrs.asdict(body)))


def merged(events: Sequence[Event], limit: int) -> list[Event]:
    """Join chunks of one message that are neighbours in the log; a joined one carries the last seq.

    Only neighbours: after a frame with seq x the client must have had everything up to x. *limit* bounds a joined
    chunk, in bytes of UTF-8.
    """
    out: list[Event] = []
    texts: list[str] = []
    first: Chunk | None = None
    size = 0
    for event in events:
        chunk = event.body if isinstance(event.body, Chunk) else None
        text = chunk.content if chunk is not None else ""
        more = len(text) if text.isascii() else len(text.encode())
        goes_on = chunk is not None and first is not None and chunk.messageId == first.messageId
        if goes_on and event.seq == out[-1].seq + 1 and size + more <= limit:
            out[-1] = event
            texts.append(text)
            size += more
            continue
        _close(out, first, texts)
        out.append(event)
        first, texts, size = chunk, [text], more
    _close(out, first, texts)
    return out


def _close(out: list[Event], first: Chunk | None, texts: list[str]) -> None:
    """Put the text of a joined chunk together, once; the rest of it is its last event's."""
    if first is not None and len(texts) > 1:
        out[-1] = replace(out[-1], body=attrs.evolve(first, content="".join(texts)))
