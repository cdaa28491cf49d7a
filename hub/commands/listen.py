"""Use cases for subscriptions to a session or to an agent's group, and for typing notices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from hub import __version__
from hub.access.principal import Principal
from hub.commands.client import ClientHandle, ClientOpener
from hub.commands.guard import check_session, use_session
from hub.commands.hub import Hub
from hub.commands.joining import build_subscribed_answer, find_reset_reason, reserve_subscription, subscribe_from
from hub.commands.sign_in import sign_in_client
from hub.errors import BadFrame, Unauthenticated
from hub.ids import Key
from hub.messages import Hello, Ok, Subscribe, Subscribed, Typing, TypingNotice, Unsubscribe, Welcome
from hub.node.history import read_history
from hub.protocols import open_protocol
from hub.sessions.session import LiveSession


async def welcome(hub: Hub, principal: Principal, client: ClientHandle) -> None:
    """Send `welcome` to a client that has signed in, unless it speaks the plain protocol, which has no such frame."""
    if client.protocol != "plain":
        client.answer(_welcome(client, None))


async def hello(hub: Hub, principal: Principal, command: Hello, client: ClientHandle) -> None:
    """Switch a plain client to the extended protocol, and answer with `welcome`. Other clients get `welcome` again.

    A token signs the client in first. Raises the errors of sign_in_client().
    """
    if command.token is not None:
        await sign_in_client(hub, client, command.token)
    elif not principal.is_signed_in:
        raise Unauthenticated(ref=command.ref)
    protocol = client.connection.protocol
    if client.protocol == "plain":
        protocol = open_protocol("hubbub.v1", hub.limits)
    hub.node.registry.switch_protocol(client.connection, protocol, lambda: client.answer(_welcome(client, command.ref)))


def _welcome(client: ClientHandle, ref: str | int | None) -> Welcome:
    hub, limits = client.hub, client.hub.limits
    return Welcome(
        protocol=client.protocol,
        hub={"name": "hubbub", "version": __version__},
        connectionId=client.id,
        principal=client.principal.author,
        agents=tuple(agent for agent in hub.node.agents.describe() if client.principal.can_use(agent["agentId"])),
        limits={
            "frameBytes": limits.frame_bytes,
            "subscriptions": limits.subscriptions,
            "queuedRuns": limits.queued_runs,
            "historyMessages": limits.history_messages,
            "listSize": limits.list_size,
        },
        heartbeatMs=int(limits.ping_seconds * 1000),
        ref=ref,
    )


async def subscribe(hub: Hub, principal: Principal, command: Subscribe, client: ClientHandle) -> None:
    """Subscribe a client to a session from the cursor in *command*, or to an agent's group. Answer the command.

    Raises BadFrame, BadId, UnknownAgent, AgentBroken, TooManySubscriptions, SessionDeleted, StorageUnavailable.
    """
    if command.agentId is not None:
        hub.node.agents.get_working(command.agentId)
        hub.node.registry.join_group(client.connection, hub.make_group_key(principal, command.agentId))
        client.answer(Subscribed(agentId=command.agentId, ref=command.ref))
    elif command.sessionId is not None:
        await _subscribe(hub, principal, hub.make_key(principal, command.sessionId), command, client)
    else:
        raise BadFrame(f"subscribe needs sessionId or agentId; send for example {Subscribe.example}", ref=command.ref)


async def _subscribe(hub: Hub, principal: Principal, key: Key, command: Subscribe, client: ClientHandle) -> None:
    with reserve_subscription(client, key):
        async with use_session(hub, principal, "read", key) as session:
            history = None
            if command.history is not None:
                history = await read_history(hub.node, session.key, command.history)
            await subscribe_from(
                client,
                session,
                command.afterSeq,
                command.epoch,
                build_subscribed_answer(hub, principal, command, history),
            )


async def follow_session(
    hub: Hub,
    principal: Principal,
    session_id: str,
    opener: ClientOpener,
    after: int | None = None,
    epoch: str | None = None,
) -> None:
    """Open a client, and subscribe it to a session from a cursor, without an answer frame.

    May raise SessionDeleted and StorageUnavailable after the client was opened: the caller must tell the client.
    """
    client = await opener()
    async with use_session(hub, principal, "read", hub.make_key(principal, session_id)) as session:
        await subscribe_from(client, session, after, epoch)


@attrs.frozen(kw_only=True)
class SessionStart:
    """What a client of connect_session() gets first.

    *messages* is the history up to the event *head*. It is None if the client has a valid cursor. If *is_idle* is True,
    no run is active or queued.
    """

    messages: tuple[dict[str, Any], ...] | None
    head: int
    is_idle: bool


async def connect_session(
    hub: Hub,
    principal: Principal,
    session_id: str,
    opener: ClientOpener,
    begin: Callable[[SessionStart], None],
    client_cursor: tuple[str, int] | None = None,
) -> None:
    """Open a client, and subscribe it to a session after its cursor. Without a valid cursor, it gets the history first.

    *begin* is called in the step of the subscription. Then the client gets the active runs from their starts, or the
    events after its cursor. May raise SessionDeleted and StorageUnavailable after the client was opened.
    """
    client = await opener()
    async with use_session(hub, principal, "read", hub.make_key(principal, session_id)) as session:
        channel, messages = session.channel, None
        if not _is_valid_cursor(session, client_cursor):
            messages = await read_history(hub.node, session.key, hub.limits.history_messages)
        # No await from here on: the history, the check and the subscription must see the same head.
        channel.refuse_if_deleted()
        check_session(hub, client.principal, "read", session)
        cursor = channel.find_join_cursor()
        if messages is None and client_cursor is not None:
            cursor = client_cursor[1]
        begin(SessionStart(messages=messages, head=channel.head, is_idle=not session.schedule.list_runs()))
        hub.node.registry.subscribe(client.connection, channel, cursor)


def _is_valid_cursor(session: LiveSession, cursor: tuple[str, int] | None) -> bool:
    return cursor is not None and find_reset_reason(session.channel, cursor[1], cursor[0]) is None


async def unsubscribe(hub: Hub, principal: Principal, command: Unsubscribe, client: ClientHandle) -> None:
    """End a client's subscription to a session or an agent's group, and answer the command."""
    if command.agentId is not None:
        hub.node.registry.leave_group(client.connection, hub.make_group_key(principal, command.agentId))
    elif command.sessionId is not None:
        end_subscription(hub, principal, command.sessionId, client)
    else:
        text = f"unsubscribe needs sessionId or agentId; send for example {Unsubscribe.example}"
        raise BadFrame(text, ref=command.ref)
    client.answer(Ok(ref=command.ref))


def end_subscription(hub: Hub, principal: Principal, session_id: str, client: ClientHandle) -> None:
    """End a client's subscription to a session, if it has one, without an answer."""
    sub = client.connection.subscriptions.get(hub.make_key(principal, session_id))
    if sub is not None:
        hub.node.registry.unsubscribe(sub)


async def typing(hub: Hub, principal: Principal, command: Typing, client: ClientHandle | None = None) -> None:
    """Send a typing notice to the other members of a session. Do nothing if a client is not subscribed to it.

    Without a client, whose commands have a rate limit, a principal sends at most one notice in `presence_seconds`.
    """
    key = hub.make_key(principal, command.sessionId)
    session, connection = hub.node.sessions.get(key), client.connection if client is not None else None
    if session is None:
        return
    if session.note_typing(principal.id) if connection is None else key in connection.subscriptions:
        notice = partial(TypingNotice, sessionId=command.sessionId, author=principal.author)
        hub.node.fanout.send_notice(session.channel, notice, excluded_connection=connection)
