"""HTTP routes of agents: list, show, reload and broadcast."""

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web

from hub.commands import table as commands
from hub.errors import AgentBroken, Draining, SessionDeleted, StorageUnavailable, UnknownAgent
from hub.messages import BroadcastReceipt, HostedAgent
from hub.web import bodies
from hub.web.api.session_shapes import PageBody, PageQuery, page_response, read_page_request
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, Route, json_response, read_query


class BroadcastBody(msgspec.Struct):
    """The message for all clients that are subscribed to an agent."""

    example: ClassVar[str] = '{"message":"The model is new today."}'
    message: Annotated[str, msgspec.Meta(min_length=1)]


async def get_agents(request: web.Request) -> web.Response:
    """List the agents. For a broken agent, the list has the error."""
    return page_response(
        await commands.list_agents(
            request.app[HUB_KEY], principal_of(request), read_page_request(request, read_query(request, PageQuery))
        )
    )


async def show_agent(request: web.Request) -> web.Response:
    """Show one agent."""
    return json_response(
        await commands.get_agent(request.app[HUB_KEY], principal_of(request), request.match_info["id"])
    )


async def post_reload(request: web.Request) -> web.Response:
    """Load an agent's file again.

    A new file adds its agent. If the file no longer exists, the agent is removed and the answer is 404.
    """
    return json_response(
        await commands.reload_agent(request.app[HUB_KEY], principal_of(request), request.match_info["id"])
    )


async def post_broadcast(request: web.Request) -> web.Response:
    """Send a message to all clients that are subscribed to an agent.

    The message is stored in the session `agent:AGENT_ID`.
    """
    message = (await bodies.read_body(request, BroadcastBody)).message
    agent_id = request.match_info["id"]
    return json_response(
        await commands.broadcast(request.app[HUB_KEY], principal_of(request), agent_id, message), status=202
    )


AGENTS_TAG = "Agents"
ROUTES = (
    Route(
        method="GET",
        path="/agents",
        handler=get_agents,
        tag=AGENTS_TAG,
        responses={200: PageBody[HostedAgent]},
        query=PageQuery,
    ),
    Route(
        method="GET",
        path="/agents/{id}",
        handler=show_agent,
        tag=AGENTS_TAG,
        responses={200: HostedAgent},
        raises=(UnknownAgent,),
    ),
    Route(
        method="POST",
        path="/agents/{id}/reload",
        handler=post_reload,
        tag=AGENTS_TAG,
        responses={200: HostedAgent},
        raises=(UnknownAgent, Draining),
    ),
    Route(
        method="POST",
        path="/agents/{id}/broadcast",
        handler=post_broadcast,
        tag=AGENTS_TAG,
        responses={202: BroadcastReceipt},
        body=BroadcastBody,
        raises=(UnknownAgent, AgentBroken, SessionDeleted, Draining, StorageUnavailable),
    ),
)
