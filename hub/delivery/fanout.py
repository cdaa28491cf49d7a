"""Fan-out: deliver new events and notices to the subscriptions of a session."""

from collections.abc import Callable, Sequence

import attrs

from hub.delivery.channel import Channel, Descriptors, Subscription
from hub.delivery.connection import Connection
from hub.delivery.registry import Registry
from hub.delivery.transport import write_directly
from hub.messages import Chunk, Event, Notice, RunFinished, RunStarted
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False)
class Fanout:
    """Delivers events and notices. Never awaits.

    All live subscriptions of one protocol to the whole session get the same bytes: an event is encoded once for them.
    """

    registry: Registry

    def deliver(self, channel: Channel, events: Sequence[Event]) -> None:
        """Deliver the events of one commit, in log order, and move the channel's head to the last one.

        The first event must directly follow the head. Live subscriptions get the bytes at once. A live subscription
        whose transport is above the high-water mark begins to lag, and so does each paged subscription that may get a
        frame for one of the events.
        """
        previous_head, last, is_single = channel.head, events[-1], len(events) == 1
        # A single chunk is by far the most frequent case. A chunk neither starts nor ends a run.
        run_ends = () if is_single and type(last.body) is Chunk else self._register_starts(channel, events)
        channel.head = last.seq
        if not previous_head:  # a session has an epoch only from its first event on
            channel.epoch = last.epoch
        self.registry.counters.events += last.seq - previous_head
        for protocol, descriptors in tuple(channel.live_descriptors.items()):
            data = protocol.event(last) if is_single else protocol.events(events)
            if data:
                self._write(descriptors, data, previous_head)
        if channel.run_descriptors:
            self._write_by_run(channel, events, previous_head)
        if channel.paged_subscriptions:
            self._wake_paged_subscriptions(channel, events)
        for event in run_ends:
            self._register_end(channel, event)

    def _register_starts(self, channel: Channel, events: Sequence[Event]) -> Sequence[Event]:
        """Register the runs that start, and return the `run_finished` events."""
        run_ends = []
        for event in events:
            kind = type(event.body)
            if kind is RunStarted:
                channel.active_runs[event.runId or ""] = event.seq
                self.registry.counters.run_starts[event.agentId or ""] += 1
                self.registry.subscribe_group(channel, event)
            elif kind is RunFinished:
                run_ends.append(event)
        return run_ends

    def _register_end(self, channel: Channel, event: Event) -> None:
        assert isinstance(event.body, RunFinished)
        run_id = event.runId or ""
        channel.active_runs.pop(run_id, None)
        self.registry.counters.run_ends[event.agentId or "", event.body.stopReason] += 1
        self.registry.unsubscribe_group(channel, run_id)

    def _write(self, descriptors: Descriptors, data: bytes, previous_head: int) -> None:
        """Write to each socket directly. If a socket accepts only a part, the transport buffers the rest."""
        partial_writes, counters = write_directly(descriptors, data), self.registry.counters
        counters.sent_bytes += len(data) * (len(descriptors) - len(partial_writes))
        for sub, sent_bytes in partial_writes:
            if sent_bytes < 0:
                sub.connection.abort()
            else:
                counters.sent_bytes += sent_bytes
                self._write_to_transport(sub, data[sent_bytes:], previous_head)

    def _write_to_transport(self, sub: Subscription, data: bytes, previous_head: int) -> None:
        """Write through the transport. If the transport is above the high-water mark, make the subscription lag."""
        if sub.connection.transport.is_above_high_water():
            sub.channel.deactivate(sub)
            sub.connection.catchup.read_from(sub, previous_head)
        else:
            sub.connection.write(data)

    def _write_by_run(self, channel: Channel, events: Sequence[Event], previous_head: int) -> None:
        """Write to the subscriptions that are limited to runs. Encode each set of runs once for each protocol."""
        run_ids = {event.runId for event in events if event.runId in channel.run_descriptors}
        frames: dict[tuple[WireProtocol, frozenset[str | None]], bytes] = {}
        for sub in set().union(*(channel.run_descriptors[run_id] for run_id in run_ids if run_id)):
            protocol, wanted_run_ids = sub.connection.protocol, frozenset(run_ids & (sub.run_ids or set()))
            encoding = (protocol, wanted_run_ids)
            if encoding not in frames:
                frames[encoding] = protocol.events([event for event in events if event.runId in wanted_run_ids])
            if frames[encoding]:
                self._write_to_transport(sub, frames[encoding], previous_head)

    def _wake_paged_subscriptions(self, channel: Channel, events: Sequence[Event]) -> None:
        """Make each paged subscription lag that may get a frame for one of the events."""
        for sub in list(channel.paged_subscriptions):
            if any(_is_deliverable(sub, event) for event in events):
                channel.paged_subscriptions.discard(sub)
                sub.connection.catchup.schedule(sub)

    def send_notice(
        self, channel: Channel, make_notice: Callable[[], Notice], excluded_connection: Connection | None = None
    ) -> None:
        """Send a notice to the subscriptions at the head whose protocol has notices.

        A lagging subscription, one that is limited to runs, and one whose transport is above the high-water mark do not
        get the notice, now or later: notices are not logged. *make_notice* is called at most once.
        """
        receivers = [sub for protocol, subs in channel.live_descriptors.items() if protocol.notices for sub in subs]
        receivers += [
            sub for sub in channel.paged_subscriptions if sub.run_ids is None and sub.connection.protocol.notices
        ]
        if not receivers:
            return
        notice, frames = make_notice(), dict[WireProtocol, bytes]()
        for sub in receivers:
            connection, protocol = sub.connection, sub.connection.protocol
            if protocol not in frames:
                frames[protocol] = protocol.notice(notice)
            if connection is not excluded_connection and not connection.transport.is_above_high_water():
                connection.write(frames[protocol])


def _is_deliverable(sub: Subscription, event: Event) -> bool:
    """Return True if a paged subscription may get a frame for the event. A chunk of a whole message has no frame."""
    return not sub.is_filtered(event) and not (isinstance(event.body, Chunk) and sub.has_whole_messages_of(event.runId))
