"""The HTTP routes of AG-UI: run an agent or connect to a session, and stream the events as server-sent events.

An AG-UI thread is a session. AG-UI's `runId` is the idempotency key of the chat (`clientMsgId`): a repeated request
gets the same run. The stream of a repeated request continues after its `Last-Event-ID`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from aiohttp import web
from msgspec.structs import asdict, replace

from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.commands.listen import SessionStart
from hub.commands.run_ownership import RunOwnership
from hub.errors import (
    AgentBroken,
    AlreadyResolved,
    Busy,
    Draining,
    IdReused,
    PrincipalQuotaExceeded,
    SessionDeleted,
    StorageUnavailable,
    ToolCallAnswered,
    ToolsUnsupported,
    UnknownAgent,
    UnknownFile,
    UnknownInterrupt,
    UnknownSession,
    UnknownToolCall,
)
from hub.limits import Limits
from hub.messages import Chat, ChatWithRequest, Event, Id, Resume
from hub.protocols.agui import AguiStream
from hub.protocols.agui_connect import ConnectStream
from hub.protocols.agui_request import (
    NewInput,
    RunInput,
    list_call_runs,
    make_hub_request,
    read_input,
    read_messages,
)
from hub.web import bodies
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, STREAM_CONTENT, Route, limits_of, read_query
from hub.web.sse import EventStream, LastEventId, read_last_event_id


class AguiQuery(msgspec.Struct, frozen=True):
    """The cursor of a lost stream, for clients that cannot set the header `Last-Event-ID`."""

    lastEventId: LastEventId | None = None


async def post_agui(request: web.Request) -> web.StreamResponse:
    """Run an agent with the AG-UI protocol.

    The request sends a message, or answers the open questions of a run. After a lost connection, the same request with
    `Last-Event-ID` resumes the stream.
    """
    hub, principal = request.app[HUB_KEY], principal_of(request)
    agent_id, run_input = await _read_request(request)
    cursor = read_last_event_id(request)
    async with EventStream(request) as stream:
        with RunOwnership() as ownership:
            run_stream = _HubRunStream(stream, run_input)
            if run_input.resume:
                entries = [Resume(sessionId=run_input.threadId, **asdict(entry)) for entry in run_input.resume]
                run_id, start = await commands.answer_questions(hub, principal, run_input.threadId, entries)
                follow_run = partial(commands.follow_run, hub, principal, run_input.threadId, run_id, start)
                await follow_run(run_stream.open, cursor, ownership)
            else:
                stream_chat = partial(commands.stream_chat, hub, principal)
                chats = _make_chats(run_input, agent_id, limits_of(request))
                await _send_first(chats, lambda chat: stream_chat(chat, run_stream.open, cursor, ownership))
            await run_stream.serve()
            ownership.is_over = run_stream.has_question
    return stream.response


class ConnectQuery(msgspec.Struct, frozen=True):
    """Whether the stream waits for the next run if none is going on (`live`), and where it begins.

    The cursor `lastEventId`, and the `runId` of a run with an open question, are in the metadata of the last
    `RUN_FINISHED`.
    """

    live: bool = False
    lastEventId: LastEventId | None = None
    runId: Id | None = None


async def post_agui_connect(request: web.Request) -> web.StreamResponse:
    """Connect to a session with the AG-UI protocol.

    The stream has the messages of the session, and then one run: the current one from its start, or with `live` the
    next one. It ends with this run. With a cursor, the stream begins after the cursor, and has no messages.
    """
    hub, principal, query = request.app[HUB_KEY], principal_of(request), read_query(request, ConnectQuery)
    _, run_input = await _read_request(request)
    async with EventStream(request) as stream:
        protocol = ConnectStream(run_input.threadId, run_input.runId, query.runId, run_input.has_cancelled_outcome)
        client: ClientHandle | None = None
        is_idle = False

        async def open_client() -> ClientHandle:
            nonlocal client
            client = await stream.open(protocol)
            return client

        def begin(start: SessionStart) -> None:
            nonlocal is_idle
            is_idle = start.is_idle
            if start.messages is not None and client is not None:
                client.write(protocol.encode_snapshot(start.messages, start.head, start.is_idle))

        cursor = read_last_event_id(request)
        await commands.connect_session(hub, principal, run_input.threadId, open_client, begin, cursor)
        is_over = is_idle and not query.live
        await stream.serve(partial(asyncio.sleep, 0) if is_over else protocol.end_event.wait)
    return stream.response


async def _read_request(request: web.Request) -> tuple[str, RunInput]:
    """Return the id of the agent in the address, which works, and the body. Raises UnknownAgent, AgentBroken."""
    hub, limits = request.app[HUB_KEY], limits_of(request)
    agent = await commands.get_working_agent(hub, principal_of(request), request.match_info["id"])
    body = await bodies.read_fields(request, RunInput.example, limits.conversation_bytes)
    return agent.agentId, read_input(body, limits)


def _make_chats(run_input: RunInput, agent_id: str, limits: Limits) -> list[Chat]:
    """Return the chat for a request. If it has results before its text, a chat without them follows."""
    new_input = read_messages(run_input.messages, limits)
    chat = ChatWithRequest(
        message=new_input.text,
        parts=(*new_input.late_results, *new_input.parts) or None,
        metadata=new_input.make_metadata(with_late_results=True),
        agentId=agent_id,
        sessionId=run_input.threadId,
        clientMsgId=run_input.runId,
        request=make_hub_request(run_input),
        callRuns=list_call_runs(run_input.messages),
    )
    return [chat, _drop_late_results(chat, new_input)] if new_input.late_results else [chat]


def _drop_late_results(chat: Chat, new_input: NewInput) -> Chat:
    return replace(chat, parts=new_input.parts or None, metadata=new_input.make_metadata(with_late_results=False))


async def _send_first(chats: list[Chat], send: Callable[[Chat], Awaitable[object]]) -> None:
    """Send the first chat. If the session does not wait for its results, send the next one."""
    for chat in chats[:-1]:
        try:
            await send(chat)
            return
        except (UnknownToolCall, ToolCallAnswered, IdReused):
            pass
    await send(chats[-1])


class _HubRunStream:
    """The stream of one request. It ends when the run of the hub ends or asks a question.

    A run of AG-UI is one request: after a question, the same run of the hub continues in the next request.
    """

    def __init__(self, stream: EventStream, run_input: RunInput) -> None:
        self._stream, self._input = stream, run_input

    async def open(self, run_id: str, cursor_event: Event | None) -> ClientHandle:
        """Open the stream for the events of a run. This method is a RunOpener."""
        run_input = self._input
        ids = (run_id, run_input.runId, run_input.threadId)
        protocol = AguiStream(*ids, cursor_event, run_input.has_cancelled_outcome)
        client = await self._stream.open(protocol)
        self._run_id, self._end_event = run_id, protocol.end_event
        if run_input.resume and cursor_event is None:
            client.write(protocol.encode_start())
        return client

    async def serve(self) -> None:
        """Wait until the run of the hub ends or asks a question, or the stream ends earlier."""
        await self._stream.serve_run(self._run_id)

    @property
    def has_question(self) -> bool:
        """True if the stream has ended with a question."""
        return self._end_event.is_set()


ROUTES = (
    Route(
        method="POST",
        path="/agents/{id}/agui/connect",
        handler=post_agui_connect,
        tag="Agents",
        responses={200: STREAM_CONTENT},
        body=RunInput,
        query=ConnectQuery,
        headers={"Last-Event-ID": LastEventId},
        raises=(UnknownAgent, UnknownSession, AgentBroken, SessionDeleted, StorageUnavailable),
    ),
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
            *(UnknownAgent, UnknownFile, UnknownInterrupt, UnknownToolCall, ToolsUnsupported, AgentBroken),
            *(AlreadyResolved, ToolCallAnswered, IdReused),
            *(SessionDeleted, Busy, PrincipalQuotaExceeded, Draining, StorageUnavailable),
        ),
    ),
)
