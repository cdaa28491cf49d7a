"""HTTP routes: the members and the invite links of a session."""

from typing import Annotated, Any, ClassVar, Literal

import attrs
import msgspec
from aiohttp import web

from hub.access.records import SessionRole
from hub.commands import table as commands
from hub.commands.members import Invite, InviteRole, Member
from hub.errors import BadId, Denied, LastOwner, StorageUnavailable, UnknownInvite, UnknownMember, UnknownSession
from hub.messages import Id
from hub.protocols.reading import check_id
from hub.web import bodies
from hub.web.api.session_shapes import read_session_id
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, Route, json_fields, json_response


class MemberBody(msgspec.Struct):
    """A change of one member: a new role, or null to remove the member."""

    example: ClassVar[str] = '{"id":"p_1","role":"viewer"}'
    id: Id
    role: SessionRole | None


class InviteBody(msgspec.Struct):
    """A new invite link."""

    example: ClassVar[str] = '{"role":"member","days":7}'
    role: InviteRole = "member"
    days: Annotated[float, msgspec.Meta(gt=0, le=365, description="How long the link is valid.")] = 7.0


@attrs.frozen
class MemberList:
    """All members of a session."""

    data: tuple[Member, ...]
    more: Literal[False] = False


@attrs.frozen
class InviteList:
    """All valid invites of a session."""

    data: tuple[Invite, ...]
    more: Literal[False] = False


def _list_response(items: tuple[Any, ...]) -> web.Response:
    return web.json_response({"data": [json_fields(item) for item in items], "more": False})


async def get_members(request: web.Request) -> web.Response:
    """List the members of a session with their roles."""
    session_id = read_session_id(request)
    return _list_response(await commands.list_members(request.app[HUB_KEY], principal_of(request), session_id))


async def patch_members(request: web.Request) -> web.Response:
    """Change the role of a member, or remove the member. It takes effect on open connections at once."""
    session_id, body = read_session_id(request), await bodies.read_body(request, MemberBody)
    members = await commands.change_member(request.app[HUB_KEY], principal_of(request), session_id, body.id, body.role)
    return _list_response(members)


async def post_invite(request: web.Request) -> web.Response:
    """Make a link that gives everyone who opens it a role in the session."""
    session_id, body = read_session_id(request), await bodies.read_body(request, InviteBody)
    invite = await commands.create_invite(request.app[HUB_KEY], principal_of(request), session_id, body.role, body.days)
    return json_response(invite, status=201)


async def get_invites(request: web.Request) -> web.Response:
    """List the valid invites of a session. The links are not listed: they were shown once."""
    session_id = read_session_id(request)
    return _list_response(await commands.list_invites(request.app[HUB_KEY], principal_of(request), session_id))


async def delete_invite(request: web.Request) -> web.Response:
    """Revoke an invite. Those who have used its link stay members."""
    session_id, invite_id = read_session_id(request), check_id("the invite", request.match_info["invite"])
    await commands.revoke_invite(request.app[HUB_KEY], principal_of(request), session_id, invite_id)
    return web.Response(status=204)


MEMBER_RAISES = (BadId, UnknownSession, Denied, StorageUnavailable)
MEMBERS_TAG = "Members"
ROUTES = (
    Route(
        method="GET",
        path="/sessions/{id}/members",
        handler=get_members,
        tag=MEMBERS_TAG,
        responses={200: MemberList},
        raises=MEMBER_RAISES,
    ),
    Route(
        method="PATCH",
        path="/sessions/{id}/members",
        handler=patch_members,
        tag=MEMBERS_TAG,
        responses={200: MemberList},
        body=MemberBody,
        raises=(*MEMBER_RAISES, UnknownMember, LastOwner),
    ),
    Route(
        method="GET",
        path="/sessions/{id}/invites",
        handler=get_invites,
        tag=MEMBERS_TAG,
        responses={200: InviteList},
        raises=MEMBER_RAISES,
    ),
    Route(
        method="POST",
        path="/sessions/{id}/invites",
        handler=post_invite,
        tag=MEMBERS_TAG,
        responses={201: Invite},
        body=InviteBody,
        raises=MEMBER_RAISES,
    ),
    Route(
        method="DELETE",
        path="/sessions/{id}/invites/{invite}",
        handler=delete_invite,
        tag=MEMBERS_TAG,
        responses={204: None},
        raises=(*MEMBER_RAISES, UnknownInvite),
    ),
)
