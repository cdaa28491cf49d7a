"""Who is asking: the principal behind each command."""

from typing import Literal

import attrs

from hub.access.records import Credential, PrincipalKind, PrincipalRecord, TenantRole
from hub.ids import DEFAULT_TENANT, describe_bad_id, is_id
from hub.messages import Author


@attrs.frozen(kw_only=True)
class Principal:
    """The person or program behind a command, as its credential describes it.

    *role* is the role in the tenant, or `operator` (may do everything), or `nobody` (has not signed in). If *agents* is
    not None, the principal may use only these agents. *expires* (ms) is the end of the credential, or 0. *address* is
    the IP address from which the principal asks, for the audit. *version* is that of the Directory when it made this
    object.
    """

    id: str
    name: str
    role: TenantRole | Literal["operator", "nobody"]
    tenant: str = attrs.field(default=DEFAULT_TENANT)
    kind: PrincipalKind = "person"
    agents: tuple[str, ...] | None = None
    credential_id: str = ""
    expires: int = 0
    address: str = attrs.field(default="", eq=False)
    version: int = attrs.field(default=0, eq=False)

    @tenant.validator
    def _check_tenant(self, attribute: object, tenant: str) -> None:
        if not is_id(tenant):  # a session key begins with the tenant, and ids have no slash
            raise ValueError(describe_bad_id("the tenant", tenant))

    @property
    def author(self) -> Author:
        """The principal as other clients see it: its id and name."""
        return Author(self.id, self.name)

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"

    @property
    def is_signed_in(self) -> bool:
        return self.role != "nobody"

    def can_use(self, agent_id: str) -> bool:
        """Return whether the credential may use an agent. To everyone else, the agent looks missing."""
        return self.agents is None or agent_id in self.agents


# While sign-in is off, this principal stands for all clients.
LOCAL = Principal(id="local", name="local", role="operator")
# The principal of the command line and of control.sock: it has access to the data folder.
OPERATOR = Principal(id="operator", name="operator", kind="program", role="operator", address="control")
# The principal of a request without a valid credential, while sign-in is on.
NOBODY = Principal(id="nobody", name="nobody", role="nobody")


def make_principal(record: PrincipalRecord, credential: Credential, version: int) -> Principal:
    """Return the principal that signs in with *credential*."""
    return Principal(
        id=record.id,
        name=record.name,
        role=record.role,
        tenant=record.tenant,
        kind=record.kind,
        agents=credential.agents,
        credential_id=credential.id,
        expires=credential.expires,
        version=version,
    )
