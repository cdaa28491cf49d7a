"""What each command does: one short function per command, in one table."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

from hub import __version__
from hub.delivery.connection import Connection
from hub.delivery.registry import Channel
from hub.errors import BadFrame, NotRunning, UnknownSession
from hub.hosting.contract import Reply
from hub.messages import (
    Accepted,
    Author,
    Cancel,
    Cancelling,
    Chat,
    Command,
    Edit,
    Fork,
    Hello,
    Ok,
    Ping,
    Pong,
    Regenerate,
    Resume,
    Subscribe,
    Subscribed,
    Typing,
    TypingNotice,
    Unsubscribe,
    Welcome,
)
from hub.node.node import Node
from hub.protocols import open_protocol
from hub.sessions import rewriting
from hub.sessions.questions import Questions, asked, too_late
from hub.sessions.session import Session, new_id

ResetReason = Literal["epoch_changed", "too_old", "past_head"]


async def dispatch(node: Node, connection: Connection, command: Command) -> None:
    """Carry out one command; its answer is written before this returns. Raises HubError."""
    await COMMANDS[type(command)](node, connection, command)


async def hello(node: Node, connection: Connection, command: Hello) -> None:
    if connection.protocol.name == "plain" and connection.frames > 1:
        raise BadFrame("hello must be the first frame; reconnect to speak the extended protocol")
    protocol = open_protocol("hubbub.v1") if connection.protocol.name == "plain" else connection.protocol
    node.registry.speak(connection, protocol, lambda: welcome(node, connection, command.ref))


def welcome(node: Node, connection: Connection, ref: str | int | None = None) -> None:
    """Tell a client where it is; the first frame of the extended protocol."""
    limits = node.settings.limits
    connection.answer(
        Welcome(
            protocol=connection.protocol.name,
            hub={"name": "hubbub", "version": __version__},
            connectionId=connection.id,
            principal=connection.principal,
            agents=node.agents.describe(),
            limits={
                "frameBytes": limits.frame_bytes,
                "subscriptions": limits.subscriptions,
                "queuedRuns": limits.queued_runs,
                "historyMessages": limits.history_messages,
            },
            heartbeatMs=int(limits.ping_seconds * 1000),
            ref=ref,
        )
    )


async def chat(node: Node, connection: Connection, command: Chat) -> None:
    """Keep the message and its run, answer, and let the sender hear the session from that message on."""
    node.refuse_if_draining()
    agent = node.agents.get(command.agentId or connection.agent)
    if command.clientMsgId is not None and not (command.sessionId or connection.session):
        raise BadFrame("a chat with clientMsgId needs sessionId: it runs once in that session", ref=command.ref)
    session_id = command.sessionId or connection.session
    if session_id is None:
        session_id = connection.own_sessions.setdefault(agent.id, new_id("s"))
    node.registry.check_room(connection, session_id)
    async with node.use(session_id) as session:
        accepted = await session.chat(command, connection.principal, agent)
        _admitted(node, connection, session.channel, accepted)
        if command.stream is False:
            node.registry.say_whole(connection, session.channel, accepted.runId, session.has(accepted.runId))


def _admitted(node: Node, connection: Connection, channel: Channel, accepted: Accepted, before: int = 1) -> None:
    """Answer, and let the sender hear the session from what was accepted on, or from so many numbers *before* it."""
    connection.answer(accepted)
    sub = connection.subscriptions.get(channel.id)
    if sub is None or sub.runs is not None:
        node.registry.subscribe(connection, channel, min(accepted.seq - before, channel.join_point()), asked=False)


async def regenerate(node: Node, connection: Connection, command: Regenerate) -> None:
    await _check_rewriting(node, connection, command.sessionId)
    async with node.use(command.sessionId) as session:
        accepted = await rewriting.regenerate(session, command, connection.principal)
        _admitted(node, connection, session.channel, accepted)


async def edit(node: Node, connection: Connection, command: Edit) -> None:
    await _check_rewriting(node, connection, command.sessionId)
    async with node.use(command.sessionId) as session:
        accepted = await rewriting.edit(session, command, connection.principal, connection.agent)
        _admitted(node, connection, session.channel, accepted, before=2)  # what is taken back comes first


async def fork(node: Node, connection: Connection, command: Fork) -> None:
    """Begin another session with this one's history, and let the sender hear it."""
    session_id = command.newSessionId or new_id("s")
    await _check_rewriting(node, connection, command.sessionId, session_id)
    limits = node.settings.limits
    history = await rewriting.history(node.log, command, limits.fork_messages, limits.fork_bytes)
    async with node.use(session_id) as session:
        await rewriting.copy(session, history)
        await join(node, connection, session, None, None, _subscribed(node, command, None))


async def _check_rewriting(node: Node, connection: Connection, session_id: str, heard: str | None = None) -> None:
    """Refuse while the hub goes down, where *heard* is one session too many, and what is in no session."""
    node.refuse_if_draining()
    node.registry.check_room(connection, heard or session_id)
    if await node.log.find(session_id) is None:
        raise UnknownSession(f"there is no session {session_id}", sessionId=session_id)


