"""One process of the hub: owns the log, the agents, the sessions and the connections, from start to stop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import structlog

from hub.delivery.channel import Channel, Subscription
from hub.delivery.fanout import Fanout
from hub.delivery.pages import PageCache
from hub.delivery.registry import Registry
from hub.delivery.write_probe import are_direct_writes_safe
from hub.errors import Draining, SessionDeleted
from hub.hosting.calls import OutputReader
from hub.hosting.folder import Agents
from hub.hosting.slots import Slots
from hub.ids import Key, id_of
from hub.limits import Limits
from hub.messages import DrainingNotice, Event, HistoryMessage
from hub.node.presence import PresenceNotifier
from hub.node.recovering import recover_runs
from hub.observe.counters import Counters
from hub.seams import Seams
from hub.sessions.pace import Pace
from hub.sessions.session import LiveSession
from hub.settings import Settings
from hub.storage.blobs import Files
from hub.storage.log import Log
from hub.storage.open_log import open_log
from hub.storage.private import make_private

log = structlog.get_logger()

DATA_NAME_PREFIXES = ("hub.db", "files", "model")  # the hub's own files and folders in the data folder


@attrs.define(eq=False, repr=False, kw_only=True)
class Node:
    """The parts of one process, and the sessions in memory.

    *is_draining* is set when the hub goes down: it admits no chat any more. *deletions* are the tasks that delete
    sessions (see hub.node.deleting). *completions* are the answers outside a session, each by an event that is set when
    its client has received the end.
    """

    settings: Settings
    seams: Seams = Seams()
    agents: Agents = attrs.field(init=False)
    log: Log = attrs.field(init=False)
    files: Files = attrs.field(init=False)
    pages: PageCache = attrs.field(init=False)
    registry: Registry = attrs.field(init=False)
    fanout: Fanout = attrs.field(init=False)
    direct_writes: bool = False
    completions: dict[asyncio.Event, OutputReader] = attrs.Factory(dict)
    pace: Pace = attrs.field(init=False)
    slots: Slots = attrs.field(init=False)
    presence: PresenceNotifier = attrs.field(init=False)
    sessions: dict[Key, LiveSession] = attrs.Factory(dict)
    is_draining: bool = False
    is_ready: bool = False
    deletions: dict[Key, asyncio.Task[bool]] = attrs.Factory(dict)
    _loads: dict[Key, asyncio.Task[LiveSession]] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.agents = Agents(
            folder=settings.agents,
            data=settings.data,
            cache=settings.cache_folder,
            on_change=lambda: self.slots.offer_all(),
        )
        self.slots = Slots(self.agents)
        self.log = open_log(settings.log_url, settings.limits, self.seams)
        self.files = Files(
            folder=settings.data / "files", store=self.log.files, limits=settings.limits, seams=self.seams
        )
        self.pages = PageCache(store=self.log.events, limits=settings.limits)
        self.pace = Pace(1 / settings.frames_per_second if settings.frames_per_second else 0.0)
        self.registry = Registry(
            limits=settings.limits,
            on_unsubscribe=lambda channel: self.unload_if_unused(channel.key),
            on_members_change=self._on_members_change,
            on_catch_up=self._send_state,
        )
        self.fanout = Fanout(self.registry)
        self.presence = PresenceNotifier(self.fanout, settings.limits)

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the log and the agents, and recover the runs of an earlier process."""
        make_private(self.settings.data, lambda name: name.startswith(DATA_NAME_PREFIXES))
        await self.log.start(self._deliver)
        try:
            self.direct_writes = self.settings.direct_writes and await are_direct_writes_safe()
            await self.files.start(self.log.identify(self.settings.data))
            await self.agents.open()
            await recover_runs(self)
        except BaseException:
            await self.agents.close()
            await self.files.close()
            await self.log.close()
            raise
        self.is_ready = True

    def drain(self) -> None:
        """Refuse chats from now on, and send the `draining` notice to all connections."""
        self.is_ready = False
        self.is_draining = True
        notice = DrainingNotice(withinMs=int(self.settings.limits.drain_seconds * 1000))
        for connection in self.registry.connections:
            connection.write(connection.protocol.notice(notice))
        for session in self.sessions.values():
            session.schedule.is_draining = True

    async def close(self) -> None:
        """Close the log, the files and the agents. The connections are closed before."""
        await asyncio.gather(*self.deletions.values(), return_exceptions=True)
        self.presence.close()
        for session in self.sessions.values():
            session.outbox.close()
        await self.agents.close()
        await self.files.close()
        await self.log.close()

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def counters(self) -> Counters:
        return self.registry.counters

    # --- sessions ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, key: Key) -> AsyncIterator[LiveSession]:
        """Keep a session in memory within the context; the log need not have it. Raises SessionDeleted."""
        if key in self.deletions:
            raise SessionDeleted(id_of(key))
        session = await self.load(key)
        session.use_count += 1
        try:
            yield session
        finally:
            session.use_count -= 1
            self.unload_if_unused(key)

    async def load(self, key: Key) -> LiveSession:
        """Return a session in memory; concurrent calls share one load. It may be unloaded at the next await."""
        while (session := self.sessions.get(key)) is None:
            task = self._loads.get(key)
            if task is None:
                task = self._loads[key] = asyncio.create_task(self._load_session(key))
            await asyncio.wait([task])
            task.result()  # raises what the load raised
        return session

    async def create(self, session: LiveSession) -> bool:
        """Create a session in the log unless it exists; return whether it is new. The caller has it by use().

        Raises SessionDeleted if the session is being deleted, or was deleted while the caller used it.
        """
        # No await between this check and the call of the log: a session created after the deletion is another one.
        if session.admission.is_deleting:
            raise SessionDeleted(session.id)
        head, is_new = await self.log.sessions.make(session.key)
        session.channel.epoch = session.channel.epoch or head.epoch
        return is_new

    async def _load_session(self, key: Key) -> LiveSession:
        try:
            head = await self.log.sessions.find(key)
            channel = (
                Channel(key=key)
                if head is None
                else Channel(key=key, epoch=head.epoch, head=head.seq, floor=head.floor)
            )
            session = LiveSession(channel=channel, host=self)
            session.schedule.is_draining = self.is_draining
            self.sessions[key] = session
            # The tasks that wait for this load run before anything can unload the session.
            return session
        finally:
            del self._loads[key]

    def unload_if_unused(self, key: Key) -> None:
        """Remove a session from memory if nothing needs it."""
        session = self.sessions.get(key)
        if session is not None and session.is_unused():
            del self.sessions[key]

    def refuse_if_draining(self) -> None:
        if self.is_draining:
            raise Draining("the hub is going down: reconnect in a moment", retryAfterMs=2000)

    # --- reactions to the log and the sessions ----------------------------------------------------------------------

    def _deliver(self, key: Key, events: Sequence[Event]) -> None:
        session = self.sessions.get(key)
        if session is not None:
            self.fanout.deliver(session.channel, events)

    def on_session_change(self, session: LiveSession) -> None:
        self.fanout.send_notice(session.channel, session.make_state)
        self.unload_if_unused(session.key)

    def _send_state(self, sub: Subscription) -> None:
        """Send the session's state to a subscription that has caught up: it got no notices meanwhile."""
        session = self.sessions.get(sub.channel.key)
        protocol = sub.connection.protocol
        if session is not None and protocol.notices:
            sub.connection.write(protocol.notice(session.make_state()))

    def _on_members_change(self, channel: Channel) -> None:
        if not self.is_draining:
            self.presence.schedule_notice(channel)

    async def read_history(self, key: Key, last: int) -> tuple[dict[str, Any], ...]:
        """Return the last finished messages with the wire's field names.

        The result is current until the caller's next await: a subscription that begins before it misses no message.
        """
        limits, session = self.settings.limits, self.sessions.get(key)
        last = min(last, limits.history_messages)
        messages: Sequence[HistoryMessage] = ()
        while last:
            version = session.outbox.history_version if session is not None else 0
            messages = await self.log.sessions.read_last_messages(key, last, limits.history_bytes)
            if session is None or session.outbox.history_version == version:
                break  # otherwise a message was added or removed meanwhile: read again
        return tuple(attrs.asdict(message, filter=_is_on_wire) for message in messages)

    async def read_reset_messages(self, key: Key) -> tuple[dict[str, Any], ...]:
        """Return the messages for a client whose cursor is too old."""
        return await self.read_history(key, self.settings.limits.history_messages)


def _is_on_wire(field: "attrs.Attribute[Any]", value: Any) -> bool:
    return value is not None and field.name != "seq"
