"""The access store of the embedded log: principals, credentials, grants, invites, quotas, usage and audit."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs
import msgspec

from hub.access.records import (
    AuditEntry,
    Credential,
    Grant,
    PrincipalRecord,
    Quota,
    SessionInvite,
    SessionRole,
    UsageRecord,
)
from hub.ids import Key
from hub.storage.access_store import AccessRecord, AccessStore
from hub.storage.sqlite.access_rows import (
    AccessChange,
    AuditAddition,
    CredentialUse,
    PrincipalErasure,
    UsageAddition,
    make_record_json,
)
from hub.storage.sqlite.threads import LogThreads

T = TypeVar("T", bound=attrs.AttrsInstance)

# The day and the tenant are the first columns of the primary key.
USAGE_ROWS = """
    SELECT * FROM usage WHERE day BETWEEN :since AND :until AND (:tenant IS NULL OR tenant = :tenant)
    AND (:principal IS NULL OR principal = :principal) ORDER BY day, agent, principal, tenant"""
# The scan ends at the limit. The number of entries is limited, so the audit has no other index.
AUDIT_ROWS = """
    SELECT * FROM (
        SELECT * FROM audit WHERE (:tenant IS NULL OR tenant = :tenant)
        AND (:principal IS NULL OR principal = :principal) AND (:target IS NULL OR target = :target)
        ORDER BY n DESC LIMIT :limit) ORDER BY n"""
FIND_GRANTS = """
    SELECT (SELECT json_group_object(principal, role) FROM grants WHERE session = sessions.id)
    FROM sessions WHERE id = ?"""


@attrs.define(eq=False)
class SqliteAccess(AccessStore):
    """The access store of an embedded log."""

    threads: LogThreads

    async def save(self, *records: AccessRecord) -> None:
        await self.threads.submit(AccessChange(records))

    async def remove(self, *records: AccessRecord) -> None:
        await self.threads.submit(AccessChange(records, is_removal=True))

    async def erase_principal(self, principal_id: str) -> None:
        await self.threads.submit(PrincipalErasure(principal_id))

    async def find_principal(self, principal_id: str) -> PrincipalRecord | None:
        return await self._find(PrincipalRecord, "principals WHERE id = ?", (principal_id,))

    async def list_principals(self, tenant: str | None = None) -> Sequence[PrincipalRecord]:
        rows = "SELECT * FROM principals WHERE :tenant IS NULL OR tenant = :tenant ORDER BY n"
        return await self._list(PrincipalRecord, rows, {"tenant": tenant})

    async def find_credential(self, credential_id: str) -> Credential | None:
        return await self._find(Credential, "credentials WHERE id = ?", (credential_id,))

    async def list_credentials(self, principal_id: str | None = None) -> Sequence[Credential]:
        condition = "" if principal_id is None else "WHERE principal = :principal"
        return await self._list(
            Credential, f"SELECT * FROM credentials {condition} ORDER BY n", {"principal": principal_id}
        )

    async def note_use(self, times: Mapping[str, int]) -> None:
        await self.threads.submit(CredentialUse(times))

    async def find_grants(self, key: Key) -> Mapping[str, SessionRole] | None:
        return cast(Mapping[str, SessionRole] | None, await self.threads.query_json(FIND_GRANTS, (key,)))

    async def list_grants(self, principal_id: str) -> Sequence[Grant]:
        return await self._list(
            Grant, "SELECT * FROM grants WHERE principal = ? ORDER BY principal, session", (principal_id,)
        )

    async def find_invite(self, invite_id: str) -> SessionInvite | None:
        return await self._find(SessionInvite, "invites WHERE id = ?", (invite_id,))

    async def list_invites(self, key: Key) -> Sequence[SessionInvite]:
        return await self._list(SessionInvite, "SELECT * FROM invites WHERE session = ? ORDER BY n", (key,))

    async def find_quota(self, subject: str) -> Quota | None:
        return await self._find(Quota, "quotas WHERE subject = ?", (subject,))

    async def add_usage(self, records: Sequence[UsageRecord]) -> None:
        await self.threads.submit(UsageAddition(records))

    async def list_usage(
        self, tenant: str | None, since: str, until: str, principal_id: str | None = None
    ) -> Sequence[UsageRecord]:
        values = {"tenant": tenant, "since": since, "until": until, "principal": principal_id}
        return await self._list(UsageRecord, USAGE_ROWS, values)

    async def add_audit(self, entries: Sequence[AuditEntry], max_entries: int) -> None:
        await self.threads.submit(AuditAddition(entries, max_entries))

    async def list_audit(
        self, tenant: str | None, limit: int, principal_id: str | None = None, target: str | None = None
    ) -> Sequence[AuditEntry]:
        values = {"tenant": tenant, "limit": limit, "principal": principal_id, "target": target}
        return await self._list(AuditEntry, AUDIT_ROWS, values)

    async def _find(self, kind: type[T], rows: str, values: Any) -> T | None:
        """Return the record of the one row that *rows*, a table and a condition, selects, or None."""
        fields = await self.threads.query_json(f"SELECT {make_record_json(kind)} FROM {rows}", values)
        # Not strict, because SQLite has 0 and 1 for False and True.
        return None if fields is None else msgspec.convert(fields, kind, strict=False)

    async def _list(self, kind: type[T], rows: str, values: Any) -> list[T]:
        """Return the records of the rows that the query *rows* selects, in its order."""
        statement = f"SELECT json_group_array({make_record_json(kind)}) FROM ({rows})"
        objects = await self.threads.query_json(statement, values)
        return [msgspec.convert(fields, kind, strict=False) for fields in objects]