async def subscribe(node: Node, connection: Connection, command: Subscribe) -> None:
    if command.agentId is not None:
        node.agents.get(command.agentId)
        node.registry.listen(connection, command.agentId)
        connection.answer(Subscribed(agentId=command.agentId, ref=command.ref))
    elif command.sessionId is not None:
        async with node.use(command.sessionId) as session:
            history = None
            if command.history is not None:
                history = await node.history(session.id, command.history)
            await join(node, connection, session, command.afterSeq, command.epoch, _subscribed(node, command, history))
    else:
        raise BadFrame(f"subscribe needs sessionId or agentId; send for example {Subscribe.example}", ref=command.ref)


Answer = Callable[[Session], Subscribed]


def _subscribed(node: Node, command: Command, history: tuple[dict[str, Any], ...] | None) -> Answer:
    def answer(session: Session) -> Subscribed:
        state = session.state()
        return Subscribed(
            sessionId=session.id,
            epoch=session.channel.epoch,
            seq=session.channel.head,
            agents=tuple(agent.id for agent in node.agents.all()),
            members=node.presence(session.channel).members,
            active=state.active,
            history=history,
            ref=command.ref,
        )

    return answer


async def join(
    node: Node,
    connection: Connection,
    session: Session,
    after: int | None,
    epoch: str | None,
    answer: Answer | None = None,
) -> None:
    """Let a connection hear a session from its cursor; where that means nothing here, after a reset, as a new one."""
    channel = session.channel
    if _misfit(channel, after, epoch) is not None:
        messages = await node.reset_messages(session.id)
    # No await from here on: the cursor is checked, answered and placed against the same head.
    channel.refuse_if_deleted()
    reason = _misfit(channel, after, epoch)
    if answer is not None:
        connection.answer(answer(session))
    if reason is not None:
        connection.reset(channel, reason, messages)
        after = channel.join_point()
    node.registry.subscribe(connection, channel, after)


def _misfit(channel: Channel, after: int | None, epoch: str | None) -> ResetReason | None:
    if after is None:
        return None
    if epoch is not None and epoch != channel.epoch:
        return "epoch_changed"
    if after > channel.head:
        return "past_head"
    return "too_old" if after < channel.floor else None


async def unsubscribe(node: Node, connection: Connection, command: Unsubscribe) -> None:
    if command.agentId is not None:
        node.registry.unlisten(connection, command.agentId)
    elif command.sessionId is not None:
        sub = connection.subscriptions.get(command.sessionId)
        if sub is not None:
            node.registry.drop(sub)
    else:
        raise BadFrame(
            f"unsubscribe needs sessionId or agentId; send for example {Unsubscribe.example}", ref=command.ref
        )
    connection.answer(Ok(ref=command.ref))


async def cancel(node: Node, connection: Connection, command: Cancel) -> None:
    connection.answer(stop(node, command))


def stop(node: Node, command: Cancel) -> Cancelling:
    """Stop runs, whoever asked and however; raises NotRunning."""
    session = node.sessions.get(command.sessionId)  # one with a run, or a waiting one, is in memory
    if session is None:
        raise NotRunning(f"nothing is being answered in session {command.sessionId}", sessionId=command.sessionId)
    run_ids = session.cancel(command.runId, command.queued)
    return Cancelling(sessionId=session.id, runIds=run_ids, ref=command.ref)


async def resume(node: Node, connection: Connection, command: Resume) -> None:
    await reply(node, command, connection.principal)
    connection.answer(Ok(ref=command.ref))


async def reply(node: Node, command: Resume, author: Author) -> None:
    """Answer an open question, whoever asked and however; return when the answer is kept.

    Raises UnknownInterrupt, AlreadyResolved, BadFrame, Draining, StorageUnavailable.
    """
    questions = asking(node, command.sessionId, command.interruptId)
    if questions is not None:
        await questions.answer(command.interruptId, Reply(command.status, command.payload, author))
        return
    await asked(node.log, command.sessionId, command.interruptId)
    node.refuse_if_draining()  # the question may be of a run that starts again
    raise too_late(command.sessionId, command.interruptId)


def asking(node: Node, session_id: str, interrupt_id: str) -> Questions | None:
    """Return the questions among which this one is open, or None."""
    session = node.sessions.get(session_id)  # one with an open question is in memory
    return session.asking(interrupt_id) if session is not None else None


async def typing(node: Node, connection: Connection, command: Typing) -> None:
    sub = connection.subscriptions.get(command.sessionId)
    if sub is not None and isinstance(sub.channel, Channel):
        notice = partial(TypingNotice, sessionId=command.sessionId, author=connection.principal)
        node.registry.tell(sub.channel, notice, but=connection)


async def ping(node: Node, connection: Connection, command: Ping) -> None:
    connection.answer(Pong())


COMMANDS: dict[type[Command], Callable[[Node, Connection, Any], Awaitable[None]]] = {
    Hello: hello,
    Chat: chat,
    Subscribe: subscribe,
    Unsubscribe: unsubscribe,
    Cancel: cancel,
    Resume: resume,
    Regenerate: regenerate,
    Edit: edit,
    Fork: fork,
    Typing: typing,
    Ping: ping,
}
