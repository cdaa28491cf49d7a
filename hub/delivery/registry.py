"""Who is connected, who listens to which session and to which agent; and the delivery of events to all of them."""

from collections.abc import Callable, Iterable, Sequence
from os import write
from typing import TypeVar

import attrs

from hub.delivery.channel import Channel, Descriptors, Subscription
from hub.delivery.connection import Connection
from hub.errors import TooManySubscriptions
from hub.ids import Key, id_of
from hub.messages import Chunk, Event, Notice, RunFinished, RunStarted
from hub.observe.counters import Counts
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False)
class Registry:
    """The connections, and the groups that listen to one agent across sessions.

    A group is named by its agent's id, in other tenants than the default one by TENANT/ID, as sessions are.
    *left* is called when a channel loses a subscription, *members_changed* when its members come or go,
    *caught_up* when a subscription to all of a session becomes live.
    """

    left: Callable[[Channel], None]
    members_changed: Callable[[Channel], None]
    caught_up: Callable[[Subscription], None]
    connections: set[Connection] = attrs.Factory(set)
    groups: dict[str, set[Connection]] = attrs.Factory(dict)
    counts: Counts = attrs.Factory(Counts)

    # --- who is there -----------------------------------------------------------------------------------------------

    def leave(self, connection: Connection) -> None:
        """Forget a connection and all it listens to; before its socket is closed, so that nothing new reaches it."""
        connection.leave()
        if connection in self.connections:
            self.connections.remove(connection)
            self.counts.written += connection.written
            self.counts.catch_ups += connection.catch_ups
        for group in list(connection.groups):
            self.unlisten(connection, group)
        for sub in list(connection.subscriptions.values()):
            self.drop(sub)

    def listen(self, connection: Connection, group: str) -> None:
        """Let the connection hear all runs of a group's agent that start from now on, in any session of the tenant."""
        if not connection.closed:
            connection.groups |= {group}
            self.groups.setdefault(group, set()).add(connection)

    def unlisten(self, connection: Connection, group: str) -> None:
        """Leave a group; with the last one go the subscriptions that were made for its runs."""
        connection.groups -= {group}
        members = self.groups.get(group, set())
        members.discard(connection)
        if not members:
            self.groups.pop(group, None)
        if not connection.groups:
            for sub in [sub for sub in connection.subscriptions.values() if sub.runs is not None]:
                self.drop(sub)

    def check_room(self, connection: Connection, key: Key) -> None:
        """Raise TooManySubscriptions where the connection may not hear one session more.

        What it hears for a group does not count: a run that starts cannot be refused.
        """
        limit = connection.limits.subscriptions
        asked_for = {name for name, sub in connection.subscriptions.items() if sub.runs is None}
        if key not in asked_for and len(asked_for) >= limit:
            raise TooManySubscriptions(
                f"a connection may hear {limit} sessions: unsubscribe from one first", sessionId=id_of(key)
            )

    def subscribe(self, connection: Connection, channel: Channel, cursor: int | None, asked: bool = True) -> None:
        """Let the connection hear a session from *cursor* on; None keeps its position, or starts as a new client.

        *asked* says that the cursor is the client's own: then it hears all from there, also what a group's
        subscription has said already. Never awaits, and does nothing for a connection that has closed meanwhile.
        Raises TooManySubscriptions and SessionDeleted.
        """
        channel.refuse_if_deleted()
        if connection.closed:
            return
        old = connection.subscriptions.get(channel.key)
        if old is not None and old.runs is None:
            self._move(old, cursor)
            return
        self.check_room(connection, channel.key)
        start = channel.join_point() if cursor is None else cursor
        sub = Subscription(connection, channel, start, whole=connection.whole)
        if old is not None and not (asked and cursor is not None):
            # What a group's listener has heard of these runs is not said twice.
            sub.heard, sub.heard_upto = frozenset(old.runs or ()), channel.head if old.live else old.cursor
        if old is not None:
            self.drop(old)
        self._add(sub)
        connection.fall_behind(sub, sub.cursor) if sub.cursor < channel.head else self.settle(sub)
        self.members_changed(channel)

    def _move(self, sub: Subscription, cursor: int | None) -> None:
        """Let a subscription say all from *cursor* on, also what it has said already; None leaves it where it is."""
        if cursor is not None:
            self.unplace(sub)
            sub.heard, sub.heard_upto = frozenset(), 0
            sub.connection.fall_behind(sub, cursor)

    def drop(self, sub: Subscription) -> None:
        """End a subscription."""
        channel = sub.channel
        sub.closed = True
        self.unplace(sub)
        sub.connection.behind.pop(sub, None)
        sub.connection.subscriptions.pop(channel.key, None)
        channel.subscriptions.discard(sub)
        if sub.runs is None:
            self.members_changed(channel)
        self.left(channel)

    def dismiss(self, channel: Channel, notice: Notice) -> None:
        """Tell everyone in a session that it is deleted, and let nobody hear it from then on."""
        channel.deleted = True
        for sub in list(channel.subscriptions):
            sub.connection.answer(notice)
            self.drop(sub)

    def _add(self, sub: Subscription) -> None:
        sub.connection.subscriptions[sub.channel.key] = sub
        sub.channel.subscriptions.add(sub)

    def unplace(self, sub: Subscription) -> None:
        """Let nothing that is delivered reach a subscription; one whose connection leaves is not placed again."""
        channel = sub.channel
        sub.live = False
        channel.paged.discard(sub)
        _take_out(channel.live, (sub.connection.protocol,), sub)
        _take_out(channel.by_run, sub.runs or (), sub)

    def settle(self, sub: Subscription) -> None:
        """Place a subscription that has met the head. One step without an await: no event can fall between."""
        channel = sub.channel
        if sub.connection.closed:
            return
        if sub.runs is not None:
            sub.runs &= channel.active.keys()
            if not sub.runs:
                self.drop(sub)
                return
        if sub.whole or sub.whole_runs:
            channel.paged.add(sub)
            if not sub.greeted and sub.runs is None:
                sub.greeted = True
                self.caught_up(sub)
            return
        sub.live = True
        if sub.runs is None:
            channel.live.setdefault(sub.connection.protocol, {})[sub] = sub.connection.way
            self.caught_up(sub)
        else:
            for run_id in sub.runs:
                channel.by_run.setdefault(run_id, {})[sub] = -1

    def reroute(self, sub: Subscription) -> None:
        """Reach a subscription by the way that its connection has now."""
        if sub.live and sub.runs is None:
            sub.channel.live[sub.connection.protocol][sub] = sub.connection.way

    def say_whole(self, connection: Connection, channel: Channel, run_id: str, going: bool) -> None:
        """Let a subscription hear one run as whole messages; before that run's first chunk is delivered.

        *going* says that the run has not ended; one that has is said whole only where it is still to be read.
        """
        sub = connection.subscriptions.get(channel.key)
        if sub is None or sub.whole or not (going or sub in connection.behind):
            return
        sub.whole_runs |= {run_id}
        if sub.live:
            self.unplace(sub)
            sub.cursor = channel.head
            channel.paged.add(sub)

    def speak(self, connection: Connection, protocol: WireProtocol, greet: Callable[[], None]) -> None:
        """Change a connection's protocol (`hello`), and greet it before anything else is said in it."""
        channels = [sub for sub in connection.subscriptions.values() if sub.live]
        for sub in channels:
            self.unplace(sub)
        connection.protocol = protocol
        greet()
        for sub in channels:
            self.settle(sub)

    # --- delivery ---------------------------------------------------------------------------------------------------

    def deliver(self, channel: Channel, events: Sequence[Event]) -> None:
        """Hand events that the log just kept to everyone who is live: encoded once per protocol, never awaiting."""
        before, last, lone = channel.head, events[-1], len(events) == 1
        # A chunk that comes alone is by far the most usual.
        ended = () if lone and type(last.body) is Chunk else self._begin(channel, events)
        channel.head = last.seq
        self.counts.events += last.seq - before
        for protocol, subs in tuple(channel.live.items()):
            data = protocol.event(last) if lone else protocol.events(events)
            if data:
                self._write(subs, data, before)
        if channel.by_run:
            self._write_by_run(channel, events, before)
        if channel.paged:
            self._wake_paged(channel, events)
        for event in ended:
            self._release(channel, event)

    def _begin(self, channel: Channel, events: Sequence[Event]) -> Sequence[Event]:
        """Note the runs that start; return the ends of those that end."""
        ended = []
        for event in events:
            kind = type(event.body)
            if kind is RunStarted:
                channel.active[event.runId or ""] = event.seq
                self.counts.started[event.agentId or ""] += 1
                self._gather(channel, event)
            elif kind is RunFinished:
                ended.append(event)
        return ended

    def _write(self, subs: Descriptors, data: bytes, before: int) -> None:
        """Write to each socket at once; where that does not take it all, its transport keeps the rest."""
        size, late = len(data), []
        for sub, way in subs.items():
            try:
                sent = write(way, data) if way >= 0 else 0
            except BlockingIOError:
                sent = 0
            except OSError:  # lost, and its handler has not run yet: this connection only, the others hear on
                sent = -1
            if sent != size:
                late.append((sub, sent))
        self.counts.written += size * (len(subs) - len(late))
        for sub, sent in late:
            if sent < 0:
                sub.connection.lose()
            else:
                self.counts.written += sent
                self._queue(sub, data[sent:], before)

    def _queue(self, sub: Subscription, data: bytes, before: int) -> None:
        """Give it to the transport, unless that holds much already."""
        if sub.connection.full():
            self.unplace(sub)
            sub.connection.fall_behind(sub, before)
        else:
            sub.connection.write(data)

    def _write_by_run(self, channel: Channel, events: Sequence[Event], before: int) -> None:
        """Write to those who hear some runs only: each once, in the order of the log, encoded once per choice."""
        runs = {event.runId for event in events if event.runId in channel.by_run}
        encoded: dict[tuple[WireProtocol, frozenset[str | None]], bytes] = {}
        for sub in set().union(*(channel.by_run[run_id] for run_id in runs if run_id)):
            key = (sub.connection.protocol, frozenset(runs & (sub.runs or set())))
            if key not in encoded:
                encoded[key] = key[0].events([event for event in events if event.runId in key[1]])
            if encoded[key]:
                self._queue(sub, encoded[key], before)

    def _gather(self, channel: Channel, started: Event) -> None:
        """Subscribe the agent's group to a run that starts: from its start to its end."""
        run_id = started.runId or ""
        group = channel.key.removesuffix(channel.id) + (started.agentId or "")
        for connection in self.groups.get(group, ()):
            sub = connection.subscriptions.get(channel.key)
            if sub is None:
                sub = Subscription(connection, channel, channel.head, runs={run_id}, whole=connection.whole)
                self._add(sub)
                if sub.whole:
                    channel.paged.add(sub)
                    continue
                sub.live = True
            elif sub.runs is None:
                continue
            else:
                sub.runs.add(run_id)
            if sub.live:
                channel.by_run.setdefault(run_id, {})[sub] = -1

    def _release(self, channel: Channel, end: Event) -> None:
        assert isinstance(end.body, RunFinished)
        run_id = end.runId or ""
        channel.active.pop(run_id, None)
        self.counts.ended[end.agentId or "", end.body.stopReason] += 1
        for sub in channel.by_run.pop(run_id, ()):
            assert sub.runs is not None
            sub.runs.discard(run_id)
            if not sub.runs:
                self.drop(sub)

    def _wake_paged(self, channel: Channel, events: Sequence[Event]) -> None:
        for sub in list(channel.paged):
            if any(self._matters(sub, event) for event in events):
                channel.paged.discard(sub)
                sub.connection.wake(sub)

    def _matters(self, sub: Subscription, event: Event) -> bool:
        return not sub.skips(event) and not (isinstance(event.body, Chunk) and sub.wants_whole(event.runId))

    def tell(self, channel: Channel, make: Callable[[], Notice], but: Connection | None = None) -> None:
        """Say what is not logged to everyone in the session who keeps up; the others miss it.

        *make* is called where anyone would hear it.
        """
        hearers = [sub for protocol, subs in channel.live.items() if protocol.notices for sub in subs]
        hearers += [sub for sub in channel.paged if sub.runs is None and sub.connection.protocol.notices]
        if not hearers:
            return
        notice, encoded = make(), dict[WireProtocol, bytes]()
        for sub in hearers:
            protocol = sub.connection.protocol
            if protocol not in encoded:
                encoded[protocol] = protocol.notice(notice)
            if sub.connection is not but and not sub.connection.full():
                sub.connection.write(encoded[protocol])

    # --- upkeep -----------------------------------------------------------------------------------------------------

    def stuck(self, now: float) -> list[Connection]:
        """Return the connections whose unsent bytes have not moved for the limit's time; call it every second or so."""
        found = []
        for connection in self.connections:
            unsent = connection.unsent()
            progress = connection.written - unsent
            if not unsent or progress != connection.progress:
                connection.progress, connection.moved = progress, now
            elif now - connection.moved > connection.limits.stuck_seconds:
                found.append(connection)
        return found


Place = TypeVar("Place")


def _take_out(places: dict[Place, Descriptors], keys: Iterable[Place], sub: Subscription) -> None:
    for key in keys:
        there = places.get(key, {})
        if there.pop(sub, None) is not None and not there:
            del places[key]
