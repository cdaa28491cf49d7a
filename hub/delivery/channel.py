"""The records of delivery: a session's channel, and the subscriptions to it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import attrs

from hub.errors import SessionDeleted
from hub.ids import Key, id_of
from hub.messages import Author, Event
from hub.protocols import WireProtocol

if TYPE_CHECKING:
    from hub.delivery.connection import Connection

IndexKey = TypeVar("IndexKey")


@attrs.define(eq=False, repr=False, kw_only=True)
class Subscription:
    """A connection's cursor on the log of one session.

    A subscription is in one of three states:

    * live: at the head. Each event is delivered as soon as it is in the log; *cursor* is unused.
    * paged: at the head, with whole messages. A new event that has a frame for the subscription makes it lag, because
      only the log has the whole text.
    * lagging: the connection's catch-up task reads the events after *cursor* from the log.

    *run_ids* limits the subscription to these runs, for an agent's group. It is None in a subscription to the session.
    With *whole_messages*, the text of all runs is delivered as whole messages; with *whole_run_ids*, only the text of
    these runs. A subscription with one of the two is never live.

    Events of *delivered_run_ids* up to *delivered_seq* are skipped: a group's subscription has delivered them.
    *has_page* is True if a page was sent since the last CatchUp.read_from().
    *has_caught_up* is True if the subscription was paged before.
    """

    connection: "Connection"
    channel: "Channel"
    cursor: int
    run_ids: set[str] | None = None
    whole_messages: bool = False
    whole_run_ids: frozenset[str] = frozenset()
    delivered_run_ids: frozenset[str] = frozenset()
    delivered_seq: int = 0
    is_live: bool = False
    has_page: bool = False
    has_caught_up: bool = False
    is_closed: bool = False

    def has_whole_messages_of(self, run_id: str | None) -> bool:
        """Return True if the text of this run is delivered as whole messages."""
        return self.whole_messages or run_id in self.whole_run_ids

    def covers(self, run_id: str) -> bool:
        """Return True if the events of this run are for the client, now or when it has caught up."""
        return (self.run_ids is None or run_id in self.run_ids) and self.connection.protocol.carries(run_id)

    def has_all_events(self) -> bool:
        """Return True if all events are delivered unchanged, so that clients can share the encoding of a page."""
        return (
            self.run_ids is None and not self.delivered_run_ids and not self.whole_messages and not self.whole_run_ids
        )

    def is_filtered(self, event: Event) -> bool:
        """Return True if *run_ids* or *delivered_run_ids* exclude the event."""
        if self.run_ids is not None:
            return event.runId not in self.run_ids
        return event.runId in self.delivered_run_ids and event.seq <= self.delivered_seq


# For each live subscription: the socket's file descriptor for direct writes, or -1 to go through the transport.
Descriptors = dict[Subscription, int]


@attrs.define(eq=False, repr=False, kw_only=True)
class Channel:
    """The delivery state of one session: its head, its active runs and its subscriptions.

    *id* is the session's id as clients know it, *key* adds the tenant. *epoch* is None until the session's first event.
    *head* is the seq of the last delivered event. *floor* is the seq up to which retention has deleted events.
    *active_runs* maps each run that has started in this process, and has not ended, to the seq of its `run_started`.
    After *is_deleted* is set, no connection can subscribe.

    *subscriptions* are those in all three states. Three indexes have the subscriptions at the head:
    *live_descriptors* by protocol, *run_descriptors* by run for those with *run_ids* (the descriptor is always -1), and
    *paged_subscriptions*. The lagging ones are in the CatchUp of their connection.
    """

    key: Key
    epoch: str | None = None
    head: int = 0
    floor: int = 0
    is_deleted: bool = False
    active_runs: dict[str, int] = attrs.Factory(dict)
    subscriptions: set[Subscription] = attrs.Factory(set)
    live_descriptors: dict[WireProtocol, Descriptors] = attrs.Factory(dict)
    run_descriptors: dict[str, Descriptors] = attrs.Factory(dict)
    paged_subscriptions: set[Subscription] = attrs.Factory(set)
    id: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.id = id_of(self.key)

    def find_join_cursor(self) -> int:
        """Return the cursor for a client that has none: just before the oldest active run, or the head."""
        return min(self.active_runs.values()) - 1 if self.active_runs else self.head

    def refuse_if_deleted(self) -> None:
        """Raise SessionDeleted if the session was deleted."""
        if self.is_deleted:
            raise SessionDeleted(self.id)

    def list_members(self) -> list[Author]:
        """Return the principal of each connection that is subscribed to the session, not only to some of its runs."""
        return [sub.connection.principal for sub in self.subscriptions if sub.run_ids is None]

    def activate(self, sub: Subscription) -> None:
        """Make a subscription at the head live or paged, by an entry in the indexes: it gets the next event."""
        if sub.whole_messages or sub.whole_run_ids:
            self.paged_subscriptions.add(sub)
            return
        sub.is_live = True
        if sub.run_ids is None:
            descriptors = self.live_descriptors.setdefault(sub.connection.protocol, {})
            descriptors[sub] = sub.connection.transport.write_descriptor
        else:
            for run_id in sub.run_ids:
                self.run_descriptors.setdefault(run_id, {})[sub] = -1

    def deactivate(self, sub: Subscription) -> None:
        """Remove a subscription from the indexes: it gets no event until it is activated again."""
        sub.is_live = False
        self.paged_subscriptions.discard(sub)
        _remove_from_indexes(self.live_descriptors, (sub.connection.protocol,), sub)
        _remove_from_indexes(self.run_descriptors, sub.run_ids or (), sub)

    def update_descriptor(self, sub: Subscription) -> None:
        """Copy the write descriptor of the subscription's transport into the index."""
        if sub.is_live and sub.run_ids is None:
            self.live_descriptors[sub.connection.protocol][sub] = sub.connection.transport.write_descriptor

    def check(self) -> None:
        """Raise AssertionError if the indexes contradict each other. For tests; call it only between two loop steps."""
        indexes = (*self.live_descriptors.values(), *self.run_descriptors.values())
        assert all(indexes), "an empty index was not removed"
        assert self.floor <= self.head and all(0 < seq <= self.head for seq in self.active_runs.values())
        for sub in self.subscriptions:
            self._check_subscription(sub)
        indexed_subscriptions = {*self.paged_subscriptions, *(sub for descriptors in indexes for sub in descriptors)}
        assert indexed_subscriptions <= self.subscriptions, "a closed subscription is still in an index"

    def _check_subscription(self, sub: Subscription) -> None:
        connection = sub.connection
        assert not sub.is_closed and sub.channel is self and connection.subscriptions[self.key] is sub
        protocols = [protocol for protocol, descriptors in self.live_descriptors.items() if sub in descriptors]
        run_ids = {run_id for run_id, descriptors in self.run_descriptors.items() if sub in descriptors}
        is_lagging, is_paged = sub in connection.catchup.lagging_subscriptions, sub in self.paged_subscriptions
        assert sub.is_live == bool(protocols or run_ids), "is_live contradicts the indexes"
        state_count = sub.is_live + is_paged + is_lagging
        assert connection.is_closed or state_count == 1, f"a subscription must have one state, not {state_count}"
        assert protocols in ([], [connection.protocol]) and not (protocols and run_ids)
        if protocols:
            assert self.live_descriptors[connection.protocol][sub] == connection.transport.write_descriptor
        assert not run_ids or run_ids == sub.run_ids
        assert sub.run_ids is None or sub.run_ids, "a subscription that is limited to runs has no run"


def _remove_from_indexes(indexes: dict[IndexKey, Descriptors], keys: Iterable[IndexKey], sub: Subscription) -> None:
    """Remove a subscription from the entries of *keys*, and each entry that is then empty."""
    for key in keys:
        descriptors = indexes.get(key, {})
        if descriptors.pop(sub, None) is not None and not descriptors:
            del indexes[key]
