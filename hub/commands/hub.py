"""The Hub: one object that starts, drains and closes a process of the hub."""

import asyncio

import attrs

from hub.access.principal import Principal
from hub.errors import BadId, Draining
from hub.ids import Key, describe_bad_id, is_id, session_key
from hub.limits import Limits
from hub.node import draining
from hub.node.log_probe import LogProbe
from hub.node.node import Node
from hub.node.upkeep import Upkeep
from hub.seams import Seams
from hub.settings import Settings


@attrs.define(eq=False, repr=False, kw_only=True)
class Hub:
    """One process of the hub, the first argument of each use case. Callers of use cases use only its methods.

    Call start(), drain(), finish() and close() in this order. drain() and finish() are optional.
    """

    settings: Settings
    node: Node
    upkeep: Upkeep
    log_probe: LogProbe
    is_started: bool = False

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def is_draining(self) -> bool:
        """True if the hub is going down."""
        return self.node.is_draining

    @property
    def has_running_code(self) -> bool:
        """True if the code of an agent runs. Code that ignores its cancellation runs on after the end of its run."""
        return any(agent.running_answers for agent in self.node.agents.all())

    async def start(self) -> None:
        """Open the log and the agents, and recover the runs of the previous process.

        Raises LogUnusable and OSError, each with one line for the operator. After an error nothing is open.
        """
        await self.node.start()
        self.is_started = True
        self.upkeep.start()

    def drain(self) -> None:
        """Refuse chats from now on, and notify every client."""
        self.node.drain()

    async def finish(self, hurry: asyncio.Event) -> None:
        """Wait for runs to end, until *hurry* or the drain deadline. Then stop the other runs, and flush all events."""
        limits = self.limits
        wait = limits.drain_seconds - limits.grace_seconds - 2 * limits.close_seconds
        await draining.finish_runs(self.node, wait, hurry)
        await draining.flush_all(self.node, limits.grace_seconds + limits.close_seconds, hurry)

    def stop_delivery(self) -> None:
        """Deliver nothing to any client from now on."""
        for connection in self.node.registry.connections:
            connection.stop_delivery()

    async def close(self) -> None:
        """Close the log and the agents. Close the clients first."""
        await self.upkeep.stop()
        await self.node.close()

    async def check_ready(self) -> None:
        """Raise Draining or StorageUnavailable, with a line for the operator, if chats are refused now."""
        if not self.node.is_ready:
            raise Draining("the hub is starting or going down")
        await self.log_probe.check()

    def make_key(self, principal: Principal, session_id: str) -> Key:
        """Return the key of a session: its id with the principal's tenant. Raises BadId."""
        if not is_id(session_id):  # an id with a slash could name a session of another tenant
            raise BadId(describe_bad_id("sessionId"))
        return session_key(principal.tenant, session_id)

    def make_group_key(self, principal: Principal, agent_id: str) -> str:
        """Return the key of an agent's group: the agent's id with the principal's tenant."""
        return session_key(principal.tenant, agent_id)


def open_hub(settings: Settings, seams: Seams = Seams()) -> Hub:
    """Return a hub that is not started. Raises LogUnusable if no driver supports the log's URL."""
    # Absolute, because an agent may change the current folder.
    agents, data, cache = (folder.absolute() for folder in (settings.agents, settings.data, settings.cache_folder))
    settings = attrs.evolve(settings, agents=agents, data=data, cache=cache)
    node = Node(settings=settings, seams=seams)
    return Hub(settings=settings, node=node, upkeep=Upkeep(node), log_probe=LogProbe(node.log))
