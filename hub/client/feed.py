"""One session as this client hears it: a cursor on its log."""

import asyncio
from weakref import WeakSet

import attrs

from hub.client.failures import Failure
from hub.client.frames import is_end
from hub.client.reader import Reader
from hub.messages import Chunk, Event, Reset, RunStarted, Subscribed


@attrs.define(eq=False, kw_only=True)
class Feed:
    """A cursor on a session's log, that never goes back and never jumps.

    *seq* is None where the session was joined without a cursor and nothing came yet. A *joined* feed hears all of its
    session; else only the runs of an agent's group, whose numbers are not dense. While it is *stale*, nothing counts
    until the last subscribe is answered: what comes before that answer comes again after it.
    """

    id: str
    seq: int | None = None
    epoch: str | None = None
    kept: bool = False  # asked for by somebody: joined again after each reconnect
    joined: bool = False
    stale: bool = False
    hole: int | None = None  # the cursor after which something was missing
    failure: Failure | None = None
    answered: asyncio.Event = attrs.Factory(asyncio.Event)
    readers: WeakSet[Reader] = attrs.Factory(WeakSet)
    runs: set[str] = attrs.Factory(set)  # that have started and not ended
    _active: frozenset[str] = frozenset()  # of these, those that were going on at the last subscribe
    _head: int | None = None  # where a new client starts, where that was told
    _said: dict[str, tuple[str | None, int]] = attrs.Factory(dict)  # of each open message: its run, its length

    def cursor(self) -> dict[str, int | str]:
        """Return where to go on, as `subscribe` takes it."""
        if self.seq is None:
            return {}
        return {"afterSeq": self.seq} | ({"epoch": self.epoch} if self.epoch else {})

    def join(self, answer: Subscribed) -> None:
        """Listen from here on: *answer* is that to the last subscribe."""
        self.joined, self.stale = True, False
        self._active = frozenset(run["runId"] for run in answer.active or ())
        self.runs |= self._active
        self._head = None if answer.active else answer.seq
        if self.seq is None:
            self.seq = self._head
        self.epoch = self.epoch or answer.epoch
        self.answered.set()

    def cut(self) -> None:
        self.joined = self.stale = False

    def fail(self, failure: Failure) -> None:
        self.failure = failure
        self.answered.set()
        for reader in list(self.readers):
            reader.fail(failure)

    def reset(self, reset: Reset) -> None:
        """Forget the place: it means nothing in this log. What follows is as for a new client."""
        self.seq, self.epoch, self._head, self.hole = self._head, reset.epoch, None, None
        self._said, self.runs = {}, set(self._active)
        for reader in list(self.readers):
            reader.reset(reset)

    def fits(self, event: Event) -> bool:
        """Tell whether nothing is missing before *event*: only chunks of one message travel together, as one."""
        if self.epoch not in (None, event.epoch):
            return False
        if not self.joined or self.seq is None or event.seq == self.seq + 1:
            return True
        body = event.body
        return isinstance(body, Chunk) and self._said.get(body.messageId, (None, body.offset))[1] == body.offset

    def old(self, event: Event) -> bool:
        return self.epoch in (None, event.epoch) and self.seq is not None and event.seq <= self.seq

    def take(self, event: Event) -> None:
        """Hand an event that fits to all readers."""
        self.seq, self.epoch, self._head, self.hole = event.seq, event.epoch, None, None
        body = event.body
        if isinstance(body, RunStarted):
            self.runs.add(event.runId or "")
            self._said[body.messageId] = (event.runId, 0)
        elif isinstance(body, Chunk):
            self._said[body.messageId] = (event.runId, body.offset + len(body.content))
        elif is_end(event):
            self.runs.discard(event.runId or "")
            self._said = {key: value for key, value in self._said.items() if value[0] != event.runId}
        for reader in list(self.readers):
            reader.put(event)
