"""The client's cursor on the log of one session."""

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakSet

import attrs

from hub.client.failures import Failure
from hub.client.frames import is_end
from hub.client.reader import Reader
from hub.messages import Chunk, Event, Reset, RunStarted, Subscribed

if TYPE_CHECKING:
    from hub.client.session import Session


@attrs.define(eq=False, kw_only=True)
class Feed:
    """A cursor on a session's log. Only reset() may move the cursor back.

    *seq* is None before the first event of a subscription without a cursor. If *is_subscribed*, the feed gets all
    events of its session, and skips none. Otherwise the feed gets only the runs of agents that the program reads, so
    the seqs have gaps. If *is_subscribing*, the feed waits for the answer to its last subscribe. Until then the client
    ignores events of the session, because the hub sends them again after the answer.
    """

    id: str
    seq: int | None = None
    epoch: str | None = None
    handles: "set[Session]" = attrs.Factory(set)  # the open sessions of the program
    is_subscribed: bool = False
    is_subscribing: bool = False
    waits_for_chat: bool = False  # if the session is missing: a chat of the program may make it
    missing_after: int | None = None  # the seq after which an event was missing
    failure: Failure | None = None
    first_reply: asyncio.Event = attrs.Factory(asyncio.Event)  # set by the answer to the first subscribe, or by fail()
    readers: WeakSet[Reader] = attrs.Factory(WeakSet)
    runs: set[str] = attrs.Factory(set)  # the ids of active runs
    _active: frozenset[str] = frozenset()  # the active runs in the answer to the last subscribe
    _head: int | None = None  # the head in the same answer; None if a run was active, and after an event
    # By message id: the run of the message, and the length of its text so far.
    _open_messages: dict[str, tuple[str | None, int]] = attrs.Factory(dict)

    @property
    def is_wanted(self) -> bool:
        """Whether the program reads the session: then the client subscribes again after each reconnect."""
        return bool(self.handles) or any(reader.inbox.is_open for reader in self.readers)

    @property
    def is_unsubscribed(self) -> bool:
        return not (self.is_subscribed or self.is_subscribing)

    def cursor(self) -> dict[str, int | str]:
        """Return the cursor as fields of a `subscribe` command."""
        if self.seq is None:
            return {}
        return {"afterSeq": self.seq} | ({"epoch": self.epoch} if self.epoch else {})

    def confirm(self, answer: Subscribed) -> None:
        """Accept events from now on. *answer* is the answer to the last subscribe."""
        self.is_subscribed, self.is_subscribing = True, False
        self._active = frozenset(run["runId"] for run in answer.active or ())
        self.runs |= self._active
        self._head = None if answer.active else answer.seq
        if self.seq is None:
            self.seq = self._head
        self.epoch = self.epoch or answer.epoch
        self.first_reply.set()

    def wait_for_chat(self) -> None:
        """Stay unsubscribed: the session does not exist, or the principal may not read it."""
        self.is_subscribing = False
        self.first_reply.set()

    def disconnect(self) -> None:
        self.is_subscribed = self.is_subscribing = False

    def fail(self, failure: Failure) -> None:
        self.failure = failure
        self.first_reply.set()
        for reader in list(self.readers):
            reader.fail(failure)

    def reset(self, reset: Reset) -> None:
        """Replace the invalid cursor by the cursor of a new subscription. Reset all readers."""
        self.seq, self.epoch, self._head, self.missing_after = self._head, reset.epoch, None, None
        self._open_messages, self.runs = {}, set(self._active)
        for reader in list(self.readers):
            reader.reset(reset)

    def is_next(self, event: Event) -> bool:
        """Return whether the event is of the same epoch, and no event is missing before it.

        Without a cursor or a subscription to the session, no event counts as missing. The hub may merge several chunks
        of one message into one event, with the seq of the last chunk and the offset of the first one.
        """
        if self.epoch not in (None, event.epoch):
            return False
        if not self.is_subscribed or self.seq is None or event.seq == self.seq + 1:
            return True
        body = event.body
        return (
            isinstance(body, Chunk) and self._open_messages.get(body.messageId, (None, body.offset))[1] == body.offset
        )

    def is_old(self, event: Event) -> bool:
        """Return whether the event is at or before the cursor, in the same epoch."""
        return self.epoch in (None, event.epoch) and self.seq is not None and event.seq <= self.seq

    def deliver(self, event: Event) -> None:
        """Move the cursor to this event, and pass the event to all readers."""
        self.seq, self.epoch, self._head, self.missing_after = event.seq, event.epoch, None, None
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
