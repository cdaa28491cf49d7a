"""Events on their way to the log, and the append of a batch of them."""

import asyncio
from collections.abc import Callable, Mapping

from hub.access.records import UsageRecord
from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.messages import Chunk, Event, HistoryMessage, Request
from hub.storage.records import Append, ChatRecord, RunRecord

# Called with the seq of an event when the log holds the event, or with the error if a refusable event is dropped.
ResultCallback = Callable[[int | StorageUnavailable], None]


class PendingChunk(Event, eq=False, kw_only=True):
    """A chunk on its way to the log.

    When the log holds the chunk, *on_logged* is called with *size*, the number of the chunk's bytes. *pieces* is None
    until a second text joins the chunk; then *pieces* has all texts of the chunk. *time* is the loop's time at the
    first text.
    """

    time: float
    on_logged: Callable[[int], None]
    size: int
    pieces: list[str] | None = None

    def join(self, text: str, size: int) -> None:
        """Append a text of *size* bytes."""
        if self.pieces is None:
            assert isinstance(self.body, Chunk)
            self.pieces = [self.body.content]
        self.pieces.append(text)
        self.size += size

    def close(self) -> None:
        """Build the text of the chunk from its pieces. No join() may follow."""
        if self.pieces is not None:
            assert isinstance(self.body, Chunk)
            self.body.content = "".join(self.pieces)


class PendingEvent(Event, eq=False, kw_only=True):
    """An event other than a chunk on its way to the log, and the rows that its commit writes.

    If an append fails, a refusable event is dropped. Every other event is retried until the append succeeds. *request*
    is the request of its message. For *file_copies* see Append.
    """

    messages: tuple[HistoryMessage, ...] = ()
    run_records: tuple[RunRecord, ...] = ()
    ended_runs: tuple[str, ...] = ()
    removed_messages: tuple[str, ...] = ()
    chat: ChatRecord | None = None
    usage: tuple[UsageRecord, ...] = ()
    request: Request | None = None
    file_copies: Mapping[str, str] = {}
    on_result: ResultCallback | None = None
    is_refusable: bool = False


def attach_future(event: PendingEvent, on_result: ResultCallback = lambda result: None) -> "asyncio.Future[int]":
    """Return a future for the result of an event: its seq, or StorageUnavailable if the event is dropped.

    *on_result* is called before the future is done.
    """
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def resolve(result: int | StorageUnavailable) -> None:
        try:
            on_result(result)
        finally:
            if not future.done():
                future.set_result(result) if isinstance(result, int) else future.set_exception(result)

    event.on_result = resolve
    return future


def make_append(key: Key, batch: list[PendingEvent | PendingChunk], owner: str) -> Append:
    """Return the append of a batch: its events, and the rows that its commit writes."""
    messages: list[tuple[int, HistoryMessage]] = []
    run_records: list[RunRecord] = []
    ended_runs: list[str] = []
    chats: list[tuple[int, ChatRecord]] = []
    removed_messages: list[str] = []
    usage: list[UsageRecord] = []
    requests: dict[str, Request] = {}
    file_copies: dict[str, str] = {}
    for index, event in enumerate(batch):
        if isinstance(event, PendingChunk):
            continue
        messages += [(index, message) for message in event.messages]
        run_records += event.run_records
        ended_runs += event.ended_runs
        removed_messages += event.removed_messages
        usage += event.usage
        file_copies |= event.file_copies
        if event.request is not None:
            requests |= dict.fromkeys([message.messageId for message in event.messages], event.request)
        if event.chat is not None:
            chats.append((index, event.chat))
    return Append(
        key,
        batch,
        messages,
        saved_runs=run_records,
        ended_runs=ended_runs,
        chats=chats,
        removed_messages=removed_messages,
        owner=owner,
        usage=usage,
        requests=requests,
        file_copies=file_copies,
    )
