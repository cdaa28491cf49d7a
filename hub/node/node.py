"""One process of the hub: owns the log, the agents, the sessions and the connections, from start to stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import time
from typing import Any

import attrs
import structlog

from hub.delivery.connection import Connection, Subscription
from hub.delivery.pages import Pages
from hub.delivery.registry import Channel, Registry
from hub.errors import Draining, SessionDeleted
from hub.hosting.folder import Agents
from hub.hosting.hosted import Agent
from hub.messages import DrainingNotice, Event, Presence
from hub.sessions.pace import Pace
from hub.sessions.recovery import recover
from hub.sessions.session import Session
from hub.settings import Settings
from hub.storage.blobs import Files
from hub.storage.log import Log, open_log

log = structlog.get_logger()

DAY_MS = 24 * 3600 * 1000
EXPIRE_SECONDS = 600.0
LOOK_SECONDS = 0.25


@attrs.define(eq=False, repr=False)
class Node:
    """Everything above, in one place.

    `draining` is set when the hub goes down: chats are refused from then on. `deletions` has the sessions that are
    being deleted (see hub.node.deleting).
    """

    settings: Settings
    agents: Agents = attrs.field(init=False)
    log: Log = attrs.field(init=False)
    files: Files = attrs.field(init=False)
    pages: Pages = attrs.field(init=False)
    registry: Registry = attrs.field(init=False)
    pace: Pace = attrs.field(init=False)
    sessions: dict[str, Session] = attrs.Factory(dict)
    draining: bool = False
    ready: bool = False
    deletions: dict[str, asyncio.Task[bool]] = attrs.Factory(dict)
    _loads: dict[str, asyncio.Task[Session]] = attrs.Factory(dict)
    _tasks: list[asyncio.Task[None]] = attrs.Factory(list)
    _presence: dict[str, asyncio.TimerHandle] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.agents = Agents(settings.agents, settings.data)
        self.log = open_log(settings.log_url)
        self.files = Files(settings.data / "files", self.log, settings.limits)
        self.pages = Pages(self.log, settings.limits)
        self.pace = Pace(1 / settings.frames_per_second if settings.frames_per_second else 0.0)
        self.registry = Registry(
            left=lambda channel: self.tidy(channel.id),
            members_changed=self._members_changed,
            caught_up=self._tell_state,
        )

    # --- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the log and the agents, and take up what an earlier process left."""
        self.settings.data.mkdir(parents=True, exist_ok=True)
        await self.log.start(self._deliver)
        try:
            await self.files.start()
            await self.agents.open()
            await self._recover()
        except BaseException:
            await self.files.close()
            await self.log.close()
            raise
        steps = [(LOOK_SECONDS, self._look), (1.0, self._sweep), (EXPIRE_SECONDS, self._expire)]
        if self.settings.reload:
            steps.append((1.0, self._reload))
        self._tasks += [asyncio.create_task(self._every(seconds, step)) for seconds, step in steps]
        self.ready = True

    async def _recover(self) -> None:
        left: dict[str, list[Any]] = {}
        for record in await self.log.unfinished():
            left.setdefault(record.sessionId, []).append(record)
        for session_id, records in left.items():
            async with self.use(session_id) as session:
                await recover(session, records)
        if left:
            log.info("recovered runs", sessions=len(left), runs=sum(map(len, left.values())))

    def drain(self) -> None:
        """Refuse chats from now on, and tell everyone."""
        self.ready = False
        self.draining = True
        notice = DrainingNotice(withinMs=int(self.settings.limits.drain_seconds * 1000))
        for connection in self.registry.connections:
            connection.write(connection.protocol.notice(notice))
        for session in self.sessions.values():
            session.draining = True

    async def finish_runs(self, seconds: float, hurry: asyncio.Event) -> None:
        """Give the running answers *seconds* to end, or until *hurry*; then end those that are left."""
        end = asyncio.get_running_loop().time() + seconds
        while any(session.runs for session in self.sessions.values()) and not hurry.is_set():
            if asyncio.get_running_loop().time() > end:
                break
            await asyncio.sleep(0.02)
        for session in list(self.sessions.values()):
            session.drain()

    async def quiet(self, seconds: float) -> None:
        """Wait until everything said is in the log."""
        try:
            async with asyncio.timeout(seconds):
                while not all(session.outbox.empty and not session.runs for session in self.sessions.values()):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.error("not everything that was said could be written to the log")

    async def close(self) -> None:
        """Close what start() opened; connections are closed before."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self.deletions.values(), return_exceptions=True)
        for timer in self._presence.values():
            timer.cancel()
        await self.agents.close()
        await self.files.close()
        await self.log.close()

    # --- sessions ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, session_id: str) -> AsyncIterator[Session]:
        """Hold a session in memory, made where there is none. Raises SessionDeleted while it is being deleted."""
        if session_id in self.deletions:
            raise SessionDeleted(session_id)
        session = await self.there(session_id)
        session.holders += 1
        try:
            yield session
        finally:
            session.holders -= 1
            self.tidy(session_id)

    async def there(self, session_id: str) -> Session:
        """Return a session in memory; one load at a time per id. It stays there until the next await."""
        while (session := self.sessions.get(session_id)) is None:
            task = self._loads.get(session_id)
            if task is None:
                task = self._loads[session_id] = asyncio.create_task(self._load(session_id))
            await asyncio.wait([task])
            task.result()  # raises what the load raised
        return session

    async def _load(self, session_id: str) -> Session:
        try:
            head = await self.log.load(session_id)
            channel = Channel(head.sessionId, head.epoch, head.seq, head.floor)
            settings = self.settings
            session = Session(
                channel,
                self.log,
                self.agents,
                settings.limits,
                self.pace,
                self._session_changed,
                lambda: self.tidy(session_id),
                self.freed,
                self.files,
                self.registry.counts,
                draining=self.draining,
            )
            self.sessions[session_id] = session
            # Whoever waits for this task finds the session before anything else may tidy it away.
            return session
        finally:
            del self._loads[session_id]

    def tidy(self, session_id: str) -> None:
        """Let a session go that nothing needs, checked in one step."""
        session = self.sessions.get(session_id)
        if session is not None and session.unused():
            del self.sessions[session_id]

    def refuse_if_draining(self) -> None:
        if self.draining:
            raise Draining("the hub is going down: reconnect in a moment", retryAfterMs=2000)

    # --- what the log and the sessions report -----------------------------------------------------------------------

    def _deliver(self, session_id: str, events: Sequence[Event]) -> None:
        session = self.sessions.get(session_id)
        if session is not None:
            self.registry.deliver(session.channel, events)

    def _session_changed(self, session: Session) -> None:
        self.registry.tell(session.channel, session.state)
        self.tidy(session.id)

    def _tell_state(self, sub: Subscription) -> None:
        """Say how things stand to one who has caught up: what is not logged was not said meanwhile."""
        session = self.sessions.get(sub.channel.id)
        protocol = sub.connection.protocol
        if session is not None and protocol.notices:
            sub.connection.write(protocol.notice(session.state()))

    def freed(self, agent: Agent) -> None:
        """Let the sessions that wait for this agent look again."""
        if agent.marks.max_runs or agent.work is not None:
            for session in [session for session in self.sessions.values() if session.queue]:
                session.next()

    def _members_changed(self, channel: Channel) -> None:
        """Tell a session's members who is there, at most once a second."""
        if channel.id not in self._presence and not self.draining:
            loop = asyncio.get_running_loop()
            self._presence[channel.id] = loop.call_later(
                self.settings.limits.presence_seconds, self._tell_presence, channel.id
            )

    def _tell_presence(self, session_id: str) -> None:
        self._presence.pop(session_id, None)
        session = self.sessions.get(session_id)
        if session is not None:
            self.registry.tell(session.channel, partial(self.presence, session.channel))

    def presence(self, channel: Channel) -> Presence:
        members = channel.members()
        few = len(members) <= self.settings.limits.presence_members
        return Presence(sessionId=channel.id, count=len(members), members=tuple(members) if few else None)

    async def history(self, session_id: str, last: int) -> tuple[dict[str, Any], ...]:
        """Return the last finished messages as the wire names them."""
        last = min(last, self.settings.limits.history_messages)
        messages = await self.log.messages(session_id, last) if last else ()
        return tuple(attrs.asdict(m, filter=lambda a, value: value is not None and a.name != "seq") for m in messages)

    async def reset_messages(self, session_id: str) -> tuple[dict[str, Any], ...]:
        return await self.history(session_id, self.settings.limits.history_messages)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Do *step* every so often, also after it failed."""
        loop, counts = asyncio.get_running_loop(), self.registry.counts
        while True:
            due = loop.time() + seconds
            await asyncio.sleep(seconds)
            counts.lag = max(loop.time() - due, 0.0)
            counts.worst_lag = max(counts.lag, counts.worst_lag)
            try:
                await step()
            except Exception:
                log.exception("upkeep failed; tried again later", step=step.__name__)

    async def _look(self) -> None:
        self.pace.look()

    async def _sweep(self) -> None:
        """Abort who is stuck, ping who is silent."""
        limits, now = self.settings.limits, asyncio.get_running_loop().time()
        for connection in self.registry.stuck(now):
            log.info("aborted: nothing read", connection=connection.id, seconds=limits.stuck_seconds)
            self.registry.counts.aborted += 1
            connection.lose()
        for connection in list(self.registry.connections):
            if connection.closed or connection.unsent() or now - connection.heard < limits.ping_seconds:
                continue
            if connection.pinged is None:
                connection.pinged = now
                await self._ping(connection)
            elif now - connection.pinged > limits.pong_seconds:
                connection.lose()

    async def _ping(self, connection: Connection) -> None:
        # Nothing is unsent, so this does not wait for the socket.
        try:
            await connection.ping()
        except ConnectionError:
            connection.lose()

    async def _expire(self) -> None:
        await self.expire(int(time() * 1000 - self.settings.retention_days * DAY_MS))

    async def expire(self, before: int) -> None:
        """Let events from before *before* (ms) go, and tell the sessions in memory."""
        there = self.sessions.copy()
        floors = await self.log.expire(before, self.settings.retention_mb << 20)
        for session_id, floor in floors.items():
            session = self.sessions.get(session_id)
            # One that came meanwhile may be a new one under an old id; where it is not, its readers notice.
            if session is not None and session is there.get(session_id):
                session.channel.floor = floor

    async def _reload(self) -> None:
        for agent_id in await self.agents.reload_changed():
            self._say_loaded(agent_id)

    async def reload(self, agent_id: str) -> None:
        """Load an agent's file now; see hub.hosting.folder.Agents.reload."""
        if await self.agents.reload(agent_id):
            self._say_loaded(agent_id)

    def _say_loaded(self, agent_id: str) -> None:
        agent = next((agent for agent in self.agents.all() if agent.id == agent_id), None)
        if agent is None:
            log.info("agent removed", agent=agent_id[:128])
        elif agent.error:
            log.warning("agent broken", agent=agent_id, reason=agent.error)
        else:
            log.info("agent loaded", agent=agent_id)
