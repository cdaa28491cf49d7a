"""HTTP route: the audit."""

from typing import Literal

import attrs
import msgspec
from aiohttp import web

from hub.access.records import AuditEntry
from hub.commands import table as commands
from hub.errors import Denied, StorageUnavailable, Unauthenticated, UnknownPrincipal
from hub.ids import Key, id_of
from hub.messages import Id
from hub.web.api.session_shapes import PageLimit, read_page_limit
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, Route, read_query


class AuditQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of entries; and the principal, or the session or other id that they are about."""

    limit: PageLimit | None = None
    principal: Id | None = None
    target: Id | None = None


@attrs.frozen(kw_only=True)
class AuditLine:
    """Who did what, when (ms), and from which IP address. *principal* and *name* are empty before the sign-in.

    *action* is the name of a use case of the hub. *target* is the id of a session, or another id. *reason* is the error
    code of a refusal.
    """

    ts: int
    principal: str
    name: str
    action: str
    target: str
    address: str
    isAllowed: bool
    reason: str


@attrs.frozen
class AuditList:
    """The newest entries, oldest first."""

    data: tuple[AuditLine, ...]
    more: Literal[False] = False


async def get_audit(request: web.Request) -> web.Response:
    """List the newest entries of the audit of the tenant, oldest first. For admins."""
    query, hub = read_query(request, AuditQuery), request.app[HUB_KEY]
    limit = read_page_limit(request, query.limit, hub.limits.list_size)
    entries = await commands.read_audit(hub, principal_of(request), limit, query.principal, query.target)
    return web.json_response({"data": [attrs.asdict(_make_line(entry)) for entry in entries], "more": False})


def _make_line(entry: AuditEntry) -> AuditLine:
    return AuditLine(
        ts=entry.ts,
        principal=entry.principal,
        name=entry.name,
        action=entry.action,
        target=id_of(Key(entry.target)),
        address=entry.address,
        isAllowed=entry.is_allowed,
        reason=entry.reason,
    )


ROUTES = (
    Route(
        method="GET",
        path="/audit",
        handler=get_audit,
        tag="Usage",
        responses={200: AuditList},
        query=AuditQuery,
        raises=(Unauthenticated, Denied, UnknownPrincipal, StorageUnavailable),
    ),
)
