"""The delivery of what the log kept, and of notices, to everyone who listens."""

from collections.abc import Callable, Sequence

import attrs

from hub.delivery.channel import Channel, Descriptors, Subscription
from hub.delivery.connection import Connection
from hub.delivery.registry import Registry
from hub.delivery.transport import write_all
from hub.messages import Chunk, Event, Notice, RunFinished, RunStarted
from hub.protocols import WireProtocol


@attrs.define(eq=False, repr=False)
class Fanout:
    """Encodes once for each protocol, and gives the same bytes to every live subscription; never awaits."""

    registry: Registry

    def deliver(self, channel: Channel, events: Sequence[Event]) -> None:
        """Hand events that the log just kept, in order, to everyone who is live."""
        before, last, is_alone = channel.head, events[-1], len(events) == 1
        # A chunk that comes alone is by far the most usual.
        ends = () if is_alone and type(last.body) is Chunk else self._begin(channel, events)
        channel.head = last.seq
        if not before:  # the session exists now
            channel.epoch = last.epoch
        self.registry.counters.events += last.seq - before
        for protocol, descriptors in tuple(channel.live.items()):
            data = protocol.event(last) if is_alone else protocol.events(events)
            if data:
                self._write(descriptors, data, before)
        if channel.by_run:
            self._write_by_run(channel, events, before)
        if channel.paged:
            self._wake_paged(channel, events)
        for end in ends:
            self._end(channel, end)

    def _begin(self, channel: Channel, events: Sequence[Event]) -> Sequence[Event]:
        """Note the runs that start; return the ends of those that end."""
        ends = []
        for event in events:
            kind = type(event.body)
            if kind is RunStarted:
                channel.active[event.runId or ""] = event.seq
                self.registry.counters.run_starts[event.agentId or ""] += 1
                self.registry.gather(channel, event)
            elif kind is RunFinished:
                ends.append(event)
        return ends

    def _end(self, channel: Channel, end: Event) -> None:
        assert isinstance(end.body, RunFinished)
        run_id = end.runId or ""
        channel.active.pop(run_id, None)
        self.registry.counters.run_ends[end.agentId or "", end.body.stopReason] += 1
        self.registry.release(channel, run_id)

    def _write(self, descriptors: Descriptors, data: bytes, before: int) -> None:
        """Write to each socket at once; where that does not take it all, its transport keeps the rest."""
        late, counters = write_all(descriptors, data), self.registry.counters
        counters.sent_bytes += len(data) * (len(descriptors) - len(late))
        for sub, sent in late:
            if sent < 0:
                sub.connection.lose()
            else:
                counters.sent_bytes += sent
                self._queue(sub, data[sent:], before)

    def _queue(self, sub: Subscription, data: bytes, before: int) -> None:
        """Give it to the transport, unless that holds much already."""
        if sub.connection.transport.is_full():
            sub.channel.unplace(sub)
            sub.connection.catchup.fall_behind(sub, before)
        else:
            sub.connection.write(data)

    def _write_by_run(self, channel: Channel, events: Sequence[Event], before: int) -> None:
        """Write to those who hear some runs only: each once, in the order of the log, encoded once per choice."""
        runs = {event.runId for event in events if event.runId in channel.by_run}
        encoded: dict[tuple[WireProtocol, frozenset[str | None]], bytes] = {}
        for sub in set().union(*(channel.by_run[run_id] for run_id in runs if run_id)):
            choice = (sub.connection.protocol, frozenset(runs & (sub.runs or set())))
            if choice not in encoded:
                encoded[choice] = choice[0].events([event for event in events if event.runId in choice[1]])
            if encoded[choice]:
                self._queue(sub, encoded[choice], before)

    def _wake_paged(self, channel: Channel, events: Sequence[Event]) -> None:
        for sub in list(channel.paged):
            if any(_matters(sub, event) for event in events):
                channel.paged.discard(sub)
                sub.connection.catchup.wake(sub)

    def tell(self, channel: Channel, make: Callable[[], Notice], but: Connection | None = None) -> None:
        """Say what is not logged to everyone in the session who keeps up; the others miss it.

        *make* is called where anyone would hear it.
        """
        listeners = [sub for protocol, subs in channel.live.items() if protocol.notices for sub in subs]
        listeners += [sub for sub in channel.paged if sub.runs is None and sub.connection.protocol.notices]
        if not listeners:
            return
        notice, encoded = make(), dict[WireProtocol, bytes]()
        for sub in listeners:
            protocol = sub.connection.protocol
            if protocol not in encoded:
                encoded[protocol] = protocol.notice(notice)
            if sub.connection is not but and not sub.connection.transport.is_full():
                sub.connection.write(encoded[protocol])


def _matters(sub: Subscription, event: Event) -> bool:
    return not sub.skips(event) and not (isinstance(event.body, Chunk) and sub.wants_whole(event.runId))
