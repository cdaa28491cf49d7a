"""Use cases for the members and the invite links of a session."""

from typing import Literal

import attrs

from hub.access.principal import Principal
from hub.access.records import Grant, SessionInvite, SessionRole
from hub.access.secrets import make_token
from hub.commands.enforcing import announce_role, recheck_session
from hub.commands.guard import change_grants, check_again, use_session
from hub.commands.hub import Hub
from hub.days import DAY_MS
from hub.errors import LastOwner, UnknownInvite, UnknownMember
from hub.ids import id_of

InviteRole = Literal["member", "viewer"]


@attrs.frozen
class Member:
    """A principal with a role in a session."""

    id: str
    name: str
    role: SessionRole


@attrs.frozen(kw_only=True)
class Invite:
    """An invite link of a session. Times are in ms. *link* is only in the answer that makes the invite."""

    inviteId: str
    sessionId: str
    role: SessionRole
    created: int
    expires: int
    link: str | None = None


async def list_members(hub: Hub, principal: Principal, session_id: str) -> tuple[Member, ...]:
    """Return those who have a grant in a session, owners first. Raises UnknownSession, StorageUnavailable."""
    async with use_session(hub, principal, "read", hub.make_key(principal, session_id)) as session:
        grants, members = dict(session.grants), []
        for principal_id, role in grants.items():
            record = await hub.node.log.access.find_principal(principal_id)
            members.append(Member(principal_id, record.name if record is not None else "", role))
    order = ("owner", "member", "viewer")
    return tuple(sorted(members, key=lambda member: (order.index(member.role), member.name, member.id)))


async def change_member(
    hub: Hub, principal: Principal, session_id: str, member_id: str, role: SessionRole | None
) -> tuple[Member, ...]:
    """Give a principal of the tenant a role in a session, or take it with None. Return the members.

    A lowered role applies to open connections at once. Raises UnknownMember, LastOwner, UnknownSession,
    StorageUnavailable.
    """
    key, store = hub.make_key(principal, session_id), hub.node.log.access
    record = await store.find_principal(member_id)
    if record is None or (record.tenant != principal.tenant and not principal.is_operator):
        raise UnknownMember(f"there is no principal {member_id}: use the id of a member, or send an invite")
    async with change_grants(hub, principal, "manage", key) as session:
        owners = [name for name, owner_role in session.grants.items() if owner_role == "owner"]
        if owners == [member_id] and role != "owner":
            raise LastOwner("the last owner of a session keeps the role: make another member owner first")
        if role is not None:
            await store.save(Grant(key, member_id, role))
            session.grants[member_id] = role
        else:
            await store.remove(Grant(key, member_id, "viewer"))
            session.grants.pop(member_id, None)
        recheck_session(hub, key)
        announce_role(hub, key, member_id)
    return await list_members(hub, principal, session_id) if member_id != principal.id or role is not None else ()


async def create_invite(hub: Hub, principal: Principal, session_id: str, role: InviteRole, days: float = 7.0) -> Invite:
    """Make a link that gives everyone who opens it a role in a session. The session is made if it does not exist.

    Raises UnknownSession, SessionDeleted, StorageUnavailable.
    """
    key, seams = hub.make_key(principal, session_id), hub.node.seams
    token, now = make_token("hs", seams.new_secret), seams.now()
    record = SessionInvite(
        id=token.id,
        key=key,
        role=role,
        digest=token.digest,
        creator=principal.id,
        created=now,
        expires=now + int(days * DAY_MS),
    )
    async with change_grants(hub, principal, "manage", key, may_create=True) as session:
        await hub.node.loader.create(session)
        check_again(hub, principal, "manage", session)
        await hub.node.log.access.save(record)
    return attrs.evolve(_describe(record), link=hub.make_link(token.text))


async def list_invites(hub: Hub, principal: Principal, session_id: str) -> tuple[Invite, ...]:
    """Return the valid invites of a session. Raises UnknownSession, StorageUnavailable."""
    now, records = hub.node.seams.now(), await hub.node.log.access.list_invites(hub.make_key(principal, session_id))
    return tuple(_describe(record) for record in records if not record.revoked and record.expires > now)


async def revoke_invite(hub: Hub, principal: Principal, session_id: str, invite_id: str) -> None:
    """Make an invite link useless. Those who have used it stay members.

    Raises UnknownInvite, UnknownSession, StorageUnavailable.
    """
    key = hub.make_key(principal, session_id)
    async with change_grants(hub, principal, "manage", key):
        record = await hub.node.log.access.find_invite(invite_id)
        if record is None or record.key != key or record.revoked:
            raise UnknownInvite(f"there is no invite {invite_id} in this session")
        await hub.node.log.access.save(attrs.evolve(record, revoked=hub.node.seams.now()))


def _describe(record: SessionInvite) -> Invite:
    return Invite(
        inviteId=record.id,
        sessionId=id_of(record.key),
        role=record.role,
        created=record.created,
        expires=record.expires,
    )
