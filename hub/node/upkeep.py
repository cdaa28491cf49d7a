"""The periodic tasks of a node: check connections, expire old data, reload changed agent files, measure the load."""

import asyncio
from collections.abc import Awaitable, Callable

import attrs
import structlog

from hub.delivery.connection import Connection
from hub.node.expiring import expire_old_data
from hub.node.node import Node
from hub.node.watchdog import Watchdog
from hub.observe.load import ThreadLoad
from hub.text import cut

log = structlog.get_logger()

EXPIRE_INTERVAL_SECONDS = 600.0
HELD_BLOBS_INTERVAL_SECONDS = 10.0
LOAD_INTERVAL_SECONDS = 0.25
SWEEP_INTERVAL_SECONDS = 1.0
RELOAD_INTERVAL_SECONDS = 1.0


@attrs.define(eq=False, repr=False)
class Upkeep:
    """Runs the periodic tasks of a started node. All methods but _find_agent_id() are called in the node's loop."""

    node: Node
    _load: ThreadLoad = attrs.Factory(ThreadLoad)
    _tasks: list[asyncio.Task[None]] = attrs.Factory(list)
    _watchdog: Watchdog = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._watchdog = Watchdog(find_agent_id=self._find_agent_id)

    def start(self) -> None:
        self._watchdog.start()
        steps = [
            (LOAD_INTERVAL_SECONDS, self._measure_load),
            (SWEEP_INTERVAL_SECONDS, self._sweep),
            (EXPIRE_INTERVAL_SECONDS, self._expire),
            (HELD_BLOBS_INTERVAL_SECONDS, self.node.files.remove_held_blobs),
        ]
        if self.node.settings.reload:
            steps.append((RELOAD_INTERVAL_SECONDS, self._reload))
        self._tasks += [asyncio.create_task(self._every(seconds, step)) for seconds, step in steps]

    async def stop(self) -> None:
        self._watchdog.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _find_agent_id(self, run_id: str) -> str:
        """Return the id of an active run's agent, or an empty string. Changes nothing, so any thread may call it."""
        for session in list(self.node.sessions.values()):
            run = session.active_runs.get(run_id)
            if run is not None:
                return run.record.agentId
        return ""

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Call *step* again and again, *seconds* after the end of the last call, even if that call failed.

        Measure the lag of the loop.
        """
        loop, counters = asyncio.get_running_loop(), self.node.registry.counters
        while True:
            due = loop.time() + seconds
            await asyncio.sleep(seconds)
            lag = max(loop.time() - due, 0.0)
            counters.loop_lags.add(lag)
            counters.worst_loop_lag = max(lag, counters.worst_loop_lag)
            try:
                await step()
            except Exception:
                log.exception("a periodic task failed; it runs again later", step=step.__name__)

    async def _measure_load(self) -> None:
        self._watchdog.beat()
        self.node.pace.adjust(self._load.measure())

    async def _sweep(self) -> None:
        """Abort the connections that are stuck or did not answer a ping, and ping the silent ones."""
        limits, now = self.node.settings.limits, asyncio.get_running_loop().time()
        registry = self.node.registry
        for connection in registry.find_stuck_connections(now):
            log.info(
                "connection aborted: the client reads nothing", connection=connection.id, seconds=limits.stuck_seconds
            )
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
        # _sweep() pings only if all data was sent, so ping() does not wait for the socket.
        try:
            await connection.transport.ping()
        except ConnectionError:
            connection.abort()

    async def _expire(self) -> None:
        await expire_old_data(self.node)

    async def _reload(self) -> None:
        await reload_changed_agents(self.node)


async def reload_changed_agents(node: Node) -> None:
    """Load new agents, reload changed ones, and drop those without a file. Log each of them."""
    for agent_id in await node.agents.reload_changed_agents():
        log_reload(node, agent_id)


async def reload_agent_file(node: Node, agent_id: str) -> None:
    """Reload an agent's file now, and log the result. See hub.hosting.folder.Agents.reload()."""
    for loaded_id in await node.agents.reload(agent_id):
        log_reload(node, loaded_id)


def log_reload(node: Node, agent_id: str) -> None:
    agent = next((agent for agent in node.agents.all() if agent.id == agent_id), None)
    if agent is None:
        log.info("agent removed", agent=cut(agent_id, 128))
    elif agent.error:
        log.warning("agent broken", agent=agent_id, reason=agent.error)
    else:
        log.info("agent loaded", agent=agent_id)
