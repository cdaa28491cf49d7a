"""What a node does again and again: it looks after connections, retention, changed agent files, and its own load."""

import asyncio
from collections.abc import Awaitable, Callable

import attrs
import structlog

from hub.delivery.connection import Connection
from hub.node.node import Node
from hub.node.watchdog import Watchdog
from hub.observe.load import ThreadLoad
from hub.text import cut

log = structlog.get_logger()

DAY_MS = 24 * 3600 * 1000
EXPIRE_SECONDS = 600.0
LOAD_SECONDS = 0.25
SWEEP_SECONDS = 1.0
RELOAD_SECONDS = 1.0


@attrs.define(eq=False, repr=False)
class Upkeep:
    """The tasks beside a started node; all methods are called in its loop."""

    node: Node
    _load: ThreadLoad = attrs.Factory(ThreadLoad)
    _tasks: list[asyncio.Task[None]] = attrs.Factory(list)
    _watchdog: Watchdog = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._watchdog = Watchdog(agent_of=self._agent_of)

    def start(self) -> None:
        self._watchdog.start()
        steps = [(LOAD_SECONDS, self._note_load), (SWEEP_SECONDS, self._sweep), (EXPIRE_SECONDS, self._expire)]
        if self.node.settings.reload:
            steps.append((RELOAD_SECONDS, self._reload))
        self._tasks += [asyncio.create_task(self._every(seconds, step)) for seconds, step in steps]

    async def stop(self) -> None:
        self._watchdog.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _agent_of(self, run_id: str) -> str:
        """Return the agent of a run that goes on, or an empty string. Any thread may call it: it only reads."""
        for session in list(self.node.sessions.values()):
            run = session.runs.get(run_id)
            if run is not None:
                return run.record.agentId
        return ""

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Do *step* every so often, also after it failed."""
        loop, counters = asyncio.get_running_loop(), self.node.registry.counters
        while True:
            due = loop.time() + seconds
            await asyncio.sleep(seconds)
            counters.loop_lag = max(loop.time() - due, 0.0)
            counters.worst_loop_lag = max(counters.loop_lag, counters.worst_loop_lag)
            try:
                await step()
            except Exception:
                log.exception("upkeep failed; tried again later", step=step.__name__)

    async def _note_load(self) -> None:
        self._watchdog.beat()
        self.node.pace.adjust(self._load.measure())

    async def _sweep(self) -> None:
        """Abort connections that are stuck, ping those that are silent."""
        limits, now = self.node.settings.limits, asyncio.get_running_loop().time()
        registry = self.node.registry
        for connection in registry.find_stuck(now):
            log.info("aborted: nothing read", connection=connection.id, seconds=limits.stuck_seconds)
            registry.counters.aborted_connections += 1
            connection.abort()
        for connection in list(registry.connections):
            if (
                connection.is_closed
                or connection.transport.get_unsent_bytes()
                or now - connection.receive_time < limits.ping_seconds
            ):
                continue
            if connection.ping_time is None:
                connection.ping_time = now
                await self._ping(connection)
            elif now - connection.ping_time > limits.pong_seconds:
                connection.abort()

    async def _ping(self, connection: Connection) -> None:
        # Nothing is unsent, so this does not wait for the socket.
        try:
            await connection.transport.ping()
        except ConnectionError:
            connection.abort()

    async def _expire(self) -> None:
        settings = self.node.settings
        await expire(self.node, int(self.node.seams.now() - settings.retention_days * DAY_MS))

    async def _reload(self) -> None:
        for agent_id in await self.node.agents.reload_changed():
            log_loaded(self.node, agent_id)


async def expire(node: Node, before: int) -> None:
    """Drop events from before *before* (ms), and tell the sessions in memory their new floors."""
    there = node.sessions.copy()
    floors = await node.log.events.expire(before, node.settings.retention_mb << 20)
    for key, floor in floors.items():
        session = node.sessions.get(key)
        # One that was loaded meanwhile may be a new session under an old id; if it is not, its readers notice.
        if session is not None and session is there.get(key):
            session.channel.floor = floor


async def reload(node: Node, agent_id: str) -> None:
    """Load an agent's file now; see hub.hosting.folder.Agents.reload."""
    for loaded in await node.agents.reload(agent_id):
        log_loaded(node, loaded)


def log_loaded(node: Node, agent_id: str) -> None:
    agent = next((agent for agent in node.agents.all() if agent.id == agent_id), None)
    if agent is None:
        log.info("agent removed", agent=cut(agent_id, 128))
    elif agent.error:
        log.warning("agent broken", agent=agent_id, reason=agent.error)
    else:
        log.info("agent loaded", agent=agent_id)
