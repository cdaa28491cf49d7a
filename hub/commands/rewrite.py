"""Use cases that rewrite a session's history, or copy it into a new session."""

from hub.access.principal import Principal
from hub.commands.client import ClientHandle
from hub.commands.hub import Hub
from hub.commands.joining import answer_and_subscribe, build_subscribed_answer, reserve_subscription, subscribe_from
from hub.errors import UnknownSession
from hub.ids import Key
from hub.messages import Accepted, Edit, Fork, Regenerate
from hub.sessions import rewriting, session_fork


async def regenerate(hub: Hub, principal: Principal, command: Regenerate, client: ClientHandle) -> Accepted:
    """Answer a message again. The client is answered, and subscribed from the new run on."""
    key = hub.key(principal, command.sessionId)
    with reserve_subscription(client, key):
        await _check_session_exists(hub, key, command.sessionId)
        async with hub.node.loader.use(key) as session:
            accepted = await rewriting.regenerate_answer(session, command, principal.author)
            answer_and_subscribe(client, session.channel, accepted)
    return accepted


async def edit(hub: Hub, principal: Principal, command: Edit, client: ClientHandle) -> Accepted:
    """Replace a message with a new one, and answer that. The client is answered, and subscribed from the change on."""
    key = hub.key(principal, command.sessionId)
    with reserve_subscription(client, key):
        await _check_session_exists(hub, key, command.sessionId)
        async with hub.node.loader.use(key) as session:
            accepted = await rewriting.edit_message(session, command, principal.author, client.agent)
            # Two events: the removal of the old messages, and the new message.
            answer_and_subscribe(client, session.channel, accepted, event_count=2)
    return accepted


async def fork(hub: Hub, principal: Principal, command: Fork, client: ClientHandle) -> None:
    """Create a session with a copy of this one's history. The client is answered, and subscribed to the new session."""
    new_key = hub.key(principal, command.newSessionId or hub.node.seams.new_id("s"))
    key = hub.key(principal, command.sessionId)
    with reserve_subscription(client, new_key):
        await _check_session_exists(hub, key, command.sessionId)
        history = await session_fork.read_source_messages(hub.node.log.sessions, key, command, hub.limits)
        async with hub.node.loader.use(new_key) as session:
            await session_fork.log_copies(session, history)
            await subscribe_from(client, session, None, None, build_subscribed_answer(hub, command, None))


async def _check_session_exists(hub: Hub, key: Key, session_id: str) -> None:
    if await hub.node.log.sessions.find(key) is None:
        raise UnknownSession(f"there is no session {session_id}", sessionId=session_id)
