"""Principals and their permissions."""

from typing import Literal

import attrs

from hub.errors import Denied
from hub.ids import DEFAULT_TENANT, describe_bad_id, is_id
from hub.messages import Author

# The actions that need a permission: `read` is to read data, `write` to write into sessions, `manage` to delete and
# label sessions, `operate` to operate the hub.
Action = Literal["read", "write", "manage", "operate"]
ALL_ACTIONS: frozenset[Action] = frozenset({"read", "write", "manage", "operate"})


@attrs.frozen(kw_only=True)
class Principal:
    """The person or program behind a command; *may* holds the permitted actions."""

    id: str
    name: str
    tenant: str = attrs.field(default=DEFAULT_TENANT)
    may: frozenset[Action] = frozenset()

    @tenant.validator
    def _check_tenant(self, attribute: object, tenant: str) -> None:
        if not is_id(tenant):  # a session key begins with the tenant, and ids have no slash
            raise ValueError(describe_bad_id("the tenant", tenant))

    @property
    def author(self) -> Author:
        """The principal as other clients see it: its id and name."""
        return Author(self.id, self.name)


# The hub has no authentication, so this principal stands for all clients.
LOCAL = Principal(id="local", name="local", may=ALL_ACTIONS)
# The principal of the command line, which has access to the folders of the hub.
OPERATOR = Principal(id="operator", name="operator", may=ALL_ACTIONS)


def check_permission(principal: Principal, action: Action) -> None:
    """Raise Denied if the principal has no permission for *action*."""
    if action not in principal.may:
        raise Denied(f"{principal.name} may not {action} here: ask the operator of the hub for this permission")
