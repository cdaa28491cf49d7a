"""Who is connected, and who listens to which session and to which agent."""

from collections.abc import Callable, Set

import attrs

from hub.delivery.channel import Channel, Subscription
from hub.delivery.connection import Connection
from hub.errors import TooManySubscriptions
from hub.ids import Key, id_of
from hub.limits import Limits
from hub.messages import Event, Notice
from hub.observe.counters import Counters
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False, kw_only=True)
class Registry:
    """The connections, and the groups that listen to one agent across sessions.

    A group is named by its agent's id, in other tenants than the default one by TENANT/ID, as sessions are.
    *left* is called when a channel loses a subscription, *members_changed* when its members come or go,
    *caught_up* when a subscription to all of a session becomes live.
    """

    limits: Limits
    left: Callable[[Channel], None]
    members_changed: Callable[[Channel], None]
    caught_up: Callable[[Subscription], None]
    connections: set[Connection] = attrs.Factory(set)
    groups: dict[str, set[Connection]] = attrs.Factory(dict)
    counters: Counters = attrs.Factory(Counters)

    def leave(self, connection: Connection) -> None:
        """Forget a connection and all it listens to; before its socket is closed, so that nothing new reaches it."""
        connection.leave()
        if connection in self.connections:
            self.connections.remove(connection)
            self.counters.sent_bytes += connection.transport.written
            self.counters.catch_ups += connection.catchup.count
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

    def check_room(self, connection: Connection, key: Key, reserved: Set[Key] = frozenset()) -> None:
        """Raise TooManySubscriptions where the connection may not hear one session more, beside those of *reserved*.

        What it hears for a group does not count: a run that starts cannot be refused.
        """
        limit = self.limits.subscriptions
        asked_for = {name for name, sub in connection.subscriptions.items() if sub.runs is None} | reserved
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
        sub = Subscription(connection=connection, channel=channel, cursor=start, whole=connection.whole)
        if old is not None and not (asked and cursor is not None):
            # What a group's listener has heard of these runs is not said twice.
            sub.heard, sub.heard_upto = frozenset(old.runs or ()), channel.head if old.live else old.cursor
        if old is not None:
            self.drop(old)
        self._add(sub)
        connection.catchup.fall_behind(sub, sub.cursor) if sub.cursor < channel.head else self.settle(sub)
        self.members_changed(channel)

    def _move(self, sub: Subscription, cursor: int | None) -> None:
        """Let a subscription say all from *cursor* on, also what it has said already; None leaves it where it is."""
        if cursor is not None:
            sub.channel.unplace(sub)
            sub.heard, sub.heard_upto = frozenset(), 0
            sub.connection.catchup.fall_behind(sub, cursor)

    def drop(self, sub: Subscription) -> None:
        """End a subscription."""
        channel = sub.channel
        sub.closed = True
        channel.unplace(sub)
        sub.connection.catchup.forget(sub)
        sub.connection.subscriptions.pop(channel.key, None)
        sub.connection.note_silence()
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
        channel.place(sub)
        if sub.runs is None and (sub.live or not sub.greeted):
            sub.greeted = sub.greeted or not sub.live
            self.caught_up(sub)

    def say_whole(self, connection: Connection, channel: Channel, run_id: str, going: bool) -> None:
        """Let a subscription hear one run as whole messages; before that run's first chunk is delivered.

        *going* says that the run has not ended; one that has is said whole only where it is still to be read.
        """
        sub = connection.subscriptions.get(channel.key)
        if sub is None or sub.whole or not (going or sub in connection.catchup.behind):
            return
        sub.whole_runs |= {run_id}
        if sub.live:
            channel.unplace(sub)
            sub.cursor = channel.head
            channel.place(sub)

    def speak(self, connection: Connection, protocol: WireProtocol, greet: Callable[[], None]) -> None:
        """Change a connection's protocol (`hello`), and greet it before anything else is said in it."""
        live = [sub for sub in connection.subscriptions.values() if sub.live]
        for sub in live:
            sub.channel.unplace(sub)
        connection.protocol = protocol
        greet()
        for sub in live:
            self.settle(sub)

    def gather(self, channel: Channel, started: Event) -> None:
        """Subscribe the agent's group to a run that starts: from its start to its end."""
        run_id = started.runId or ""
        group = channel.key.removesuffix(channel.id) + (started.agentId or "")
        for connection in self.groups.get(group, ()):
            sub = connection.subscriptions.get(channel.key)
            if sub is None:
                sub = Subscription(
                    connection=connection, channel=channel, cursor=channel.head, runs={run_id}, whole=connection.whole
                )
                self._add(sub)
                channel.place(sub)
            elif sub.runs is None:
                continue
            else:
                sub.runs.add(run_id)
                if sub.live:
                    channel.place(sub)

    def release(self, channel: Channel, run_id: str) -> None:
        """End the subscriptions that were made for a run which has ended, and for no other."""
        for sub in channel.by_run.pop(run_id, ()):
            assert sub.runs is not None
            sub.runs.discard(run_id)
            if not sub.runs:
                self.drop(sub)

    def stuck(self, now: float) -> list[Connection]:
        """Return the connections that have taken nothing for `stuck_seconds`; call it every second or so."""
        seconds = self.limits.stuck_seconds
        there = (connection for connection in self.connections if not connection.closed)
        return [connection for connection in there if connection.transport.is_stuck(now, seconds)]
