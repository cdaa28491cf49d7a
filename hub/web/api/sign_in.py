"""HTTP routes: sign in with a link, sign out, show the principal, and make tickets."""

from typing import ClassVar

import attrs
import msgspec
from aiohttp import web

from hub.access.principal import Principal
from hub.commands import table as commands
from hub.errors import BadLink, Refused, StorageUnavailable, Unauthenticated
from hub.messages import Id
from hub.web import bodies
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, Route, json_response
from hub.web.sign_in import check_origin, check_scheme, clear_cookie, find_foreign_origin, set_cookie


class LinkBody(msgspec.Struct):
    """The token of a link: the part of its address after `#`. A guest may choose a *name*."""

    example: ClassVar[str] = '{"token":"hi_..."}'
    token: str
    name: str = ""


class TicketBody(msgspec.Struct):
    """The session of whose events the ticket opens a stream. Without it, the ticket opens one WebSocket."""

    example: ClassVar[str] = '{"sessionId":"s1"}'
    sessionId: Id | None = None


@attrs.frozen(kw_only=True)
class Me:
    """The principal of the request. *isSignInOn* is false if the hub has one principal for everyone."""

    id: str
    name: str
    role: str
    tenant: str
    kind: str
    isSignInOn: bool
    sessionId: str | None = None


@attrs.frozen
class TicketAnswer:
    """The ticket: send it as `?ticket=` within 30 seconds."""

    ticket: str


def _describe(request: web.Request, principal: Principal, session_id: str | None = None) -> Me:
    return Me(
        id=principal.id,
        name=principal.name,
        role=principal.role,
        tenant=principal.tenant,
        kind=principal.kind,
        isSignInOn=request.app[HUB_KEY].is_sign_in_on,
        sessionId=session_id,
    )


async def post_sign_in(request: web.Request) -> web.Response:
    """Use a link: sign the browser in, or join the session of an invite.

    The answer sets a cookie, unless the principal has signed in already.
    """
    check_origin(request)
    body = await bodies.read_body(request, LinkBody)
    if not principal_of(request).is_signed_in:
        check_scheme(request)  # before a link is used up
    result = await commands.use_link(request.app[HUB_KEY], principal_of(request), body.token, body.name)
    response = json_response(_describe(request, result.principal, result.session_id))
    if result.cookie is not None:
        set_cookie(request, response, result.cookie)
    return response


async def post_sign_out(request: web.Request) -> web.Response:
    """Sign the browser out: its cookie is no longer valid, and its connections are closed."""
    await commands.sign_out(request.app[HUB_KEY], principal_of(request))
    response = web.Response(status=204)
    clear_cookie(request, response)
    return response


async def show_me(request: web.Request) -> web.Response:
    """Show the principal of the request."""
    return json_response(_describe(request, await commands.get_me(request.app[HUB_KEY], principal_of(request))))


async def post_ticket(request: web.Request) -> web.Response:
    """Make a ticket for a client that cannot send a header, such as a browser's WebSocket or EventSource.

    A ticket for a WebSocket works once. A ticket for the events of a session works for an hour after its first use.
    """
    body = await bodies.read_body(request, TicketBody)
    principal, origin = principal_of(request), find_foreign_origin(request)
    ticket = await commands.make_ticket(request.app[HUB_KEY], principal, origin, body.sessionId)
    return json_response(TicketAnswer(ticket), status=201)


SIGN_IN_TAG = "Sign-in"
ROUTES = (
    Route(
        method="POST",
        path="/sign-in",
        handler=post_sign_in,
        tag=SIGN_IN_TAG,
        responses={200: Me},
        body=LinkBody,
        raises=(BadLink, Refused, Unauthenticated, StorageUnavailable),
    ),
    Route(
        method="POST",
        path="/sign-out",
        handler=post_sign_out,
        tag=SIGN_IN_TAG,
        responses={204: None},
        raises=(Unauthenticated, StorageUnavailable),
    ),
    Route(method="GET", path="/me", handler=show_me, tag=SIGN_IN_TAG, responses={200: Me}, raises=(Unauthenticated,)),
    Route(
        method="POST",
        path="/tickets",
        handler=post_ticket,
        tag=SIGN_IN_TAG,
        responses={201: TicketAnswer},
        body=TicketBody,
        raises=(Unauthenticated,),
    ),
)
