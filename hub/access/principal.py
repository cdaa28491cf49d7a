"""Who is asking, and what they may do."""

from typing import Literal

import attrs

from hub.errors import Denied
from hub.ids import DEFAULT_TENANT, describe_bad_id, is_id
from hub.messages import Author

# What a use case does with what it concerns: reads it, writes into it, disposes of it, or runs the hub.
Action = Literal["read", "write", "manage", "operate"]
ALL_ACTIONS: frozenset[Action] = frozenset({"read", "write", "manage", "operate"})


@attrs.frozen(kw_only=True)
class Principal:
    """A person or a program that asks; *may* has the actions that it is allowed."""

    id: str
    name: str
    tenant: str = attrs.field(default=DEFAULT_TENANT)
    may: frozenset[Action] = frozenset()

    @tenant.validator
    def _check_tenant(self, attribute: object, tenant: str) -> None:
        if not is_id(tenant):  # the keys of its sessions begin with it
            raise ValueError(describe_bad_id("the tenant", tenant))

    @property
    def author(self) -> Author:
        """What others see of it."""
        return Author(self.id, self.name)


# While the hub asks nobody who they are, everyone who reaches it is the same principal.
LOCAL = Principal(id="local", name="local", may=ALL_ACTIONS)
# Whoever has the command line and the hub's folders.
OPERATOR = Principal(id="operator", name="operator", may=ALL_ACTIONS)


def check_permission(principal: Principal, action: Action) -> None:
    """Raise Denied for an action that the principal is not allowed."""
    if action not in principal.may:
        raise Denied(f"{principal.name} may not {action} here: ask whoever runs the hub for it")
