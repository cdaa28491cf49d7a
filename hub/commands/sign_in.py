"""Use cases: sign in with a credential or a link, sign out, and get a ticket."""

import attrs

from hub.access.permissions import SESSION_ROLES
from hub.access.principal import LOCAL, NOBODY, OPERATOR, Principal, make_principal
from hub.access.records import Credential, Grant, PrincipalRecord, SessionRole, make_name
from hub.access.secrets import Token, is_secret_of, make_token, parse_token
from hub.commands.client import ClientHandle
from hub.commands.directory import ForeignUser
from hub.commands.enforcing import announce_role, recheck_client, refresh_clients
from hub.commands.guard import change_grants, check_again
from hub.commands.hub import Hub
from hub.errors import BadLink, Denied, Unauthenticated, UnknownSession
from hub.ids import tenant_of
from hub.messages import Auth, Ok
from hub.sessions.session import LiveSession

COOKIE_MS = 30 * 24 * 3_600_000  # how long a browser stays signed in


@attrs.frozen(kw_only=True)
class SignIn:
    """The result of the use of a link. *cookie* is the value of the browser's cookie; None if it has a valid one.

    *session_id* is the session of an invite.
    """

    principal: Principal
    cookie: str | None = None
    session_id: str | None = None


async def authenticate(hub: Hub, principal: Principal, token: str) -> Principal:
    """Return the principal of a key, a JWT or a cookie's value. Raises Unauthenticated, StorageUnavailable."""
    return await hub.directory.authenticate(token) if hub.is_sign_in_on else LOCAL


async def auth(hub: Hub, principal: Principal, command: Auth, client: ClientHandle) -> None:
    """Sign a client in, or renew its credential, and answer the command. The principal cannot change.

    Raises Unauthenticated, TooManyConnections, StorageUnavailable.
    """
    await sign_in_client(hub, client, command.token)
    client.answer(Ok(ref=command.ref))


async def sign_in_client(hub: Hub, client: ClientHandle, token: str) -> None:
    """Make the principal of *token* the principal of a client. Raises the errors of auth()."""
    principal = await authenticate(hub, client.principal, token)
    if client.is_closed:  # its old credential was revoked during the await
        raise Unauthenticated()
    old_principal = client.principal
    if old_principal.is_signed_in and principal.id != old_principal.id:
        raise Unauthenticated("this connection belongs to another principal: open a new one to change it")
    if not old_principal.is_signed_in:
        hub.check_connection_count(principal)
        hub.counters.door.sign_ins["socket"] += 1
    client.sign_in(principal)
    if old_principal.is_signed_in and principal != old_principal:
        recheck_client(hub, client)


async def find_foreign_user(hub: Hub, principal: Principal, user: ForeignUser) -> Principal:
    """Return the principal of a user that a trusted proxy names. Raises Unauthenticated, StorageUnavailable."""
    return await hub.directory.find_foreign_user(user)


async def get_me(hub: Hub, principal: Principal) -> Principal:
    """Return the principal of the request."""
    return principal


async def use_link(hub: Hub, principal: Principal, text: str, name: str = "") -> SignIn:
    """Sign a browser in with the token of a link, or give a principal the role of a session's invite.

    *name* is the name of a guest. Raises BadLink for a wrong, expired, used or revoked link, and StorageUnavailable.
    """
    token = parse_token(text)
    if token is not None and token.kind == "hi":
        return await _use_personal_link(hub, token)
    if token is not None and token.kind == "hs":
        return await _use_invite(hub, principal, token, name)
    raise BadLink()


async def _use_personal_link(hub: Hub, token: Token) -> SignIn:
    owner = await hub.directory.find_owner(token.id)
    if owner is None or owner[0].kind != "invite" or not is_secret_of(owner[0].digest, token):
        raise BadLink()
    (link, record), now = owner, hub.node.seams.now()
    # No await between the check and the mark: two requests with one link must not both succeed.
    if link.revoked or 0 < link.expires <= now or token.id in hub.directory.used_links:
        raise BadLink()
    hub.directory.used_links.add(token.id)
    credential, cookie = make_browser_credential(hub, record.id)
    try:
        await hub.node.log.access.save(attrs.evolve(link, revoked=now, used=now), credential)
    finally:
        hub.directory.used_links.discard(token.id)
        hub.directory.drop(record.id)
    hub.counters.door.sign_ins["link"] += 1
    return SignIn(principal=make_principal(record, credential, hub.directory.version), cookie=cookie)


