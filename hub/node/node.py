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
from hub.delivery.transport import are_direct_writes_safe
from hub.errors import Draining, SessionDeleted
from hub.hosting.calls import OutputReader
from hub.hosting.folder import Agents
from hub.hosting.slots import Slots
from hub.ids import Key, id_of
from hub.limits import Limits
from hub.messages import DrainingNotice, Event, HistoryMessage
from hub.node.presence import PresenceTeller
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

OURS = ("hub.db", "files", "model")  # what the names in a data folder begin with


@attrs.define(eq=False, repr=False, kw_only=True)
class Node:
    """Everything above, in one place.

    `draining` is set when the hub goes down: chats are refused from then on. `deletions` has the sessions that are
    being deleted (see hub.node.deleting). `completions` has each answer that no session keeps, by an event
    that is set when its client has been told the end.
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
    presence: PresenceTeller = attrs.field(init=False)
    sessions: dict[Key, LiveSession] = attrs.Factory(dict)
    draining: bool = False
    ready: bool = False
    deletions: dict[Key, asyncio.Task[bool]] = attrs.Factory(dict)
    _loads: dict[Key, asyncio.Task[LiveSession]] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.agents = Agents(
            folder=settings.agents,
            data=settings.data,
            cache=settings.cache_folder,
            changed=lambda: self.slots.offer_all(),
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
            on_members_change=self._members_changed,
            on_catch_up=self._tell_state,
        )
        self.fanout = Fanout(self.registry)
        self.presence = PresenceTeller(self.fanout, settings.limits)

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the log and the agents, and take up what an earlier process left."""
        make_private(self.settings.data, lambda name: name.startswith(OURS))
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
        self.ready = True

    def drain(self) -> None:
        """Refuse chats from now on, and tell everyone."""
        self.ready = False
        self.draining = True
        notice = DrainingNotice(withinMs=int(self.settings.limits.drain_seconds * 1000))
        for connection in self.registry.connections:
            connection.write(connection.protocol.notice(notice))
        for session in self.sessions.values():
            session.schedule.is_draining = True

    async def close(self) -> None:
        """Close what start() opened; connections are closed before."""
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
        """Hold a session in memory, also one in which nothing is kept. Raises SessionDeleted while it is deleted."""
        if key in self.deletions:
            raise SessionDeleted(id_of(key))
        session = await self.there(key)
        session.use_count += 1
        try:
            yield session
        finally:
            session.use_count -= 1
            self.unload_if_unused(key)

    async def there(self, key: Key) -> LiveSession:
        """Return a session in memory; one load at a time per id. It stays there until the next await."""
        while (session := self.sessions.get(key)) is None:
            task = self._loads.get(key)
            if task is None:
                task = self._loads[key] = asyncio.create_task(self._load(key))
            await asyncio.wait([task])
            task.result()  # raises what the load raised
        return session

    async def make(self, session: LiveSession) -> bool:
        """Let a session exist that the caller holds, where nothing was kept in it yet; return whether it was made.

        Raises SessionDeleted for one that is being deleted, or has been while the caller held it.
        """
        if (
            session.admission.is_deleting
        ):  # in the step in which the log is asked: what comes behind the deletion is new
            raise SessionDeleted(session.id)
        head, is_new = await self.log.sessions.make(session.key)
        session.channel.epoch = session.channel.epoch or head.epoch
        return is_new

    async def _load(self, key: Key) -> LiveSession:
        try:
            head = await self.log.sessions.find(key)
            channel = (
                Channel(key=key)
                if head is None
                else Channel(key=key, epoch=head.epoch, head=head.seq, floor=head.floor)
            )
            session = LiveSession(channel=channel, host=self)
            session.schedule.is_draining = self.draining
            self.sessions[key] = session
            # Whoever waits for this task finds the session before anything else may tidy it away.
            return session
        finally:
            del self._loads[key]

    def unload_if_unused(self, key: Key) -> None:
        """Let a session go that nothing needs, checked in one step."""
        session = self.sessions.get(key)
        if session is not None and session.is_unused():
            del self.sessions[key]

    def refuse_if_draining(self) -> None:
        if self.draining:
            raise Draining("the hub is going down: reconnect in a moment", retryAfterMs=2000)

    # --- what the log and the sessions report -----------------------------------------------------------------------

    def _deliver(self, key: Key, events: Sequence[Event]) -> None:
        session = self.sessions.get(key)
        if session is not None:
            self.fanout.deliver(session.channel, events)

    def on_session_change(self, session: LiveSession) -> None:
        self.fanout.send_notice(session.channel, session.make_state)
        self.unload_if_unused(session.key)

    def _tell_state(self, sub: Subscription) -> None:
        """Say how things stand to one who has caught up: what is not logged was not said meanwhile."""
        session = self.sessions.get(sub.channel.key)
        protocol = sub.connection.protocol
        if session is not None and protocol.notices:
            sub.connection.write(protocol.notice(session.make_state()))

    def _members_changed(self, channel: Channel) -> None:
        if not self.draining:
            self.presence.members_changed(channel)

    async def history(self, key: Key, last: int) -> tuple[dict[str, Any], ...]:
        """Return the last finished messages as the wire names them, as they are when this returns.

        So that whoever hears the session from the step on in which this returns misses no message.
        """
        limits, session = self.settings.limits, self.sessions.get(key)
        last = min(last, limits.history_messages)
        messages: Sequence[HistoryMessage] = ()
        while last:
            changes = session.outbox.history_version if session is not None else 0
            messages = await self.log.sessions.read_last_messages(key, last, limits.history_bytes)
            if session is None or session.outbox.history_version == changes:
                break  # else a message came or went meanwhile: read them again
        return tuple(attrs.asdict(m, filter=lambda a, value: value is not None and a.name != "seq") for m in messages)

    async def reset_messages(self, key: Key) -> tuple[dict[str, Any], ...]:
        return await self.history(key, self.settings.limits.history_messages)
