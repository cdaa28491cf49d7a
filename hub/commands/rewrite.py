"""Say or answer something anew, or go on with a session as another one."""

from hub.access.principal import Principal
from hub.commands.client import ClientHandle
from hub.commands.hub import Hub
from hub.commands.joining import admit, join, room_for, subscribed
from hub.errors import UnknownSession
from hub.ids import Key
from hub.messages import Accepted, Edit, Fork, Regenerate
from hub.sessions import rewriting


async def regenerate(hub: Hub, principal: Principal, command: Regenerate, client: ClientHandle) -> Accepted:
    """Have a message answered anew; the client is answered, and hears the session from that on."""
    key = hub.key(principal, command.sessionId)
    with room_for(client, key):
        await _check_there(hub, key, command.sessionId)
        async with hub.node.use(key) as session:
            accepted = await rewriting.regenerate_answer(session, command, principal.author)
            admit(client, session.channel, accepted)
    return accepted


async def edit(hub: Hub, principal: Principal, command: Edit, client: ClientHandle) -> Accepted:
    """Say another message in a message's place; the client is answered, and hears the session from that on."""
    key = hub.key(principal, command.sessionId)
    with room_for(client, key):
        await _check_there(hub, key, command.sessionId)
        async with hub.node.use(key) as session:
            accepted = await rewriting.edit_message(session, command, principal.author, client.agent)
            admit(client, session.channel, accepted, before=2)  # what is taken back comes first
    return accepted


async def fork(hub: Hub, principal: Principal, command: Fork, client: ClientHandle) -> None:
    """Begin another session with this one's history; the client is answered, and hears the new one."""
    new_key = hub.key(principal, command.newSessionId or hub.node.seams.new_id("s"))
    key = hub.key(principal, command.sessionId)
    with room_for(client, new_key):
        await _check_there(hub, key, command.sessionId)
        history = await rewriting.read_fork(hub.node.log.sessions, key, command, hub.limits)
        async with hub.node.use(new_key) as session:
            await rewriting.start_fork(session, history)
            await join(client, session, None, None, subscribed(hub, command, None))


async def _check_there(hub: Hub, key: Key, session_id: str) -> None:
    if await hub.node.log.sessions.find(key) is None:
        raise UnknownSession(f"there is no session {session_id}", sessionId=session_id)
