"""The records of delivery: a session as its listeners see it, and a connection's cursor on it."""

from typing import TYPE_CHECKING

import attrs

from hub.errors import SessionDeleted
from hub.ids import Key, id_of
from hub.messages import Author, Event
from hub.protocols import WireProtocol

if TYPE_CHECKING:
    from hub.delivery.connection import Connection


@attrs.define(eq=False, repr=False)
class Subscription:
    """A connection's cursor on one session's log.

    While it is live its position is the channel's head, and *cursor* means nothing. *runs* limits it to those runs
    (a listener of an agent's group); None is everything. *heard* are runs of which everything up to *heard_upto* was
    already said, by such a limited subscription before this one. A subscription that wants whole messages (*whole*, or
    the runs in *whole_runs*) is never live: it is always read from the log, which has the text. *read* says that it has
    had a page since it fell behind.
    """

    connection: "Connection"
    channel: "Channel"
    cursor: int
    runs: set[str] | None = None
    whole: bool = False
    whole_runs: frozenset[str] = frozenset()
    heard: frozenset[str] = frozenset()
    heard_upto: int = 0
    live: bool = False
    read: bool = False
    greeted: bool = False
    closed: bool = False

    def wants_whole(self, run_id: str | None) -> bool:
        return self.whole or run_id in self.whole_runs

    def hears_all(self) -> bool:
        """Say whether it hears every event as the log has it: what it reads, others read too."""
        return self.runs is None and not self.heard and not self.whole and not self.whole_runs

    def skips(self, event: Event) -> bool:
        if self.runs is not None:
            return event.runId not in self.runs
        return event.runId in self.heard and event.seq <= self.heard_upto


# For each live subscription: the socket's file descriptor for direct writes, or -1 to go through the transport (in
# by_run always).
Descriptors = dict[Subscription, int]


@attrs.define(eq=False, repr=False)
class Channel:
    """One session as its listeners see it: where it stands, which runs are going on, who listens.

    *head* is the last seq handed to deliver; *active* holds the seq of each going run's `run_started`. A subscription
    is in *live* (or, where it hears some runs only, in *by_run*), in *paged* (read from the log, at its head), or on
    its way there in its connection's catch-up. *deleted* says that all were told so, and that nobody may join any more.
    *id* is the session's, as clients know it.
    """

    key: Key
    epoch: str
    head: int
    floor: int
    deleted: bool = False
    active: dict[str, int] = attrs.Factory(dict)
    subscriptions: set[Subscription] = attrs.Factory(set)
    live: dict[WireProtocol, Descriptors] = attrs.Factory(dict)
    by_run: dict[str, Descriptors] = attrs.Factory(dict)
    paged: set[Subscription] = attrs.Factory(set)
    id: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.id = id_of(self.key)

    def join_point(self) -> int:
        """Return the cursor of one who comes without: the head, or just before the oldest run that is going on."""
        return min(self.active.values()) - 1 if self.active else self.head

    def refuse_if_deleted(self) -> None:
        if self.deleted:
            raise SessionDeleted(self.id)

    def members(self) -> list[Author]:
        return [sub.connection.principal for sub in self.subscriptions if sub.runs is None]
