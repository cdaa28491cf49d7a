"""Check permissions: before a use case, and again in the step that takes effect."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from hub.access.permissions import (
    BROADCAST_PREFIX,
    Action,
    describe_refusal,
    find_session_role,
    may,
    reads_all_sessions,
)
from hub.access.principal import Principal
from hub.access.records import SessionRole
from hub.commands.hub import Hub
from hub.commands.scopes import Target
from hub.errors import Denied, Unauthenticated, UnknownFile, UnknownSession
from hub.ids import Key, id_of
from hub.messages import Accepted
from hub.sessions.chats import Sender
from hub.sessions.session import LiveSession
from hub.storage.log import EVERYONE
from hub.text import cut


async def check_target(hub: Hub, principal: Principal, action: Action, target: Target) -> None:
    """Raise the error if a principal may not do *action* to *target*.

    A session or a file that the principal may not see, and a missing one, get the same error: UnknownSession or
    UnknownFile. An agent that its credential may not use gets UnknownAgent. Raises also Denied and BadId.
    """
    if principal.is_operator:
        return
    if target.agent_id is not None:
        check_agent(hub, principal, target.agent_id)
    if target.file_id is not None:
        await _check_file(hub, principal, action, target.file_id)
    elif target.session_id is not None:
        key = hub.make_key(principal, target.session_id)
        grants = await find_grants(hub, principal, key)
        check_grants(hub, principal, action, key, grants, target.may_create)
    elif target.may_create:
        check_action(principal, "create")


def check_action(principal: Principal, action: Action) -> None:
    """Raise Unauthenticated or Denied if a principal may not do *action*, which is about no session."""
    if may(principal, action):
        return
    if not principal.is_signed_in:
        raise Unauthenticated()
    raise Denied(describe_refusal(principal, action, None))


def check_agent(hub: Hub, principal: Principal, agent_id: str) -> None:
    """Raise UnknownAgent, as for a missing agent, if the principal's credential may not use an agent."""
    if principal.agents is not None and not (principal.can_use(agent_id) and hub.node.agents.has(agent_id)):
        raise hub.node.agents.make_unknown_error(agent_id, principal.can_use)


def check_grants(
    hub: Hub,
    principal: Principal,
    action: Action,
    key: Key,
    grants: Mapping[str, SessionRole] | None,
    may_create: bool = False,
) -> None:
    """Raise UnknownSession or Denied if a principal may not do *action* to a session.

    If *grants* is None, the session does not exist. With *may_create*, the action makes it.
    """
    if principal.is_operator:
        return
    if not hub.directory.is_current(principal):
        raise Denied("your permissions have just changed: send the command again", sessionId=id_of(key))
    if grants is None and may_create and _can_learn_of_refusal(hub, principal):
        # Whoever begins the session of an agent's broadcasts could send them.
        check_action(principal, "administer" if id_of(key).startswith(BROADCAST_PREFIX) else "create")
        return
    role = None if grants is None else find_session_role(principal, key, grants, is_team=hub.is_team)
    if role is None:
        raise make_unknown_session_error(id_of(key))
    if not may(principal, action, role):
        is_broadcast = id_of(key).startswith(BROADCAST_PREFIX)
        raise Denied(describe_refusal(principal, action, role, is_broadcast=is_broadcast), sessionId=id_of(key))


def _can_learn_of_refusal(hub: Hub, principal: Principal) -> bool:
    """Return whether a principal may learn that it may not make a session.

    A guest may not: the refusal would tell a missing session from one that the guest may not see.
    """
    return may(principal, "create") or reads_all_sessions(principal, is_team=hub.is_team)


def make_unknown_session_error(session_id: str) -> UnknownSession:
    """Return the error for a session that does not exist, or that the principal may not see."""
    return UnknownSession(f"there is no session {session_id}", sessionId=session_id)


async def find_grants(hub: Hub, principal: Principal, key: Key) -> Mapping[str, SessionRole] | None:
    """Return the roles in a session as they are now, or None if the session does not exist.

    If the session looks missing to the principal, the work is that for a missing session, also if it is in memory: the
    time of the refusal tells nothing.
    """
    session = hub.node.sessions.get(key)
    if session is not None and session.exists and find_role(hub, principal, session) is not None:
        return session.grants
    grants = await hub.node.log.access.find_grants(key)
    session = hub.node.sessions.get(key)  # loaded or changed during the await
    if session is not None:
        return session.grants if session.exists else None
    return grants


async def _check_file(hub: Hub, principal: Principal, action: Action, file_id: str) -> None:
    try:
        key = (await hub.node.files.find(file_id)).key
        check_grants(hub, principal, action, key, await find_grants(hub, principal, key))
    except UnknownSession:
        raise UnknownFile(f"there is no file {cut(file_id, 128)}") from None


@asynccontextmanager
async def use_session(
    hub: Hub, principal: Principal, action: Action, key: Key, may_create: bool = False
) -> AsyncIterator[LiveSession]:
    """Load a session, check the permission as the grants are now, and do not unload the session within the context.

    If the session does not exist and *may_create* is set, the principal becomes its owner: the next command of another
    principal sees that. Raises the errors of SessionLoader.use() and of check_grants().
    """
    principal = await hub.directory.renew(principal)
    async with hub.node.loader.use(key) as session:
        check_session(hub, principal, action, session, may_create)
        if may_create and not session.exists and not principal.is_operator:
            session.claim(principal.id)
        yield session


def check_session(
    hub: Hub, principal: Principal, action: Action, session: LiveSession, may_create: bool = False
) -> None:
    """Raise the errors of check_grants() for a session in memory.

    Call this after each await before a lasting effect.
    """
    check_grants(hub, principal, action, session.key, session.grants if session.exists else None, may_create)


@asynccontextmanager
async def change_grants(
    hub: Hub, principal: Principal, action: Action, key: Key, may_create: bool = False
) -> AsyncIterator[LiveSession]:
    """Use a session as use_session() does, while no other task changes its grants and invites."""
    async with use_session(hub, principal, action, key, may_create) as session, session.grants_lock:
        check_again(hub, principal, action, session)
        yield session


def check_again(hub: Hub, principal: Principal, action: Action, session: LiveSession) -> None:
    """Raise the errors of check_session(), and SessionDeleted. Save a grant or an invite without an await after this.

    The session may be deleted during an await, and made anew by another principal: the grant would be in its session.
    """
    session.channel.refuse_if_deleted()
    check_session(hub, principal, action, session)


def make_sender(
    hub: Hub,
    principal: Principal,
    session: LiveSession,
    on_accept: Callable[[Accepted], None] = lambda accepted: None,
) -> Sender:
    """Return the sender of a chat, an edit or a regeneration."""

    def check(agent_id: str) -> None:
        check_again(hub, principal, "write", session)
        check_agent(hub, principal, agent_id)

    return Sender(author=principal.author, check=check, on_accept=on_accept)


def find_role(hub: Hub, principal: Principal, session: LiveSession) -> SessionRole | None:
    """Return the role of a principal in a session as the grants are now. It is None while sign-in is off."""
    if not hub.is_sign_in_on:
        return None
    return find_session_role(principal, session.key, session.grants, is_team=hub.is_team)


def find_readers(hub: Hub, principal: Principal) -> frozenset[str]:
    """Return the readers for a SessionQuery that lists what a principal may read."""
    return EVERYONE if reads_all_sessions(principal, is_team=hub.is_team) else frozenset({principal.id})