async def _use_invite(hub: Hub, principal: Principal, token: Token, name: str) -> SignIn:
    invite = await hub.node.log.access.find_invite(token.id)
    now = hub.node.seams.now()
    if invite is None or not is_secret_of(invite.digest, token) or invite.revoked or invite.expires <= now:
        raise BadLink()
    if principal.is_signed_in and not principal.is_operator and principal.tenant != tenant_of(invite.key):
        raise BadLink()
    if not principal.is_signed_in and not hub.settings.guests:
        raise Unauthenticated("this invite is for people who have signed in: sign in, then open the link again")
    async with change_grants(hub, OPERATOR, "read", invite.key) as session:
        creator = await _find_creator(hub, invite.creator)
        if not session.exists or (await hub.node.log.access.find_invite(token.id)) != invite:
            raise BadLink()  # the session was deleted, or the invite was revoked
        try:
            check_again(hub, creator, "manage", session)
        except (UnknownSession, Denied):
            raise BadLink() from None  # a removed owner must not come back with a link of his own
        result = await _join(hub, principal, session, invite.role, name)
    return attrs.evolve(result, session_id=session.id)


async def _find_creator(hub: Hub, principal_id: str) -> Principal:
    """Return the principal that made an invite, as it is now, or NOBODY if it was removed."""
    if principal_id in (OPERATOR.id, LOCAL.id):
        return OPERATOR
    record = await hub.node.log.access.find_principal(principal_id)
    if record is None:
        return NOBODY
    return make_principal(record, Credential(id="", principal=record.id, kind="key"), hub.directory.version)


async def _join(hub: Hub, principal: Principal, session: LiveSession, new_role: SessionRole, name: str) -> SignIn:
    """Give a principal a role in a session, or make a guest with it. The caller holds the lock of the grants."""
    role, cookie = session.grants.get(principal.id), None
    new_records: list[PrincipalRecord | Credential] = []
    if not principal.is_signed_in:
        record, credential, cookie = _make_guest(hub, tenant_of(session.key), name)
        principal, new_records = make_principal(record, credential, hub.directory.version), [record, credential]
    if not principal.is_operator and (role is None or SESSION_ROLES.index(role) < SESSION_ROLES.index(new_role)):
        await hub.node.log.access.save(*new_records, Grant(session.key, principal.id, new_role))
        hub.counters.door.sign_ins["guest"] += bool(new_records)
        session.grants[principal.id] = new_role
        announce_role(hub, session.key, principal.id)
    return SignIn(principal=principal, cookie=cookie)


def _make_guest(hub: Hub, tenant: str, name: str) -> tuple[PrincipalRecord, Credential, str]:
    """Return a new guest, the credential of its browser, and the value of the cookie."""
    record = PrincipalRecord(
        id=hub.node.seams.new_id("p"),
        name=make_name(name) or "Guest",
        kind="person",
        role="guest",
        tenant=tenant,
        created=hub.node.seams.now(),
    )
    return record, *make_browser_credential(hub, record.id)


def make_browser_credential(hub: Hub, principal_id: str) -> tuple[Credential, str]:
    """Return the credential of a browser, and the value of its cookie."""
    seams = hub.node.seams
    token, now = make_token("hb", seams.new_secret), seams.now()
    credential = Credential(
        id=token.id,
        principal=principal_id,
        kind="browser",
        digest=token.digest,
        created=now,
        expires=now + COOKIE_MS,
    )
    return credential, token.text


async def sign_out(hub: Hub, principal: Principal) -> None:
    """End the credential of the browser that asks, also on its open connections. Other credentials stay.

    Raises StorageUnavailable.
    """
    owner = await hub.directory.find_owner(principal.credential_id)
    if owner is not None and owner[0].kind == "browser":
        await hub.node.log.access.save(attrs.evolve(owner[0], revoked=hub.node.seams.now()))
        await refresh_clients(hub, principal.id)


async def make_ticket(hub: Hub, principal: Principal, origin: str | None, session_id: str | None = None) -> str:
    """Return a ticket for a WebSocket, or for the events of a session. Only a page of *origin* can use it."""
    return hub.tickets.issue(principal, origin, session_id)


async def redeem_ticket(
    hub: Hub, principal: Principal, text: str, origin: str | None, session_id: str | None
) -> Principal:
    """Return the principal of a ticket as it is now. Raises Unauthenticated, StorageUnavailable."""
    owner = hub.tickets.redeem(text, origin, session_id)
    if owner is None:
        raise Unauthenticated()
    return await hub.directory.renew(owner)
