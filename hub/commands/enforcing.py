"""Apply a change of permissions to the open clients: call these functions in the step after the commit."""

from hub.access.principal import Principal
from hub.commands.client import ClientHandle
from hub.commands.guard import find_role, make_unknown_session_error
from hub.commands.hub import Hub
from hub.delivery.channel import Subscription
from hub.errors import CredentialRevoked, StorageUnavailable, Unauthenticated
from hub.ids import Key, id_of
from hub.messages import Error, RoleNotice


def recheck_session(hub: Hub, key: Key) -> None:
    """End the subscriptions to a session of those who may no longer read it, with the error `unknown_session`."""
    session = hub.node.sessions.get(key)
    if session is not None:
        for sub in list(session.channel.subscriptions):
            _recheck(hub, sub)


def _recheck(hub: Hub, sub: Subscription) -> None:
    if hub.can_hear(sub.connection, sub.channel):
        return
    hub.node.registry.unsubscribe(sub)
    if sub.run_ids is None:
        refusal = make_unknown_session_error(id_of(sub.channel.key))
        sub.connection.answer(Error(code=refusal.code, message=refusal.message, sessionId=id_of(sub.channel.key)))


def announce_role(hub: Hub, key: Key, principal_id: str) -> None:
    """Notify the clients of a principal that are subscribed to a session of their role in it."""
    for client in hub.clients.list_of(principal_id):
        sub = client.connection.subscriptions.get(key)
        if sub is not None:
            _announce(hub, client, sub)


def _announce(hub: Hub, client: ClientHandle, sub: Subscription) -> None:
    session = hub.node.sessions.get(sub.channel.key)
    role = find_role(hub, client.principal, session) if session is not None else None
    if role is not None and sub.run_ids is None:
        client.write(client.connection.protocol.notice(RoleNotice(sessionId=id_of(sub.channel.key), role=role)))


async def refresh_clients(hub: Hub, principal_id: str) -> None:
    """Forget a principal in memory, and apply its current role and credentials to its open clients.

    A client whose credential was revoked is closed with 4503, and an answer outside a session is stopped. Raises
    StorageUnavailable: then all its clients are closed, because their permissions are not known.
    """
    hub.directory.drop(principal_id)
    clients = hub.clients.list_of(principal_id)
    try:
        for client in clients:
            await _refresh(hub, client)
    except Exception:
        for client in clients:
            client.end(CredentialRevoked())
        raise
    for reader, principal in [*hub.clients.readers.items()]:
        if principal.id == principal_id and not await _is_valid(hub, principal):
            reader.stop("cancelled")


async def _is_valid(hub: Hub, principal: Principal) -> bool:
    try:
        await hub.directory.renew(principal)
    except (Unauthenticated, StorageUnavailable):
        return False
    return True


async def _refresh(hub: Hub, client: ClientHandle) -> None:
    old_principal = client.principal
    try:
        principal = await hub.directory.renew(old_principal)
    except Unauthenticated as refusal:
        if client.principal is old_principal:  # an `auth` has not replaced the credential meanwhile
            client.end(refusal)
        return
    if client.principal is old_principal and not client.is_closed:
        client.sign_in(principal)
        if principal != old_principal:
            recheck_client(hub, client)


def recheck_client(hub: Hub, client: ClientHandle) -> None:
    """End the subscriptions of a client that its principal may no longer have."""
    connection = client.connection
    for group in list(connection.groups):
        if not client.principal.can_use(group.rpartition("/")[2]):
            hub.node.registry.leave_group(connection, group)
    for sub in list(connection.subscriptions.values()):
        _recheck(hub, sub)
        if not sub.is_closed:
            _announce(hub, client, sub)
