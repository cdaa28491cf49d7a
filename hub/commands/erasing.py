"""Use case of the operator: erase a principal, with all that it wrote."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import attrs

from hub.access.principal import Principal
from hub.access.records import PrincipalRecord
from hub.commands.enforcing import recheck_session, refresh_clients
from hub.commands.guard import find_grants
from hub.commands.hub import Hub
from hub.commands.principals import ID_PREFIX, find_principal
from hub.commands.space import list_owned_keys
from hub.errors import HubError, SessionDeleted, UnknownPrincipal
from hub.ids import DEFAULT_TENANT, Key
from hub.node import deleting, erasing


@attrs.frozen(kw_only=True)
class Erasure:
    """What an erasure did. *principal* is the id.

    The sessions in *deleted_sessions* belonged to the principal alone. Those in *other_sessions* stay: the messages of
    the principal in them have become `[erased]`, but what agents have answered to them stays.
    """

    principal: str
    deleted_sessions: Sequence[Key]
    other_sessions: Sequence[Key]


async def erase_principal(hub: Hub, principal: Principal, name: str) -> Erasure:
    """Erase a principal, by its name or its id: its sessions, its messages in other sessions, its keys and its name.

    A call that failed or was killed can be repeated: the principal itself is deleted last. With an id, this also works
    after an erasure that has succeeded, and after the removal of the principal. Raises UnknownPrincipal, AmbiguousName,
    Draining, StorageUnavailable.
    """
    async with hub.erasure_lock:
        record = await _find_record(hub, principal, name)
        await _lock_out(hub, record)
        await hub.node.open_files()
        if not hub.is_started:
            await erasing.load_runs_of(hub.node, record.id)
        await _settle_sessions(hub, record.id)
        deleted_sessions = await _delete_own_sessions(hub, principal, record.id)
        other_sessions = await _erase_in_sessions(hub, record.id)
        await hub.node.log.events.purge(thoroughly=True)
        grants = await hub.node.log.access.list_grants(record.id)
        hub.audit.forget_name(record.id)
        await hub.node.log.access.erase_principal(record.id)
        hub.directory.drop(record.id)
        _drop_grants(hub, record.id, [grant.key for grant in grants])
        await hub.node.log.events.purge(thoroughly=True)  # again, for the name of the principal
        return Erasure(principal=record.id, deleted_sessions=deleted_sessions, other_sessions=other_sessions)


async def _find_record(hub: Hub, principal: Principal, name: str) -> PrincipalRecord:
    try:
        return await find_principal(hub, principal, name)
    except UnknownPrincipal:
        if not name.startswith(ID_PREFIX):
            raise
        return PrincipalRecord(id=name, name="", kind="person", role="guest", tenant=DEFAULT_TENANT)


async def _lock_out(hub: Hub, record: PrincipalRecord) -> None:
    """End the sign-ins of a principal, and let its commands that are under way write nothing more."""
    hub.erased_ids.add(record.id)
    credentials, now = await hub.node.log.access.list_credentials(record.id), hub.node.seams.now()
    revocations = [attrs.evolve(credential, revoked=credential.revoked or now) for credential in credentials]
    await hub.node.log.access.save(*revocations)
    await refresh_clients(hub, record.id)


async def _settle_sessions(hub: Hub, principal_id: str) -> None:
    """Wait until the log holds what the principal wrote before it was locked out."""
    keys = [key for key, session in hub.node.sessions.items() if not session.outbox.is_empty]
    await _for_each(keys, lambda key: erasing.settle(hub.node, key, principal_id))


async def _delete_own_sessions(hub: Hub, principal: Principal, principal_id: str) -> Sequence[Key]:
    """Delete the sessions whose only owner is the principal."""
    keys = []
    for key in sorted(await list_owned_keys(hub, principal_id)):
        grants = await find_grants(hub, principal, key) or {}
        if [owner for owner, role in grants.items() if role == "owner"] == [principal_id]:
            keys.append(key)
    await deleting.delete_all(hub.node, keys)
    return keys


async def _erase_in_sessions(hub: Hub, principal_id: str) -> Sequence[Key]:
    """Erase what the principal wrote in the sessions that stay. Return the sessions."""
    keys: set[Key] = set()
    # Again, until there are no more: a fork of one of these sessions may have been under way.
    while new_keys := {*await hub.node.log.sessions.list_keys_of_author(principal_id)} - keys:
        await _for_each(sorted(new_keys), lambda key: erasing.erase_in_session(hub.node, key, principal_id))
        keys |= new_keys
    return sorted(keys)


async def _for_each(keys: Iterable[Key], function: Callable[[Key], Awaitable[None]]) -> None:
    """Call a function for each session, also after a failure; then raise the first error.

    A session that is being deleted is not a failure.
    """
    errors: list[HubError] = []
    for key in keys:
        try:
            with suppress(SessionDeleted):
                await function(key)
        except HubError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _drop_grants(hub: Hub, principal_id: str, keys: Iterable[Key]) -> None:
    for key in keys:
        session = hub.node.sessions.get(key)
        if session is not None:
            session.grants.pop(principal_id, None)
            recheck_session(hub, key)
