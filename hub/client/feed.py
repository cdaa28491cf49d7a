"""The client's cursor on the log of one session."""

import asyncio
from weakref import WeakSet

import attrs

from hub.client.failures import Failure
from hub.client.frames import is_end
from hub.client.reader import Reader
from hub.messages import Chunk, Event, Reset, RunStarted, Subscribed


@attrs.define(eq=False, kw_only=True)
class Feed:
    """A cursor on a session's log: it never goes back, and never skips an event.

    *seq* is None before the first event of a subscription without a cursor. A feed that *is_joined* gets all events of
    its session. Any other feed gets the runs of an agent's group, and their seqs are not dense. A feed that *is_stale*
    waits for the answer to its last subscribe, and ignores events until then: the hub sends them again.
    """

    id: str
    seq: int | None = None
    epoch: str | None = None
    is_wanted: bool = False  # the program reads it: subscribe again after each reconnect
    is_joined: bool = False
    is_stale: bool = False
    gap: int | None = None  # the cursor after which an event was missing
    failure: Failure | None = None
    first_answer: asyncio.Event = attrs.Factory(asyncio.Event)
    readers: WeakSet[Reader] = attrs.Factory(WeakSet)
    runs: set[str] = attrs.Factory(set)  # ids of runs that have started and not ended
    _active: frozenset[str] = frozenset()  # the runs among them that the last subscribe reported
    _head: int | None = None  # the seq at which a new client starts, if it is known
    _open_messages: dict[str, tuple[str | None, int]] = attrs.Factory(
        dict
    )  # by message id: its run, and its length so far

    def cursor(self) -> dict[str, int | str]:
        """Return the cursor as fields of a `subscribe` command."""
        if self.seq is None:
            return {}
        return {"afterSeq": self.seq} | ({"epoch": self.epoch} if self.epoch else {})

    def join(self, answer: Subscribed) -> None:
        """Accept events from now on; *answer* answers the last subscribe."""
        self.is_joined, self.is_stale = True, False
        self._active = frozenset(run["runId"] for run in answer.active or ())
        self.runs |= self._active
        self._head = None if answer.active else answer.seq
        if self.seq is None:
            self.seq = self._head
        self.epoch = self.epoch or answer.epoch
        self.first_answer.set()

    def disconnect(self) -> None:
        self.is_joined = self.is_stale = False

    def fail(self, failure: Failure) -> None:
        self.failure = failure
        self.first_answer.set()
        for reader in list(self.readers):
            reader.fail(failure)

    def reset(self, reset: Reset) -> None:
        """Drop the cursor, which is invalid in this log, and start like a new client."""
        self.seq, self.epoch, self._head, self.gap = self._head, reset.epoch, None, None
        self._open_messages, self.runs = {}, set(self._active)
        for reader in list(self.readers):
            reader.reset(reset)

    def is_next(self, event: Event) -> bool:
        """Return whether no event is missing before this one.

        The hub may merge several chunks of one message into one event: then seq jumps, and the offset fits.
        """
        if self.epoch not in (None, event.epoch):
            return False
        if not self.is_joined or self.seq is None or event.seq == self.seq + 1:
            return True
        body = event.body
        return (
            isinstance(body, Chunk) and self._open_messages.get(body.messageId, (None, body.offset))[1] == body.offset
        )

    def is_old(self, event: Event) -> bool:
        return self.epoch in (None, event.epoch) and self.seq is not None and event.seq <= self.seq

    def deliver(self, event: Event) -> None:
        """Move the cursor to this event, and pass the event to all readers."""
        self.seq, self.epoch, self._head, self.gap = event.seq, event.epoch, None, None
        body = event.body
        if isinstance(body, RunStarted):
            self.runs.add(event.runId or "")
            self._open_messages[body.messageId] = (event.runId, 0)
        elif isinstance(body, Chunk):
            self._open_messages[body.messageId] = (event.runId, body.offset + len(body.content))
        elif is_end(event):
            self.runs.discard(event.runId or "")
            self._open_messages = {key: value for key, value in self._open_messages.items() if value[0] != event.runId}
        for reader in list(self.readers):
            reader.put(event)
