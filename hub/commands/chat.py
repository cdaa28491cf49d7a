"""Use cases that send a message to a session: answer at once, stream the run, or wait for its end."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import attrs

from hub.access.principal import Principal
from hub.commands.client import ClientHandle, RunOpener
from hub.commands.guard import check_session, make_sender, use_session
from hub.commands.hub import Hub
from hub.commands.joining import answer_and_subscribe, reserve_subscription
from hub.commands.outcome import read_outcome
from hub.commands.run_ownership import RunOwnership
from hub.commands.scopes import DEFAULT_AGENT
from hub.errors import BadFrame, Draining
from hub.hosting.hosted import Agent
from hub.messages import Accepted, Chat, RunOutcome, find_request
from hub.messages.parts import has_results
from hub.protocols.reading import check_request
from hub.sessions.session import LiveSession


async def chat(hub: Hub, principal: Principal, command: Chat, client: ClientHandle | None = None) -> Accepted:
    """Store a message and its run. If there is a *client*, answer it, and subscribe it from the message on.

    Raises UnknownAgent, AgentBroken, BadFrame, BadId, Busy, IdReused, ToolsUnsupported, UnknownToolCall,
    ToolCallAnswered, TooManySubscriptions, SessionDeleted, Draining and StorageUnavailable.
    """
    agent, session_id = _find_target(hub, command, client)
    key = hub.make_key(principal, session_id)
    with reserve_subscription(client, key):
        async with use_session(hub, principal, "write", key, may_create=True) as session:
            sender = make_sender(hub, principal, session, partial(_answer_sender, client, session, command))
            return await session.admission.admit(command, sender, agent)


def _answer_sender(client: ClientHandle | None, session: LiveSession, command: Chat, accepted: Accepted) -> None:
    """Answer a chat and subscribe its sender, without an await. With `stream: false`, deliver whole messages."""
    if client is None:
        return
    channel, schedule, run_id = session.channel, session.schedule, accepted.runId
    answer_and_subscribe(client, session, accepted)
    if command.stream is False:
        is_new = schedule.is_queued(run_id) or (accepted.status != "duplicate" and schedule.has_run(run_id))
        client.hub.node.registry.deliver_whole_messages(client.connection, channel, run_id, accepted.seq, is_new)


def _find_target(hub: Hub, command: Chat, client: ClientHandle | None) -> tuple[Agent | None, str]:
    """Return the agent and the session id for a chat.

    The agent is None for the results of tool calls without an `agentId`: the agent of the calls gets them. If the chat
    names no session, use the client's default session, or else the client's own session for the agent. Without a
    client, use a new id. Raises UnknownAgent, AgentBroken, and BadFrame, also for a bad request of the chat.
    """
    if (request := find_request(command)) is not None:
        check_request(request, hub.limits)
    agent_id = command.agentId or (client.agent if client is not None else DEFAULT_AGENT)
    is_agent_open = command.agentId is None and has_results(command.parts)
    agent = None if is_agent_open else hub.node.agents.get_working(agent_id)
    session_id = command.sessionId or (client.session if client else None)
    if session_id is None and command.clientMsgId is not None:
        raise BadFrame("a chat with clientMsgId needs sessionId: it runs once in that session", ref=command.ref)
    if session_id is None and client is not None:
        session_id = client.own_sessions.get(agent_id)
        if session_id is None:
            session_id = hub.node.seams.new_id("s")
            client.own_sessions = {**client.own_sessions, agent_id: session_id}
    return agent, session_id or hub.node.seams.new_id("s")


async def stream_chat(
    hub: Hub,
    principal: Principal,
    command: Chat,
    opener: RunOpener,
    client_cursor: tuple[str, int] | None = None,
    ownership: RunOwnership | None = None,
) -> Accepted:
    """Store a message and its run. Then open a client, answer it, and subscribe it from the message on.

    After a lost connection, *client_cursor* is the (epoch, seq) of the last event of this run that the client received.
    *ownership* begins as soon as the run is known.
    Raises the errors of chat(). SessionDeleted is possible even after the client was opened.
    """
    agent, session_id = _find_target(hub, command, None)
    key = hub.make_key(principal, session_id)
    async with use_session(hub, principal, "write", key, may_create=True) as session:
        accepted = await session.admission.admit(command, make_sender(hub, principal, session), agent)
        if ownership is not None:
            ownership.begin(session, accepted.runId)
        await _follow(hub, session, accepted.runId, accepted.seq - 1, opener, client_cursor, accepted)
    return accepted


async def follow_run(
    hub: Hub,
    principal: Principal,
    session_id: str,
    run_id: str,
    start: int,
    opener: RunOpener,
    client_cursor: tuple[str, int] | None = None,
    ownership: RunOwnership | None = None,
) -> None:
    """Open a client, and subscribe it to the events after *start*.

    The events begin after *client_cursor* instead, if it is later than *start* and has the session's epoch. *ownership*
    is that of stream_chat().
    """
    async with use_session(hub, principal, "read", hub.make_key(principal, session_id)) as session:
        if ownership is not None:
            ownership.begin(session, run_id)
        await _follow(hub, session, run_id, start, opener, client_cursor)


async def _follow(
    hub: Hub,
    session: LiveSession,
    run_id: str,
    start: int,
    opener: RunOpener,
    client_cursor: tuple[str, int] | None,
    accepted: Accepted | None = None,
) -> None:
    channel, cursor = session.channel, start
    if client_cursor is not None and client_cursor[0] == channel.epoch:
        cursor = min(max(start, client_cursor[1]), channel.head)
    # At the cursor is an event, unless retention has deleted it.
    events = await hub.node.log.events.read(channel.key, cursor - 1, cursor) if cursor > start else ()
    client = await opener(run_id, events[0] if events else None)
    check_session(hub, client.principal, "read", session)  # the grants may have changed during the await
    if accepted is not None:
        client.answer(accepted)
    client.hub.node.registry.subscribe(client.connection, channel, cursor)


async def ask(
    hub: Hub,
    principal: Principal,
    command: Chat,
    while_heard: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> RunOutcome:
    """Store a message and its run, wait until the run ends or asks a question, and return its outcome.

    The wait runs in the context *while_heard*. If that context ends the wait, nobody hears the run any more, and it
    goes on.
    Raises the errors of chat(). Raises Draining if the hub goes down before the run's end: the error has the ids of
    the stored message and run, and the agent answers after the next start.
    """
    agent, session_id = _find_target(hub, command, None)
    key = hub.make_key(principal, session_id)
    async with use_session(hub, principal, "write", key, may_create=True) as session:
        accepted = await session.admission.admit(command, make_sender(hub, principal, session), agent)
        async with while_heard():
            with session.schedule.hearing.hear(accepted.runId):
                questions = await session.schedule.wait_for_end_or_question(accepted.runId)
        check_session(hub, await hub.directory.renew(principal), "read", session)
        result = await read_outcome(hub.node.log.events, session, accepted)
    if result.stopReason is None and questions:
        return attrs.evolve(result, interrupts=tuple(questions))
    if result.stopReason is None and hub.node.is_draining:
        ids = {"sessionId": accepted.sessionId, "runId": accepted.runId, "messageId": accepted.messageId}
        text = f"the hub is going down: the message is stored, and run {accepted.runId} answers it after the next start"
        raise Draining(text, retryAfterMs=2000, **ids)
    return result
