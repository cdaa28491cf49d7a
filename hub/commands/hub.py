"""The hub as a whole: opened, started, drained and closed."""

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
    """One process of the hub. Use cases take it; nothing above them looks inside.

    The order is start(), drain(), finish(), close(); drain() and finish() may be left out.
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
        """Whether it goes down."""
        return self.node.is_draining

    @property
    def is_working(self) -> bool:
        """Whether the code of some agent goes on, which may be after its run has ended."""
        return any(agent.running_answers for agent in self.node.agents.all())

    async def start(self) -> None:
        """Open the log and the agents, and take up what an earlier process left.

        Raises LogUnusable and OSError, each with one line for the operator; nothing is open then.
        """
        await self.node.start()
        self.is_started = True
        self.upkeep.start()

    def drain(self) -> None:
        """Refuse chats from now on, and tell every client."""
        self.node.drain()

    async def finish(self, hurry: asyncio.Event) -> None:
        """Let running answers end, until *hurry* or for what `drain_seconds` leaves; end the others; log it all."""
        limits = self.limits
        wait = limits.drain_seconds - limits.grace_seconds - 2 * limits.close_seconds
        await draining.finish_runs(self.node, wait, hurry)
        await draining.flush_all(self.node, limits.grace_seconds + limits.close_seconds, hurry)

    def leave_all(self) -> None:
        """Deliver nothing to any client from now on."""
        for connection in self.node.registry.connections:
            connection.stop_delivery()

    async def close(self) -> None:
        """Close what start() opened; clients are closed before."""
        await self.upkeep.stop()
        await self.node.close()

    async def check_ready(self) -> None:
        """Raise Draining or StorageUnavailable, with a line for the operator, if it takes no chats now."""
        if not self.node.is_ready:
            raise Draining("the hub is starting or going down")
        await self.log_probe.check()

    def key(self, principal: Principal, session_id: str) -> Key:
        """Return the key by which everything below the use cases knows a session; raises BadId."""
        if not is_id(session_id):  # one with a slash would name another tenant's session
            raise BadId(describe_bad_id("sessionId"))
        return session_key(principal.tenant, session_id)

    def group(self, principal: Principal, agent_id: str) -> str:
        """Return the name of the group that listens to an agent in the principal's tenant."""
        return session_key(principal.tenant, agent_id)


def open_hub(settings: Settings, seams: Seams = Seams()) -> Hub:
    """Return a hub that is not started yet; raises LogUnusable where no driver knows the log's URL."""
    # Absolute, because an agent may change the current folder.
    agents, data, cache = (one.absolute() for one in (settings.agents, settings.data, settings.cache_folder))
    settings = attrs.evolve(settings, agents=agents, data=data, cache=cache)
    node = Node(settings=settings, seams=seams)
    return Hub(settings=settings, node=node, upkeep=Upkeep(node), log_probe=LogProbe(node.log))
