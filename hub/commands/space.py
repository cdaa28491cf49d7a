"""The quotas for the space of files: an upload counts for the owners of its session, and for the tenant."""

from functools import partial

from hub.access.principal import Principal
from hub.commands.guard import find_grants
from hub.commands.hub import Hub
from hub.ids import Key, tenant_of
from hub.storage.quota import SpaceShare


async def find_space_shares(hub: Hub, principal: Principal, key: Key) -> list[SpaceShare]:
    """Return the shares of space into which an upload to a session must fit. Raises StorageUnavailable.

    If the session does not exist, the principal becomes its owner.
    """
    grants, tenant = await find_grants(hub, principal, key), tenant_of(key)
    if grants is None:
        owners = [] if principal.is_operator else [principal.id]
    else:
        owners = [principal_id for principal_id, role in grants.items() if role == "owner"]
    shares = []
    for owner in owners:
        quota = (await hub.quotas.load(owner, tenant)).quota
        if quota.stored_bytes is not None:
            name = "your sessions" if owner == principal.id else "the sessions of this session's owner"
            keys = await list_owned_keys(hub, owner) | {key}
            shares.append(SpaceShare(name, quota.stored_bytes, partial(_is_owned, hub, owner, keys)))
    quota = (await hub.quotas.load(tenant, tenant)).quota
    if quota.stored_bytes is not None:
        shares.append(
            SpaceShare(f"tenant {tenant}", quota.stored_bytes, lambda stored_key: tenant_of(stored_key) == tenant)
        )
    return shares


def _is_owned(hub: Hub, principal_id: str, keys: frozenset[Key], key: Key) -> bool:
    """Return whether a principal owns a session: one of *keys*, or one that other forks of the principal make now."""
    session = hub.node.sessions.get(key)
    return key in keys or (session is not None and session.grants.get(principal_id) == "owner")


async def list_owned_keys(hub: Hub, principal_id: str) -> frozenset[Key]:
    """Return the sessions in which a principal has the grant `owner`. Raises StorageUnavailable."""
    grants = await hub.node.log.access.list_grants(principal_id)
    return frozenset(grant.key for grant in grants if grant.role == "owner")
