"""Use cases for hosted agents: list, reload and inspect them, and broadcast to their groups."""

import attrs

from hub.access.principal import Principal
from hub.commands.guard import use_session
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
class AgentReport:
    """A report on an agent, for the operator.

    *error* has details that clients do not get. It is None if the agent is not broken.
    """

    agentId: str
    description: str
    error: str | None


async def list_agents(hub: Hub, principal: Principal, request: PageRequest) -> Page[HostedAgent]:
    """Return a page of the hosted agents, ordered by id. A broken agent has an error. Raises BadQuery."""
    visible_agents = (agent for agent in hub.node.agents.all() if principal.can_use(agent.id))
    agents = sorted(visible_agents, key=lambda agent: agent.id, reverse=request.order == "desc")
    if request.after is not None:
        (last_id,) = read_cursor(request.after, tuple[str])
        agents = [agent for agent in agents if (agent.id < last_id if request.order == "desc" else agent.id > last_id)]
    page, has_more = agents[: request.limit], len(agents) > request.limit
    return Page([_describe_agent(agent) for agent in page], write_cursor(page[-1].id) if has_more else None)


async def get_agent(hub: Hub, principal: Principal, agent_id: str) -> HostedAgent:
    """Return an agent, which may be broken. Raises UnknownAgent."""
    return _describe_agent(hub.node.agents.find(agent_id))


async def get_working_agent(hub: Hub, principal: Principal, agent_id: str) -> HostedAgent:
    """Return an agent that is not broken. Raises UnknownAgent and AgentBroken."""
    return _describe_agent(hub.node.agents.get_working(agent_id))


def _describe_agent(agent: Agent) -> HostedAgent:
    return HostedAgent(**agent.describe())


async def reload_agent(hub: Hub, principal: Principal, agent_id: str) -> HostedAgent:
    """Reload an agent's file, and return the agent, which may be broken.

    If the file does not exist, remove the agent and raise UnknownAgent.
    """
    await upkeep.reload_agent_file(hub.node, agent_id)
    return _describe_agent(hub.node.agents.find(agent_id))


async def reload_agents(hub: Hub, principal: Principal) -> None:
    """Load new agents, reload changed ones, and remove those without a file."""
    await upkeep.reload_changed_agents(hub.node)


async def broadcast(hub: Hub, principal: Principal, agent_id: str, message: str) -> BroadcastReceipt:
    """Send a message to the group of an agent. The message is stored in a session for broadcasts.

    Raises UnknownAgent, AgentBroken, BadId, Draining, SessionDeleted, StorageUnavailable.
    """
    agent = hub.node.agents.get_working(agent_id)
    session_id = broadcasting.make_broadcast_session_id(agent)
    if not is_id(session_id):
        raise BadId(
            f"{describe_bad_id(f'the id {session_id} of the broadcast session')}: shorten the name of agent {agent.id}"
        )
    key = hub.make_key(principal, session_id)
    async with use_session(hub, principal, "write", key, may_create=True) as session:
        return await broadcasting.log_broadcast(session, agent, message)


async def inspect_agents(hub: Hub, principal: Principal) -> tuple[AgentReport, ...]:
    """Return a report on every agent.

    If the hub is not started, the agents folder is loaded for this call only, and no adapter is started.
    Raises FileNotFoundError if the folder is missing.
    """
    if hub.is_started:
        return _report_agents(hub.node.agents)
    settings = hub.settings
    agents = Agents(folder=settings.agents, data=settings.data, cache=settings.cache_folder, opens_adapters=False)
    await agents.open()
    try:
        return _report_agents(agents)
    finally:
        await agents.close()


def _report_agents(agents: Agents) -> tuple[AgentReport, ...]:
    return tuple(AgentReport(agent.id, agent.description, agent.error) for agent in agents.all())
