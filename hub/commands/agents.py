"""The hosted agents: which there are, loading one again, and what is told to everyone who listens to one."""

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.errors import BadId
from hub.hosting.folder import Agents
from hub.hosting.hosted import Agent
from hub.ids import describe_bad_id, is_id
from hub.messages import BroadcastReceipt, HostedAgent, Page, PageRequest
from hub.messages.lists import read_cursor, write_cursor
from hub.node import upkeep
from hub.sessions import broadcast as broadcasting


@attrs.frozen
class Report:
    """An agent as the operator sees it: *error* has what clients are not told."""

    agentId: str
    description: str
    error: str | None


async def list_agents(hub: Hub, principal: Principal, request: PageRequest) -> Page[HostedAgent]:
    """Return hosted agents in the order of their ids; a broken one with its error. Raises BadQuery."""
    agents = sorted(hub.node.agents.all(), key=lambda agent: agent.id, reverse=request.order == "desc")
    if request.after is not None:
        (last,) = read_cursor(request.after, tuple[str])
        agents = [agent for agent in agents if (agent.id < last if request.order == "desc" else agent.id > last)]
    page, others = agents[: request.limit], agents[request.limit :]
    return Page([_hosted(agent) for agent in page], write_cursor(page[-1].id) if others else None)


async def get_agent(hub: Hub, principal: Principal, agent_id: str) -> HostedAgent:
    """Return an agent, also a broken one; raises UnknownAgent."""
    return _hosted(hub.node.agents.find(agent_id))


async def get_working_agent(hub: Hub, principal: Principal, agent_id: str) -> HostedAgent:
    """Return an agent that can answer; raises UnknownAgent, AgentBroken."""
    return _hosted(hub.node.agents.get(agent_id))


def _hosted(agent: Agent) -> HostedAgent:
    return HostedAgent(**agent.describe())


async def reload_agent(hub: Hub, principal: Principal, agent_id: str) -> HostedAgent:
    """Load an agent's file again; where the file is gone the agent goes too. Raises UnknownAgent."""
    await upkeep.reload_agent_file(hub.node, agent_id)
    return _hosted(hub.node.agents.find(agent_id))


async def broadcast(hub: Hub, principal: Principal, agent_id: str, message: str) -> BroadcastReceipt:
    """Say something to everyone who listens to an agent; it is kept in a session of its own.

    Raises UnknownAgent, AgentBroken, BadId, SessionDeleted, StorageUnavailable.
    """
    agent = hub.node.agents.get(agent_id)
    name = broadcasting.broadcast_session_id(agent)
    if not is_id(name):
        raise BadId(f"{describe_bad_id(f'the session {name} of the broadcasts')}: shorten the name of agent {agent.id}")
    async with hub.node.use(hub.key(principal, name)) as session:
        return await broadcasting.log_broadcast(session, agent, message)


async def inspect_agents(hub: Hub, principal: Principal) -> tuple[Report, ...]:
    """Return every agent with the operator's words of its error.

    Where the hub is not started, the agents folder is loaded for this alone, and no adapter is entered; raises
    FileNotFoundError where the folder is missing.
    """
    if hub.is_started:
        return _reports(hub.node.agents)
    settings = hub.settings
    folder = Agents(folder=settings.agents, data=settings.data, cache=settings.cache_folder, enter=False)
    await folder.open()
    try:
        return _reports(folder)
    finally:
        await folder.close()


def _reports(agents: Agents) -> tuple[Report, ...]:
    return tuple(Report(agent.id, agent.description, agent.error) for agent in agents.all())
