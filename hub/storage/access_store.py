"""The contract of the access store: principals, credentials, grants, invites, quotas, usage and audit.

It is one of the five stores of a log: see hub.storage.log, whose rules hold here too.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

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

AccessRecord = PrincipalRecord | Credential | Grant | SessionInvite | Quota


class AccessStore(ABC):
    """Principals, credentials, grants, invites, quotas, usage and audit.

    Records are found by their ids: a grant by its session and principal, a quota by its subject. Deleting a session
    deletes its grants and invites.
    """

    @abstractmethod
    async def save(self, *records: AccessRecord) -> None:
        """Insert or replace records in one commit. A grant or an invite of a session that does not exist is skipped."""

    @abstractmethod
    async def remove(self, *records: AccessRecord) -> None:
        """Delete records by their ids in one commit. With a principal, delete its credentials, grants and quota too."""

    @abstractmethod
    async def erase_principal(self, principal_id: str) -> None:
        """Delete a principal with its credentials, grants and quota, and its name in the audit, in one commit.

        Usage and audit keep the id.
        """

    @abstractmethod
    async def find_principal(self, principal_id: str) -> PrincipalRecord | None:
        """Return a principal, or None."""

    @abstractmethod
    async def list_principals(self, tenant: str | None = None) -> Sequence[PrincipalRecord]:
        """Return the principals of a tenant, or of all tenants, in the order of their creation."""

    @abstractmethod
    async def find_credential(self, credential_id: str) -> Credential | None:
        """Return a credential, also an expired or revoked one, or None."""

    @abstractmethod
    async def list_credentials(self, principal_id: str | None = None) -> Sequence[Credential]:
        """Return the credentials of a principal, or all, in the order of their creation."""

    @abstractmethod
    async def note_use(self, times: Mapping[str, int]) -> None:
        """Set the time of the last use (ms) of credentials, by id."""

    @abstractmethod
    async def find_grants(self, key: Key) -> Mapping[str, SessionRole] | None:
        """Return the roles in a session by principal, or None if the session does not exist."""

    @abstractmethod
    async def list_grants(self, principal_id: str) -> Sequence[Grant]:
        """Return the grants of a principal."""

    @abstractmethod
    async def find_invite(self, invite_id: str) -> SessionInvite | None:
        """Return an invite, also an expired or revoked one, or None."""

    @abstractmethod
    async def list_invites(self, key: Key) -> Sequence[SessionInvite]:
        """Return the invites of a session, in the order of their creation."""

    @abstractmethod
    async def find_quota(self, subject: str) -> Quota | None:
        """Return the quota of a principal or a tenant, or None."""

    @abstractmethod
    async def add_usage(self, records: Sequence[UsageRecord]) -> None:
        """Add amounts to the rows with the same day, tenant, principal and agent, in one commit."""

    @abstractmethod
    async def list_usage(
        self, tenant: str | None, since: str, until: str, principal_id: str | None = None
    ) -> Sequence[UsageRecord]:
        """Return the usage on the days *since* to *until*, of a tenant or of all, and of one principal or of all.

        The rows are sorted by day, agent and principal.
        """

    @abstractmethod
    async def add_audit(self, entries: Sequence[AuditEntry], max_entries: int) -> None:
        """Add entries in one commit, then delete the oldest entries until *max_entries* are left."""

    @abstractmethod
    async def list_audit(
        self, tenant: str | None, limit: int, principal_id: str | None = None, target: str | None = None
    ) -> Sequence[AuditEntry]:
        """Return the newest *limit* entries, oldest first, of a tenant or of all.

        With *principal_id* or *target*, return only the entries of that principal or with that target.
        """
