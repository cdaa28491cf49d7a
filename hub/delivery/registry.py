"""The registry of connections, and their subscriptions to sessions and to agents' groups."""

from collections.abc import Callable, Set
from typing import Any

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
    """All connections of a node, and the groups. No method awaits.

    A group is the set of connections that are subscribed to one agent's runs in all sessions. The name of the group is
    the agent's id, or TENANT/ID outside the default tenant.

    *on_unsubscribe* is called after the end of a subscription. *on_members_change* is called after a change of
    Channel.list_members(). *on_catch_up* is called when activate() makes a subscription without *run_ids* live, or
    paged for the first time. *can_hear* returns whether the client of a group may read a session now.
    """

    limits: Limits
    on_unsubscribe: Callable[[Subscription], None]
    on_members_change: Callable[[Channel], None]
    on_catch_up: Callable[[Subscription], None]
    can_hear: Callable[[Connection, Channel], bool] = lambda connection, channel: True
    connections: set[Connection] = attrs.Factory(set)
    groups: dict[str, set[Connection]] = attrs.Factory(dict)
    counters: Counters = attrs.Factory(Counters)

    def remove(self, connection: Connection) -> None:
        """Remove a connection with its groups and subscriptions. Call this before the socket is closed."""
        connection.stop_delivery()
        if connection in self.connections:
            self.connections.remove(connection)
            self.counters.sent_bytes += connection.transport.written_bytes
            self.counters.catch_ups += connection.catchup.task_count
        for group in list(connection.groups):
            self.leave_group(connection, group)
        for sub in list(connection.subscriptions.values()):
            self.unsubscribe(sub)

    def join_group(self, connection: Connection, group: str) -> None:
        """Subscribe a connection to each run of the group's agent that starts from now on."""
        if not connection.is_closed:
            connection.groups |= {group}
            self.groups.setdefault(group, set()).add(connection)

    def leave_group(self, connection: Connection, group: str) -> None:
        """Remove a connection from a group. After its last group, end its subscriptions that are limited to runs."""
        connection.groups -= {group}
        members = self.groups.get(group, set())
        members.discard(connection)
        if not members:
            self.groups.pop(group, None)
        if not connection.groups:
            for sub in [sub for sub in connection.subscriptions.values() if sub.run_ids is not None]:
                self.unsubscribe(sub)

    def check_limit(self, connection: Connection, key: Key, reserved_keys: Set[Key] = frozenset()) -> None:
        """Raise TooManySubscriptions if the connection cannot subscribe to the session *key*.

        *reserved_keys* count as subscriptions. Subscriptions of a group do not count: a run that starts cannot be
        refused.
        """
        limit = self.limits.subscriptions
        keys = {key for key, sub in connection.subscriptions.items() if sub.run_ids is None} | reserved_keys
        if key not in keys and len(keys) >= limit:
            raise TooManySubscriptions(
                f"this connection has the maximum of {limit} subscriptions: unsubscribe from a session first",
                sessionId=id_of(key),
            )

    def subscribe(
        self, connection: Connection, channel: Channel, cursor: int | None, is_client_cursor: bool = True
    ) -> None:
        """Subscribe a connection to the events after *cursor*.

        If *cursor* is None, an existing subscription does not move, and a new one starts at the join cursor.
        *is_client_cursor* is True if the client sent the cursor: then all later events are sent. If it is False, or
        *cursor* is None, a new subscription skips the events that a group's subscription has delivered.

        Does nothing if the connection is closed. Raises TooManySubscriptions, SessionDeleted.
        """
        channel.refuse_if_deleted()
        if connection.is_closed:
            return
        previous = connection.subscriptions.get(channel.key)
        if previous is not None and previous.run_ids is None:
            self._move_cursor(previous, cursor)
            return
        self.check_limit(connection, channel.key)
        start = channel.find_join_cursor() if cursor is None else cursor
        sub = Subscription(
            connection=connection, channel=channel, cursor=start, whole_messages=connection.whole_messages
        )
        if previous is not None:
            if cursor is None or not is_client_cursor:
                sub.delivered_run_ids = frozenset(previous.run_ids or ())
                sub.delivered_seq = channel.head if previous.is_live else previous.cursor
            self.unsubscribe(previous)
        self._add(sub)
        if sub.cursor < channel.head:
            connection.catchup.read_from(sub, sub.cursor)
        else:
            self.activate(sub)
        self.on_members_change(channel)

    def _move_cursor(self, sub: Subscription, cursor: int | None) -> None:
        """Send all events after *cursor*, also those that were delivered before. Does nothing if *cursor* is None."""
        if cursor is not None:
            sub.channel.deactivate(sub)
            sub.delivered_run_ids, sub.delivered_seq = frozenset(), 0
            sub.connection.catchup.read_from(sub, cursor)

    def unsubscribe(self, sub: Subscription) -> None:
        """End a subscription: its connection gets no further event of the session."""
        channel = sub.channel
        sub.is_closed = True
        channel.deactivate(sub)
        sub.connection.catchup.remove(sub)
        sub.connection.subscriptions.pop(channel.key, None)
        sub.connection.wake_if_unsubscribed()
        channel.subscriptions.discard(sub)
        if sub.run_ids is None:
            self.on_members_change(channel)
        self.on_unsubscribe(sub)

    def close_channel(self, channel: Channel, notice: Notice) -> None:
        """Send a last notice to all subscriptions of a deleted session, end them, and refuse new subscriptions."""
        channel.is_deleted = True
        for sub in list(channel.subscriptions):
            sub.connection.answer(notice)
            self.unsubscribe(sub)

    def restart_channel(self, channel: Channel, epoch: str, messages: tuple[dict[str, Any], ...]) -> None:
        """Give a session a new epoch. Send a reset with *messages* to its subscriptions, and begin them anew.

        The subscriptions of groups go on: they end with their runs.
        """
        channel.epoch = epoch
        for sub in list(channel.subscriptions):
            if sub.run_ids is None and not sub.connection.is_closed:
                sub.connection.send_reset(channel, "epoch_changed", messages)
                self._move_cursor(sub, channel.find_join_cursor())

    def _add(self, sub: Subscription) -> None:
        sub.connection.subscriptions[sub.channel.key] = sub
        sub.channel.subscriptions.add(sub)

    def activate(self, sub: Subscription) -> None:
        """Make a subscription that has met the head live or paged: it gets the next event.

        A subscription whose *run_ids* have all ended is ended instead. The caller must not await between its check of
        the head and this call, or an event would be lost.
        """
        channel = sub.channel
        if sub.connection.is_closed:
            return
        if sub.run_ids is not None:
            sub.run_ids &= channel.active_runs.keys()
            if not sub.run_ids:
                self.unsubscribe(sub)
                return
        channel.activate(sub)
        if sub.run_ids is None and (sub.is_live or not sub.has_caught_up):
            sub.has_caught_up = sub.has_caught_up or not sub.is_live
            self.on_catch_up(sub)

    def deliver_whole_messages(
        self, connection: Connection, channel: Channel, run_id: str, seq: int, is_new: bool
    ) -> None:
        """Deliver one run to a connection as whole messages, unless the connection may have got chunks of the run.

        *seq* is the seq of the chat. *is_new* is True if the run has not ended and has no chunk yet. If it is False,
        only a subscription that lags, with a cursor before *seq*, is changed.
        """
        sub = connection.subscriptions.get(channel.key)
        if sub is None or sub.whole_messages:
            return
        if not is_new and not (sub in connection.catchup.lagging_subscriptions and sub.cursor < seq):
            return
        sub.whole_run_ids |= {run_id}
        if sub.is_live:
            channel.deactivate(sub)
            sub.cursor = channel.head
            channel.activate(sub)

    def switch_protocol(self, connection: Connection, protocol: WireProtocol, greet: Callable[[], None]) -> None:
        """Change a connection's protocol. *greet* writes the first frame in the new protocol."""
        live_subscriptions = [sub for sub in connection.subscriptions.values() if sub.is_live]
        for sub in live_subscriptions:
            sub.channel.deactivate(sub)
        connection.protocol = protocol
        greet()
        for sub in live_subscriptions:
            self.activate(sub)

    def subscribe_group(self, channel: Channel, run_started: Event) -> None:
        """Subscribe the agent's group to a run that starts. Call this before the run's events are delivered."""
        run_id = run_started.runId or ""
        group = channel.key.removesuffix(channel.id) + (run_started.agentId or "")
        for connection in self.groups.get(group, ()):
            if not self.can_hear(connection, channel):
                continue
            sub = connection.subscriptions.get(channel.key)
            if sub is None:
                sub = Subscription(
                    connection=connection,
                    channel=channel,
                    cursor=channel.head,
                    run_ids={run_id},
                    whole_messages=connection.whole_messages,
                )
                self._add(sub)
                channel.activate(sub)
            elif sub.run_ids is None:
                continue
            else:
                sub.run_ids.add(run_id)
                if sub.is_live:
                    channel.activate(sub)

    def unsubscribe_group(self, channel: Channel, run_id: str) -> None:
        """Remove a run that has ended from the group's live subscriptions. End those that have no other run."""
        for sub in channel.run_descriptors.pop(run_id, ()):
            assert sub.run_ids is not None
            sub.run_ids.discard(run_id)
            if not sub.run_ids:
                self.unsubscribe(sub)

    def find_stuck_connections(self, now: float) -> list[Connection]:
        """Return the connections whose socket accepted no buffered byte for more than `stuck_seconds`.

        Call this about once a second: see Transport.measure_stall().
        """
        seconds = self.limits.stuck_seconds
        open_connections = (connection for connection in self.connections if not connection.is_closed)
        return [connection for connection in open_connections if connection.transport.measure_stall(now) > seconds]
