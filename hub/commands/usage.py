"""Use cases: read the usage of principals and the audit; read and set quotas."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from hub.access.permissions import describe_refusal
from hub.access.principal import Principal
from hub.access.quotas import Spending
from hub.access.records import AuditEntry, Quota, UsageRecord
from hub.commands.hub import Hub
from hub.commands.principals import ID_PREFIX, find_principal
from hub.commands.space import list_owned_keys
from hub.days import DAY_MS, to_day
from hub.errors import Denied, UnknownPrincipal
from hub.ids import DEFAULT_TENANT, is_id, tenant_of

USAGE_DAYS = 30  # the days that read_usage() returns by default


@attrs.frozen(kw_only=True)
class QuotaState:
    """A quota with what counts for it now. *stored_bytes* are of all files of the subject."""

    quota: Quota
    spending: Spending
    stored_bytes: int


async def read_usage(
    hub: Hub, principal: Principal, since: str | None = None, until: str | None = None, subject_id: str | None = None
) -> Sequence[UsageRecord]:
    """Return the usage on the days *since* to *until*, sorted by day, agent and principal.

    By default, these are the last 30 days. An admin gets the usage of its tenant, or of the principal *subject_id*;
    other principals get their own. Raises Denied, StorageUnavailable.
    """
    now = hub.node.seams.now()
    since, until = since or to_day(now - (USAGE_DAYS - 1) * DAY_MS), until or to_day(now)
    if not principal.is_operator and principal.role != "admin":
        if subject_id not in (None, principal.id):
            raise Denied(describe_refusal(principal, "administer", None))
        subject_id = principal.id
    subject_id = await _find_id(hub, principal, subject_id)
    tenant = None if principal.is_operator else principal.tenant
    return await hub.node.log.access.list_usage(tenant, since, until, subject_id)


async def read_quota(hub: Hub, principal: Principal, subject: str) -> QuotaState:
    """Return the quota of a principal or a tenant, and what counts for it now.

    For an admin, *subject* is the id of a principal of the tenant, or the tenant. For the operator, it may also be a
    name. Raises UnknownPrincipal, AmbiguousName, StorageUnavailable.
    """
    subject_id, tenant = await _find_subject(hub, principal, subject)
    return await _read_state(hub, subject_id, tenant)


async def set_quota(hub: Hub, principal: Principal, subject: str, changes: Mapping[str, int | None]) -> QuotaState:
    """Change the limits of a quota by their names in Quota; None removes a limit. They apply to the next message.

    Only the operator can change the quota of a tenant. Raises Denied, and the errors of read_quota().
    """
    subject_id, tenant = await _find_subject(hub, principal, subject)
    if subject_id == tenant and not principal.is_operator:
        raise Denied("the operator sets the quota of a tenant: use `hubbub quota` on the hub's machine")
    account = await hub.quotas.load(subject_id, tenant)
    quota = attrs.evolve(account.quota, **dict[str, Any](changes))
    await hub.node.log.access.save(quota)
    hub.quotas.set_quota(quota)
    return await _read_state(hub, subject_id, tenant)


async def read_audit(
    hub: Hub, principal: Principal, limit: int = 100, subject_id: str | None = None, target: str | None = None
) -> Sequence[AuditEntry]:
    """Return the newest *limit* entries of the audit, oldest first; for an admin, those of its tenant.

    With *subject_id*, return only the entries of that principal; with *target*, only those about that session or other
    id. Raises StorageUnavailable.
    """
    await hub.audit.save()
    subject_id = await _find_id(hub, principal, subject_id)
    tenant = None if principal.is_operator else principal.tenant
    if target is not None and is_id(target):
        entries = await hub.node.log.access.list_audit(tenant, limit, subject_id, hub.make_key(principal, target))
        if entries:
            return entries
    return await hub.node.log.access.list_audit(tenant, limit, subject_id, target)


async def _find_id(hub: Hub, principal: Principal, subject: str | None) -> str | None:
    """Return the id of a principal, which the operator may also name by its name. An erased one has only its id."""
    if subject is None or not principal.is_operator or subject.startswith(ID_PREFIX):
        return subject
    return (await find_principal(hub, principal, subject)).id


async def _read_state(hub: Hub, subject: str, tenant: str) -> QuotaState:
    await hub.node.open_files()
    account, keys = await hub.quotas.load(subject, tenant), await list_owned_keys(hub, subject)
    stored_bytes = hub.node.files.quota.sum_bytes(
        keys.__contains__ if subject != tenant else lambda key: tenant_of(key) == tenant
    )
    spending = account.count(to_day(hub.node.seams.now()))
    return QuotaState(quota=account.quota, spending=spending, stored_bytes=stored_bytes)


async def _find_subject(hub: Hub, principal: Principal, subject: str) -> tuple[str, str]:
    """Return the id of a principal and its tenant, or twice the name of a tenant."""
    record = await hub.node.log.access.find_principal(subject)
    if record is not None and (principal.is_operator or record.tenant == principal.tenant):
        return record.id, record.tenant
    if not principal.is_operator:
        if subject != principal.tenant:
            raise UnknownPrincipal(f"there is no principal {subject}: use the id of a principal, or {principal.tenant}")
        return subject, subject
    tenants = {record.tenant for record in await hub.node.log.access.list_principals()} | {DEFAULT_TENANT}
    if subject in tenants:
        return subject, subject
    record = await find_principal(hub, principal, subject)
    return record.id, record.tenant
