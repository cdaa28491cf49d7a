"""Use cases of the operator: principals, their keys, and the links that sign people in."""

from collections.abc import Sequence
from contextlib import suppress

import attrs

from hub.access.permissions import BROADCAST_PREFIX
from hub.access.principal import Principal
from hub.access.records import Credential, Grant, PrincipalKind, PrincipalRecord, TenantRole, make_name
from hub.access.secrets import make_token
from hub.commands.enforcing import refresh_clients
from hub.commands.guard import change_grants
from hub.commands.hub import Hub
from hub.commands.sessions import list_keys
from hub.days import DAY_MS
from hub.errors import AmbiguousName, BadFrame, SessionDeleted, UnknownKey, UnknownPrincipal
from hub.ids import DEFAULT_TENANT, Key, describe_bad_id, id_of, is_id, key_prefix
from hub.storage.log import EVERYONE
from hub.storage.records import SessionQuery

ID_PREFIX = "p_"  # of the ids of principals
LINK_MS = 7 * DAY_MS  # how long the link for a person is valid


@attrs.frozen(kw_only=True)
class NewKey:
    """A new key. *key* is its text: only its digest is stored, so it cannot be shown again.

    *warnings* name the agents of the key that the running hub does not have.
    """

    key: str
    keyId: str
    principal: PrincipalRecord
    expires: int
    warnings: tuple[str, ...] = ()


async def create_key(
    hub: Hub,
    principal: Principal,
    name: str,
    *,
    role: TenantRole | None = None,
    tenant: str = DEFAULT_TENANT,
    agents: Sequence[str] | None = None,
    days: float | None = None,
) -> NewKey:
    """Make a key for a principal. A program is made if no principal has the name, as a member unless *role* is set.

    *agents* limits the key to these agents. Raises AmbiguousName, BadFrame if an existing principal has another role,
    and StorageUnavailable.
    """
    token, expires = make_token("hk", hub.node.seams.new_secret), (
        0 if days is None else hub.node.seams.now() + int(days * DAY_MS)
    )
    async with hub.directory.creation_lock:
        record = await _find_or_make(hub, name, tenant, "program", role)
        credential = Credential(
            id=token.id,
            principal=record.id,
            kind="key",
            digest=token.digest,
            agents=None if agents is None else tuple(agents),
            created=hub.node.seams.now(),
            expires=expires,
        )
        await hub.node.log.access.save(record, credential)
    hub.directory.drop(record.id)
    warnings = _list_unknown_agents(hub, agents or ())
    return NewKey(key=token.text, keyId=token.id, principal=record, expires=expires, warnings=warnings)


def _list_unknown_agents(hub: Hub, agents: Sequence[str]) -> tuple[str, ...]:
    """Return a line for each agent that the hub does not have; none if the hub is not started, and has no agents."""
    if not hub.is_started:
        return ()
    unknown_ids = [agent_id for agent_id in agents if not hub.node.agents.has(agent_id)]
    return tuple(hub.node.agents.make_unknown_error(agent_id).message for agent_id in unknown_ids)


async def list_credentials(hub: Hub, principal: Principal, name: str | None = None) -> Sequence[Credential]:
    """Return the credentials of a principal, or all. Raises UnknownPrincipal, AmbiguousName, StorageUnavailable."""
    await hub.directory.save_uses()
    principal_id = None if name is None else (await find_principal(hub, principal, name)).id
    return await hub.node.log.access.list_credentials(principal_id)


async def revoke_credential(hub: Hub, principal: Principal, credential_id: str) -> Credential:
    """Make a credential useless, and close the connections that use it. Raises UnknownKey, StorageUnavailable."""
    credential = await hub.node.log.access.find_credential(credential_id)
    if credential is None:
        raise UnknownKey(f"there is no key {credential_id}: hubbub key list shows the ids")
    if not credential.revoked:
        credential = attrs.evolve(credential, revoked=hub.node.seams.now())
        await hub.node.log.access.save(credential)
        await refresh_clients(hub, credential.principal)
    return credential


