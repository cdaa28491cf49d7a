"""The records of delivery: a session as its listeners see it, and a connection's cursor on it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import attrs

from hub.errors import SessionDeleted
from hub.ids import Key, id_of
from hub.messages import Author, Event
from hub.protocols import WireProtocol

if TYPE_CHECKING:
    from hub.delivery.connection import Connection

Index = TypeVar("Index")


@attrs.define(eq=False, repr=False, kw_only=True)
class Subscription:
    """A connection's cursor on one session's log.

    While it is live its position is the channel's head, and *cursor* means nothing. *runs* limits it to those runs
    (a listener of an agent's group); None is everything. Events of *heard* runs up to *heard_upto* are skipped: an
    earlier subscription of a group delivered them. A subscription that wants whole messages (*whole*, or the runs in
    *whole_runs*) is never live: it is always read from the log, which has the text. *read* says that it has had a page
    since it fell behind.
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
        """Return whether it hears every event as the log has it: what it reads, others read too."""
        return self.runs is None and not self.heard and not self.whole and not self.whole_runs

    def skips(self, event: Event) -> bool:
        if self.runs is not None:
            return event.runId not in self.runs
        return event.runId in self.heard and event.seq <= self.heard_upto


# For each live subscription: the socket's file descriptor for direct writes, or -1 to go through the transport (in
# by_run always).
Descriptors = dict[Subscription, int]


@attrs.define(eq=False, repr=False, kw_only=True)
class Channel:
    """One session as its listeners see it: where it stands, which runs are going on, who listens.

    *head* is the last seq handed to deliver; *active* holds the seq of each going run's `run_started`. A subscription
    is in *live* (or, where it hears some runs only, in *by_run*), in *paged* (read from the log, at its head), or on
    its way there in its connection's catch-up. *deleted* says that all were told so, and that nobody may join any more.
    *id* is the session's, as clients know it. While nothing was kept in it the session does not exist: there is no
    *epoch*.
    """

    key: Key
    epoch: str | None = None
    head: int = 0
    floor: int = 0
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

    def place(self, sub: Subscription) -> None:
        """Put a subscription that has met the head where deliveries find it."""
        if sub.whole or sub.whole_runs:
            self.paged.add(sub)
            return
        sub.live = True
        if sub.runs is None:
            self.live.setdefault(sub.connection.protocol, {})[sub] = sub.connection.transport.way
        else:
            for run_id in sub.runs:
                self.by_run.setdefault(run_id, {})[sub] = -1

    def unplace(self, sub: Subscription) -> None:
        """Let nothing that is delivered reach a subscription."""
        sub.live = False
        self.paged.discard(sub)
        _take_out(self.live, (sub.connection.protocol,), sub)
        _take_out(self.by_run, sub.runs or (), sub)

    def reroute(self, sub: Subscription) -> None:
        """Reach a subscription by the way that its connection has now."""
        if sub.live and sub.runs is None:
            self.live[sub.connection.protocol][sub] = sub.connection.transport.way

    def check(self) -> None:
        """Raise AssertionError where the indexes do not fit together; for tests, between any two steps of the loop."""
        assert all(self.live.values()) and all(self.by_run.values()), "an index is empty and still there"
        assert self.floor <= self.head and all(0 < seq <= self.head for seq in self.active.values())
        for sub in self.subscriptions:
            connection = sub.connection
            assert not sub.closed and sub.channel is self and connection.subscriptions[self.key] is sub
            in_live = [protocol for protocol, there in self.live.items() if sub in there]
            in_runs = {run_id for run_id, there in self.by_run.items() if sub in there}
            is_behind, is_paged = sub in connection.catchup.behind, sub in self.paged
            assert sub.live == bool(in_live or in_runs), "live says where it is"
            assert connection.closed or sub.live + is_paged + is_behind == 1, "it is in one place"
            assert in_live in ([], [connection.protocol]) and not (in_live and in_runs)
            assert not in_live or self.live[connection.protocol][sub] == connection.transport.way
            assert not in_runs or in_runs == sub.runs
            assert sub.runs is None or sub.runs, "one who hears some runs hears one at least"
        strangers = {*self.paged, *(sub for there in (*self.live.values(), *self.by_run.values()) for sub in there)}
        assert strangers <= self.subscriptions, "who left is in no index"


def _take_out(indexes: dict[Index, Descriptors], names: Iterable[Index], sub: Subscription) -> None:
    for name in names:
        there = indexes.get(name, {})
        if there.pop(sub, None) is not None and not there:
            del indexes[name]
