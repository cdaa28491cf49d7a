"""Agents over HTTP: which there are, loading one again, and what is told to all who listen to one."""

from typing import Annotated, ClassVar, Literal

import attrs
import msgspec
from aiohttp import web

from hub.errors import AgentBroken, BadId, Draining, SessionDeleted, StorageUnavailable, UnknownAgent
from hub.ids import is_id
from hub.sessions.broadcast import Told, broadcast, place
from hub.web import bodies
from hub.web.api.session_shapes import Page
from hub.web.clients import NODE
from hub.web.routes import Route, said


@attrs.frozen
class Hosted:
    """An agent that the hub hosts; a broken one with its error."""

    agentId: str
    description: str
    status: Literal["ok", "broken"]
    error: str | None = None


class Broadcast(msgspec.Struct):
    """What everyone in an agent's group is told."""

    example: ClassVar[str] = '{"message":"The model is new today."}'
    message: Annotated[str, msgspec.Meta(min_length=1)]


async def listed(request: web.Request) -> web.Response:
    """List the hosted agents; a broken one with its error."""
    hosted = request.app[NODE].agents.describe()
    return web.json_response({"data": hosted, "total": len(hosted), "page": 1, "size": max(len(hosted), 1)})


async def shown(request: web.Request) -> web.Response:
    """Show an agent; a broken one with its error."""
    return web.json_response(request.app[NODE].agents.find(request.match_info["id"]).describe())


async def reloaded(request: web.Request) -> web.Response:
    """Load an agent's file again.

    Also one that is new; where it is gone, so is the agent.
    """
    node, agent_id = request.app[NODE], request.match_info["id"]
    node.refuse_if_draining()
    await node.reload(agent_id)
    return web.json_response(node.agents.find(agent_id).describe())


async def told(request: web.Request) -> web.Response:
    """Say something to all who listen to an agent; kept in a session of its own."""
    node = request.app[NODE]
    node.refuse_if_draining()
    message = (await bodies.read(request, Broadcast)).message
    agent = node.agents.get(request.match_info["id"])
    if not is_id(place(agent)):
        raise BadId(f"the name of agent {agent.id} is too long for a session {place(agent)}: shorten it")
    async with node.use(place(agent)) as session:
        return said(await broadcast(session, agent, message), status=202)


TAG = "Agents"
ROUTES = (
    Route("GET", "/agents", listed, TAG, {200: Page[Hosted]}),
    Route("GET", "/agents/{id}", shown, TAG, {200: Hosted}, raises=(UnknownAgent,)),
    Route("POST", "/agents/{id}/reload", reloaded, TAG, {200: Hosted}, raises=(UnknownAgent, Draining)),
    Route(
        "POST",
        "/agents/{id}/broadcast",
        told,
        TAG,
        {202: Told},
        body=Broadcast,
        raises=(UnknownAgent, AgentBroken, SessionDeleted, Draining, StorageUnavailable),
    ),
)
