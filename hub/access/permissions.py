"""The table of permissions: what a role in the tenant, and a role in a session, may do."""

from collections.abc import Mapping
from typing import Literal

from hub.access.principal import Principal
from hub.access.records import SessionRole
from hub.ids import Key, id_of, tenant_of

# The actions that need a permission:
# - enter: sign in, and learn what the hub is
# - join: be signed in; list what one may see
# - use: use an agent outside a session
# - create: make a session
# - read: read, subscribe, presence, export, fork into one's own session
# - write: chat, cancel, resume, edit, regenerate, upload, title, typing
# - manage: invites, members, delete
# - administer: reload agents, broadcast, audit, quotas
# - operate: metrics, and all that concerns several tenants
Action = Literal["enter", "join", "use", "create", "read", "write", "manage", "administer", "operate"]

TENANT_ACTIONS: dict[str, frozenset[Action]] = {
    "nobody": frozenset({"enter"}),
    "guest": frozenset({"enter", "join"}),
    "observer": frozenset({"enter", "join"}),
    "member": frozenset({"enter", "join", "use", "create"}),
    "admin": frozenset({"enter", "join", "use", "create", "administer"}),
}
SESSION_ACTIONS: dict[SessionRole, frozenset[Action]] = {
    "viewer": frozenset({"read"}),
    "member": frozenset({"read", "write"}),
    "owner": frozenset({"read", "write", "manage"}),
}
SESSION_ROLES: tuple[SessionRole, ...] = ("viewer", "member", "owner")  # each may do what those before it may do
BROADCAST_PREFIX = "agent:"  # the ids of sessions that hold the broadcasts of an agent


def find_session_role(
    principal: Principal, key: Key, grants: Mapping[str, SessionRole], *, is_team: bool
) -> SessionRole | None:
    """Return the role of a principal in an existing session, or None if the session looks missing to the principal.

    *grants* are the roles by the ids of principals. With *is_team*, each member of the tenant is a member of each
    session. The sessions of broadcasts are visible to every member, and only admins write in them.
    """
    if principal.is_operator:
        return "owner"
    if tenant_of(key) != principal.tenant or not principal.is_signed_in:
        return None
    if principal.role == "admin":
        return "owner"
    if principal.role == "observer":
        return "viewer"
    roles = [grants[principal.id]] if principal.id in grants else []
    if principal.role == "member" and is_team:
        roles.append("member")
    if id_of(key).startswith(BROADCAST_PREFIX):
        return "viewer" if roles or principal.role == "member" else None
    return max(roles, key=SESSION_ROLES.index, default=None)


def may(principal: Principal, action: Action, role: SessionRole | None = None) -> bool:
    """Return whether a principal may do *action*. *role* is its role in the session that the action is about."""
    if principal.is_operator or action in TENANT_ACTIONS[principal.role]:
        return True
    return role is not None and action in SESSION_ACTIONS[role]


def reads_all_sessions(principal: Principal, *, is_team: bool) -> bool:
    """Return whether a principal may read every session of its tenant."""
    return principal.role in ("operator", "admin", "observer") or (is_team and principal.role == "member")


def describe_refusal(
    principal: Principal, action: Action, role: SessionRole | None, *, is_broadcast: bool = False
) -> str:
    """Return the error for a refusal of what the principal can see: the role that it needs, and who can give it.

    *role* is the principal's role in the session, and *is_broadcast* says that the session holds an agent's broadcasts.
    """
    if is_broadcast:
        return (
            f"only admins may do this in the session of an agent's broadcasts (action: {action}), and you have the "
            f"role {principal.role}: ask an admin"
        )
    if action in ("read", "write", "manage") and principal.role != "observer":
        needed_role = next(name for name in SESSION_ROLES if action in SESSION_ACTIONS[name])
        return (
            f"this needs the role {needed_role} in the session (action: {action}), and you are its {role}: "
            "ask an owner of the session, or an admin"
        )
    if action == "operate":
        return "only the operator may do this: use the command line on the hub's machine"
    hub_role = "admin" if action == "administer" else "member"
    return (
        f"this needs the role {hub_role} in the hub (action: {action}), and you have the role {principal.role}: "
        "ask an admin for another role"
    )
