"""AG-UI over server-sent events: an agent as AG-UI's clients run it.

A thread is a session and a run's id its clientMsgId, so that a request sent again gets the same run, from
`Last-Event-ID` on.
"""

import asyncio

import msgspec
from aiohttp import web

from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.errors import (
    AgentBroken,
    AlreadyResolved,
    Busy,
    Draining,
    IdReused,
    SessionDeleted,
    StorageUnavailable,
    UnknownAgent,
    UnknownInterrupt,
)
from hub.messages import Chat, Resume
from hub.protocols.agui import AguiStream, RunInput, read_message
from hub.web import bodies
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, STREAM_CONTENT, Route, limits_of
from hub.web.sse import EventStream, LastEventId, read_last_event_id


class AguiQuery(msgspec.Struct, frozen=True):
    """Where a lost stream goes on, for clients that cannot set a header."""

    lastEventId: LastEventId | None = None


async def post_agui(request: web.Request) -> web.StreamResponse:
    """Run an agent by AG-UI, or go on with a run whose stream was lost."""
    hub, principal = request.app[HUB_KEY], principal_of(request)
    agent = await commands.get_working_agent(hub, principal, request.match_info["id"])
    given = await bodies.read_body(request, RunInput, limits_of(request).conversation_bytes)
    last = read_last_event_id(request)
    async with EventStream(request) as stream:
        listener = _Listener(stream, given)
        if given.resume:
            entries = [Resume(sessionId=given.threadId, **msgspec.structs.asdict(entry)) for entry in given.resume]
            run_id, start = await commands.answer_questions(hub, principal, given.threadId, entries)
            await commands.follow(hub, principal, given.threadId, run_id, start, listener.open, last)
        else:
            message, parts = read_message(given.messages, limits_of(request))
            chat = Chat(
                message=message,
                parts=parts,
                agentId=agent.agentId,
                sessionId=given.threadId,
                clientMsgId=given.runId,
            )
            await commands.stream_chat(hub, principal, chat, listener.open, last)
        await stream.serve(listener.ended)
    return stream.response


class _Listener:
    """What hears one request's run: it ends with the hub's run, or where that asks."""

    def __init__(self, stream: EventStream, given: RunInput) -> None:
        self._stream, self._given = stream, given

    async def open(self, run_id: str, is_whole: bool) -> ClientHandle:
        given = self._given
        protocol = AguiStream(run_id, given.runId, given.threadId)
        client = self._client = await self._stream.open(protocol)
        self._run_id, self._asked, protocol.is_open = run_id, protocol.pause, client.is_open
        if given.resume and is_whole:
            client.write(protocol.encode_start())
        return client

    async def ended(self) -> None:
        """Wait until the hub's run has ended, or asks."""
        ends = [asyncio.create_task(self._client.finished(self._run_id)), asyncio.create_task(self._asked.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()


ROUTES = (
    Route(
        method="POST",
        path="/agents/{id}/agui",
        handler=post_agui,
        tag="Agents",
        responses={200: STREAM_CONTENT},
        body=RunInput,
        query=AguiQuery,
        headers={"Last-Event-ID": LastEventId},
        raises=(
            *(UnknownAgent, UnknownInterrupt, AgentBroken, AlreadyResolved, IdReused),
            *(SessionDeleted, Busy, Draining, StorageUnavailable),
        ),
    ),
)