async def invite_person(
    hub: Hub, principal: Principal, name: str, *, role: TenantRole | None = None, tenant: str = DEFAULT_TENANT
) -> str:
    """Return a link that signs a person in once, within 7 days. The person is made if no principal has the name.

    Raises the errors of create_key().
    """
    token, now = make_token("hi", hub.node.seams.new_secret), hub.node.seams.now()
    async with hub.directory.creation_lock:
        record = await _find_or_make(hub, name, tenant, "person", role)
        credential = Credential(
            id=token.id, principal=record.id, kind="invite", digest=token.digest, created=now, expires=now + LINK_MS
        )
        await hub.node.log.access.save(record, credential)
    hub.directory.drop(record.id)
    return hub.make_link(token.text)


async def list_principals(hub: Hub, principal: Principal, tenant: str | None = None) -> Sequence[PrincipalRecord]:
    """Return the principals of a tenant, or of all."""
    return await hub.node.log.access.list_principals(tenant)


async def find_principal(hub: Hub, principal: Principal, name: str) -> PrincipalRecord:
    """Return the principal with this id, or with this name. Raises UnknownPrincipal, AmbiguousName."""
    records = [record for record in await hub.node.log.access.list_principals() if name in (record.id, record.name)]
    if not records:
        raise UnknownPrincipal(f"there is no principal {name}: hubbub principal list shows all")
    if len(records) > 1:
        ids = ", ".join(record.id for record in records)
        raise AmbiguousName(f"several principals have the name {name}: use one of the ids {ids}")
    return records[0]


async def change_principal(
    hub: Hub, principal: Principal, name: str, *, role: TenantRole | None = None, new_name: str | None = None
) -> PrincipalRecord:
    """Change the role or the name of a principal. Open connections have the new role at once.

    Raises BadFrame, UnknownPrincipal, AmbiguousName, StorageUnavailable.
    """
    if new_name is not None:
        _check_name(new_name)
    record = await find_principal(hub, principal, name)
    record = attrs.evolve(record, role=role or record.role, name=new_name or record.name)
    await hub.node.log.access.save(record)
    await refresh_clients(hub, record.id)
    return record


async def remove_principal(hub: Hub, principal: Principal, name: str) -> PrincipalRecord:
    """Delete a principal with its credentials and grants, and close its connections. Its messages stay.

    Raises UnknownPrincipal, AmbiguousName, StorageUnavailable.
    """
    record = await find_principal(hub, principal, name)
    await hub.node.log.access.remove(record)
    for session in hub.node.sessions.values():
        session.grants.pop(record.id, None)
    await refresh_clients(hub, record.id)
    return record


async def adopt_sessions(hub: Hub, principal: Principal, name: str) -> int:
    """Make a principal the owner of the sessions of its tenant that have no owner. Return their number.

    These are the sessions that were made before sign-in was configured; those with broadcasts belong to nobody. Raises
    UnknownPrincipal, AmbiguousName, StorageUnavailable.
    """
    record, count = await find_principal(hub, principal, name), 0
    for key in await list_keys(hub, SessionQuery(prefix=key_prefix(record.tenant), readers=EVERYONE)):
        if not id_of(key).startswith(BROADCAST_PREFIX):
            with suppress(SessionDeleted):
                count += await _adopt(hub, principal, key, record.id)
    return count


async def _adopt(hub: Hub, principal: Principal, key: Key, owner_id: str) -> bool:
    async with change_grants(hub, principal, "manage", key) as session:
        if "owner" in session.grants.values():
            return False
        await hub.node.log.access.save(Grant(key, owner_id, "owner"))
        session.grants[owner_id] = "owner"
        return True


def _check_name(name: str) -> None:
    if not name or name != make_name(name):
        raise BadFrame("the name of a principal is one line of 1 to 100 printable characters, without spaces around it")


async def _find_or_make(
    hub: Hub, name: str, tenant: str, kind: PrincipalKind, role: TenantRole | None
) -> PrincipalRecord:
    if not is_id(tenant):
        raise BadFrame(describe_bad_id("the tenant", tenant))
    _check_name(name)
    records = [record for record in await hub.node.log.access.list_principals(tenant) if record.name == name]
    if len(records) > 1:
        raise AmbiguousName(f"several principals have the name {name}: choose another name")
    if records and role not in (None, records[0].role):
        text = f"{name} has the role {records[0].role}: to change it, use hubbub principal set {name} --role {role}"
        raise BadFrame(text)
    new_record = PrincipalRecord(
        id=hub.node.seams.new_id("p"),
        name=name,
        kind=kind,
        role=role or "member",
        tenant=tenant,
        created=hub.node.seams.now(),
    )
    return records[0] if records else new_record
