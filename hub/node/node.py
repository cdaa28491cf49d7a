"""One process of the hub: owns the log, the agents, the sessions and the connections, from start to stop."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import structlog

from hub import __version__
from hub.delivery.channel import Channel, Subscription
from hub.delivery.fanout import Fanout
from hub.delivery.pages import PageCache
from hub.delivery.registry import Registry
from hub.delivery.write_probe import are_direct_writes_safe
from hub.errors import Draining
from hub.hosting.calls import OutputReader
from hub.hosting.folder import Agents
from hub.hosting.slots import Slots
from hub.ids import Key
from hub.limits import Limits
from hub.messages import DrainingNotice, Event
from hub.node.presence import PresenceNotifier
from hub.node.recovering import recover_runs
from hub.node.session_loader import SessionLoader
from hub.observe.counters import Counters
from hub.observe.tracing import open_tracing
from hub.seams import Seams
from hub.sessions.hosts import RunQuotas
from hub.sessions.pace import Pace
from hub.sessions.session import LiveSession
from hub.settings import Settings
from hub.storage.blobs import Files
from hub.storage.log import Log
from hub.storage.open_log import open_log
from hub.storage.private import make_private

if TYPE_CHECKING:
    from hub.observe.otel import Tracing

log = structlog.get_logger()

DATA_NAME_PREFIXES = ("hub.db", "files", "model", "control")  # of the hub's own files and folders in the data folder


@attrs.define(eq=False, repr=False, kw_only=True)
class Node:
    """The parts of one process of the hub.

    *is_ready* is True from the end of start() to drain(): then the hub admits chats. *is_draining* is True from drain()
    on. *completions* are the readers of the answers outside a session. The key of each reader is an event, which is set
    when the client has received the end of the answer. *quotas* is None while sign-in is off. *tracing* is None before
    start(), and while `otel` is off.
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
    loader: SessionLoader = attrs.field(init=False)
    quotas: RunQuotas | None = None
    tracing: "Tracing | None" = None
    erasures: set[asyncio.Task[None]] = attrs.Factory(set)
    is_draining: bool = False
    is_ready: bool = False

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.agents = Agents(
            folder=settings.agents,
            data=settings.data,
            cache=settings.cache_folder,
            on_change=lambda: self.slots.offer_all(),  # a lambda, because Slots needs *agents* and is created after it
        )
        self.slots = Slots(self.agents, _find_max_answers(settings))
        self.log = open_log(settings.log_url, settings.limits, self.seams)
        self.files = Files(
            folder=settings.data / "files", store=self.log.files, limits=settings.limits, seams=self.seams
        )
        self.pages = PageCache(store=self.log.events, limits=settings.limits)
        self.pace = Pace(_find_flush_seconds(settings))
        self.registry = Registry(
            limits=settings.limits,
            on_unsubscribe=self._on_unsubscribe,
            on_members_change=self._on_members_change,
            on_catch_up=self._send_state,
        )
        self.fanout = Fanout(self.registry)
        self.presence = PresenceNotifier(self.fanout, settings.limits)
        access = self.log.access if settings.is_sign_in_on else None
        self.loader = SessionLoader(host=self, store=self.log.sessions, access=access)

    def use_settings(self, settings: Settings) -> None:
        """Use other settings from now on: see hub.commands.reloading."""
        self.settings, limits = settings, settings.limits
        self.registry.limits = self.presence.limits = self.pages.limits = limits
        self.files.limits = self.files.quota.limits = limits
        self.pace.seconds = _find_flush_seconds(settings)
        self.slots.max_answers = _find_max_answers(settings)
        self.slots.offer_all()

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the log, the files and the agents, and recover the runs of an earlier process.

        If a step fails or is cancelled, close the agents, the files and the log, and raise the error of the step.
        """
        self.tracing = open_tracing(self.settings, __version__)
        try:
            await self.start_log()
            await self._start_parts()
        except BaseException:
            await self._close_tracing()
            raise
        self.is_ready = True

    async def _start_parts(self) -> None:
        try:
            self.direct_writes = self.settings.direct_writes and await are_direct_writes_safe()
            await self.open_files()
            await self.agents.open()
            await recover_runs(self)
        except BaseException:
            await self.agents.close()
            await self.files.close()
            await self.log.close()
            raise

    async def start_log(self) -> None:
        """Make the data folder, and open the log alone. close() ends this too."""
        self.make_data_folder()
        await self.log.start(self._deliver)

    def make_data_folder(self) -> None:
        """Make the data folder if it does not exist, for this account alone. Raises OSError."""
        make_private(self.settings.data, lambda name: name.startswith(DATA_NAME_PREFIXES))

    async def open_files(self) -> None:
        """Open the files if only the log is open. Raises LogUnusable, StorageUnavailable, OSError."""
        if not self.files.is_open:
            await self.files.start(self.log.identify(self.settings.data))

    def drain(self) -> None:
        """Refuse chats from now on, and send the `draining` notice to all connections."""
        self.is_ready = False
        self.is_draining = True
        notice = DrainingNotice(withinMs=int(self.settings.limits.drain_seconds * 1000))
        for connection in self.registry.connections:
            connection.write(connection.protocol.notice(notice))
        self.loader.drain()

    async def close(self) -> None:
        """Close the agents, the files and the log, in this order. The caller has closed all connections.

        First wait for running deletions and erasures, and close all outboxes, so that no outbox retries a commit.
        """
        await asyncio.gather(*self.loader.deletions.values(), *self.erasures, return_exceptions=True)
        self.presence.close()
        for session in self.sessions.values():
            session.outbox.close()
        await self.agents.close()
        await self.files.close()
        await self.log.close()
        await self._close_tracing()

    async def _close_tracing(self) -> None:
        if self.tracing is not None:
            await self.tracing.close()

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def counters(self) -> Counters:
        return self.registry.counters

    @property
    def sessions(self) -> dict[Key, LiveSession]:
        """The sessions in memory."""
        return self.loader.sessions

    def refuse_if_draining(self) -> None:
        """Raise Draining if the hub is going down."""
        if self.is_draining:
            raise Draining("the hub is going down: reconnect in a moment", retryAfterMs=2000)

    # --- reactions to the log and the sessions ----------------------------------------------------------------------

    def unload_if_unused(self, key: Key) -> None:
        """Remove a session from memory if nothing needs it."""
        self.loader.unload_if_unused(key)

    def _deliver(self, key: Key, events: Sequence[Event]) -> None:
        """Deliver events that the log has stored. A session that is not in memory has no subscription."""
        session = self.loader.sessions.get(key)
        if session is not None:
            self.fanout.deliver(session.channel, events)

    def on_session_change(self, session: LiveSession) -> None:
        """Send the state of a session to its subscribers, and unload the session if nothing needs it.

        Called after the runs, the queue or the questions of the session have changed.
        """
        self.fanout.send_notice(session.channel, session.make_state)
        self.unload_if_unused(session.key)

    def _send_state(self, sub: Subscription) -> None:
        """Send the session's state to a subscription that has caught up: while it lagged, it got no notices."""
        session = self.sessions.get(sub.channel.key)
        protocol = sub.connection.protocol
        if session is not None and protocol.notices:
            sub.connection.write(protocol.notice(session.make_state()))

    def _on_unsubscribe(self, sub: Subscription) -> None:
        session = self.sessions.get(sub.channel.key)
        if session is not None and session.channel is sub.channel and not self.is_draining:
            session.schedule.hearing.note_unsubscription(sub)
        self.unload_if_unused(sub.channel.key)

    def _on_members_change(self, channel: Channel) -> None:
        if not self.is_draining:  # in a shutdown all members leave
            self.presence.schedule_notice(channel)


def _find_max_answers(settings: Settings) -> int | None:
    """Return the limit for answers to clients at once. Without sign-in there is none."""
    return settings.limits.node_runs if settings.is_sign_in_on else None


def _find_flush_seconds(settings: Settings) -> float:
    """Return the shortest time between two flushes of a session."""
    return 1 / settings.frames_per_second if settings.frames_per_second else 0.0
