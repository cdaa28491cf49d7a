"""Use cases that rewrite a session's history, or copy it into a new session.

If there is a client, it gets the answer to its command, and is subscribed in the same step.
"""

from functools import partial

import attrs

from hub.access.principal import Principal
from hub.commands.client import ClientHandle
from hub.commands.guard import make_sender, make_unknown_session_error, use_session
from hub.commands.history import read_state
from hub.commands.hub import Hub
from hub.commands.joining import answer_and_subscribe, build_subscribed_answer, reserve_subscription, subscribe_from
from hub.commands.scopes import DEFAULT_AGENT
from hub.commands.space import find_space_shares
from hub.ids import Key
from hub.messages import Accepted, Author, Edit, Fork, HistoryMessage, Regenerate, SessionState
from hub.sessions import rewriting, session_fork
from hub.storage.log import ERASED


async def regenerate(
    hub: Hub, principal: Principal, command: Regenerate, client: ClientHandle | None = None
) -> Accepted:
    """Start a new run for a message. A client is subscribed from the new run on.

    Raises UnknownSession, TooManySubscriptions, and the errors of rewriting.regenerate_answer().
    """
    key = hub.make_key(principal, command.sessionId)
    with reserve_subscription(client, key):
        await _check_session_exists(hub, key, command.sessionId)
        async with use_session(hub, principal, "write", key) as session:
            accepted = await rewriting.regenerate_answer(session, command, make_sender(hub, principal, session))
            if client is not None:
                answer_and_subscribe(client, session, accepted)
    return accepted


async def edit(hub: Hub, principal: Principal, command: Edit, client: ClientHandle | None = None) -> Accepted:
    """Replace a message and start its run. A client is subscribed from the removal on.

    Raises UnknownSession, TooManySubscriptions, and the errors of rewriting.edit_message().
    """
    key = hub.make_key(principal, command.sessionId)
    default_agent = client.agent if client is not None else DEFAULT_AGENT
    with reserve_subscription(client, key):
        await _check_session_exists(hub, key, command.sessionId)
        async with use_session(hub, principal, "write", key) as session:
            sender = make_sender(hub, principal, session)
            accepted = await rewriting.edit_message(session, command, sender, default_agent)
            if client is not None:
                # Two events: the removal of the old messages, and the new message.
                answer_and_subscribe(client, session, accepted, event_count=2)
    return accepted


async def fork(
    hub: Hub, principal: Principal, command: Fork, client: ClientHandle | None = None
) -> SessionState | None:
    """Copy a session's history and its files into a new session. Return the new session's state if there is no client.

    Raises UnknownSession, TooManySubscriptions, and the errors of read_source_messages() and log_copies().
    """
    new_key = hub.make_key(principal, command.newSessionId or hub.node.seams.new_id("s"))
    key = hub.make_key(principal, command.sessionId)
    with reserve_subscription(client, new_key):
        await _check_session_exists(hub, key, command.sessionId)
        history = await session_fork.read_source_messages(hub.node.log.sessions, key, command, hub.limits)
        shares = await find_space_shares(hub, principal, new_key) if hub.is_sign_in_on else ()
        async with use_session(hub, principal, "write", new_key, may_create=True) as session:
            await session_fork.log_copies(session, key, history, partial(_revise, hub), shares)
            if client is None:
                return await read_state(hub, session.channel)
            await subscribe_from(client, session, None, None, build_subscribed_answer(hub, principal, command, None))
    return None


def _revise(hub: Hub, message: HistoryMessage) -> HistoryMessage:
    """Return a message that was read before, without its text if its author was erased meanwhile."""
    if message.author is None or message.author.id not in hub.erased_ids:
        return message
    author = Author(message.author.id, "")
    return attrs.evolve(message, author=author, content=ERASED, parts=None, metadata=None)


async def _check_session_exists(hub: Hub, key: Key, session_id: str) -> None:
    """Raise UnknownSession if the log does not have the session."""
    if await hub.node.log.sessions.find(key) is None:
        raise make_unknown_session_error(session_id)
