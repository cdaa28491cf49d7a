"""Agents over HTTP: which there are, loading one again, and what is told to all who listen to one."""

from collections.abc import Awaitable, Callable
from typing import Annotated, ClassVar

import attrs
import msgspec
from aiohttp import web

from hub.api import bodies
from hub.broadcast import broadcast, place
from hub.clients import NODE
from hub.errors import BadId
from hub.protocols.reading import ID

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Broadcast(msgspec.Struct):
    """What everyone in an agent's group is told."""

    example: ClassVar[str] = '{"message":"The model is new today."}'
    message: Annotated[str, msgspec.Meta(min_length=1)]


async def listed(request: web.Request) -> web.Response:
    """All of them; a broken one with its error."""
    hosted = request.app[NODE].agents.describe()
    return web.json_response({"data": hosted, "total": len(hosted), "page": 1, "size": max(len(hosted), 1)})


async def shown(request: web.Request) -> web.Response:
    return web.json_response(request.app[NODE].agents.find(request.match_info["id"]).describe())


async def reloaded(request: web.Request) -> web.Response:
    """Load an agent's file again, also one that is new; where it is gone, so is the agent."""
    node, agent_id = request.app[NODE], request.match_info["id"]
    node.refuse_if_draining()
    await node.reload(agent_id)
    return web.json_response(node.agents.find(agent_id).describe())


async def told(request: web.Request) -> web.Response:
    """Say something to all who listen to an agent; kept in a session of its own."""
    node = request.app[NODE]
    node.refuse_if_draining()
    said = await bodies.read(request, Broadcast)
    agent = node.agents.get(request.match_info["id"])
    if not ID.fullmatch(place(agent)):
        raise BadId(f"the name of agent {agent.id} is too long for a session {place(agent)}: shorten it")
    async with node.use(place(agent)) as session:
        return web.json_response(attrs.asdict(await broadcast(session, agent, said.message)), status=202)


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/agents", listed),
    ("GET", "/agents/{id}", shown),
    ("POST", "/agents/{id}/reload", reloaded),
    ("POST", "/agents/{id}/broadcast", told),
)
