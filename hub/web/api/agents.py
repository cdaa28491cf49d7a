"""Agents over HTTP: which there are, loading one again, and what is told to all who listen to one."""

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web

from hub.commands import table as commands
from hub.errors import AgentBroken, Draining, SessionDeleted, StorageUnavailable, UnknownAgent
from hub.messages import BroadcastReceipt, HostedAgent
from hub.web import bodies
from hub.web.api.session_shapes import PageBody, Paging, listing, span_of
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB, Route, asked, said


class Broadcast(msgspec.Struct):
    """What everyone in an agent's group is told."""

    example: ClassVar[str] = '{"message":"The model is new today."}'
    message: Annotated[str, msgspec.Meta(min_length=1)]


async def listed(request: web.Request) -> web.Response:
    """List the hosted agents; a broken one with its error."""
    return listing(
        await commands.list_agents(request.app[HUB], principal_of(request), span_of(request, asked(request, Paging)))
    )


async def shown(request: web.Request) -> web.Response:
    """Show an agent; a broken one with its error."""
    return said(await commands.get_agent(request.app[HUB], principal_of(request), request.match_info["id"]))


async def reloaded(request: web.Request) -> web.Response:
    """Load an agent's file again.

    Also one that is new; where it is gone, so is the agent.
    """
    return said(await commands.reload_agent(request.app[HUB], principal_of(request), request.match_info["id"]))


async def told(request: web.Request) -> web.Response:
    """Say something to all who listen to an agent; kept in a session of its own."""
    message = (await bodies.read(request, Broadcast)).message
    agent_id = request.match_info["id"]
    return said(await commands.broadcast(request.app[HUB], principal_of(request), agent_id, message), status=202)


TAG = "Agents"
ROUTES = (
    Route(method="GET", path="/agents", handler=listed, tag=TAG, answers={200: PageBody[HostedAgent]}, query=Paging),
    Route(
        method="GET", path="/agents/{id}", handler=shown, tag=TAG, answers={200: HostedAgent}, raises=(UnknownAgent,)
    ),
    Route(
        method="POST",
        path="/agents/{id}/reload",
        handler=reloaded,
        tag=TAG,
        answers={200: HostedAgent},
        raises=(UnknownAgent, Draining),
    ),
    Route(
        method="POST",
        path="/agents/{id}/broadcast",
        handler=told,
        tag=TAG,
        answers={202: BroadcastReceipt},
        body=Broadcast,
        raises=(UnknownAgent, AgentBroken, SessionDeleted, Draining, StorageUnavailable),
    ),
)
