"""HTTP routes: the usage of principals, and their quotas."""

from typing import ClassVar, Literal

import attrs
import msgspec
from aiohttp import web

from hub.access.records import UsageRecord
from hub.commands import table as commands
from hub.commands.usage import QuotaState
from hub.days import Day
from hub.errors import BadId, Denied, StorageUnavailable, Unauthenticated, UnknownPrincipal
from hub.limits import CountOrZero
from hub.messages import Id
from hub.protocols.reading import check_id
from hub.web import bodies
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, Route, json_fields, read_query


class UsageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The days, from *since* to *until* (UTC), by default the last 30; and the principal, for admins."""

    since: Day | None = None
    until: Day | None = None
    principal: Id | None = None


@attrs.frozen(kw_only=True)
class UsageRow:
    """What a principal used of an agent on a UTC day.

    *messages* are those that the agent answered. The tokens include those of answers that other agents asked for with
    `run.call`. *estimated* is the part of the tokens that the hub has estimated, because the agent reported none.
    """

    day: str
    principal: str
    agent: str
    messages: int
    inputTokens: int
    outputTokens: int
    estimated: int


@attrs.frozen
class UsageList:
    """The usage, sorted by day, agent and principal."""

    data: tuple[UsageRow, ...]
    more: Literal[False] = False


class QuotaBody(msgspec.Struct):
    """The limits of a quota. A limit that is null or left out is removed."""

    example: ClassVar[str] = '{"messages":100,"tokens":1000000}'
    runs: CountOrZero | None = None
    messages: CountOrZero | None = None
    tokens: CountOrZero | None = None
    storedBytes: CountOrZero | None = None


@attrs.frozen(kw_only=True)
class QuotaUse:
    """What counts for a quota now: unfinished runs, messages and tokens of this UTC day, and bytes of files."""

    runs: int
    messages: int
    tokens: int
    storedBytes: int


@attrs.frozen(kw_only=True)
class QuotaAnswer:
    """The limits of a principal or a tenant; null is no limit. *used* is what counts for them now."""

    subject: str
    runs: int | None
    messages: int | None
    tokens: int | None
    storedBytes: int | None
    used: QuotaUse


async def get_usage(request: web.Request) -> web.Response:
    """List the tokens of each day by agent and principal. An admin sees its tenant, everyone else only itself."""
    query = read_query(request, UsageQuery)
    records = await commands.read_usage(
        request.app[HUB_KEY], principal_of(request), query.since, query.until, query.principal
    )
    return web.json_response({"data": [json_fields(_make_row(record)) for record in records], "more": False})


def _make_row(record: UsageRecord) -> UsageRow:
    return UsageRow(
        day=record.day,
        principal=record.principal,
        agent=record.agent,
        messages=record.messages,
        inputTokens=record.input_tokens,
        outputTokens=record.output_tokens,
        estimated=record.estimated,
    )


async def get_quota(request: web.Request) -> web.Response:
    """Show the quota of a principal (by its id) or of the tenant (by its name), and what counts for it now."""
    subject = check_id("the subject", request.match_info["subject"])
    return _answer(await commands.read_quota(request.app[HUB_KEY], principal_of(request), subject))


async def put_quota(request: web.Request) -> web.Response:
    """Set the quota of a principal. The operator sets the quota of the tenant, with the command line."""
    subject = check_id("the subject", request.match_info["subject"])
    body = await bodies.read_body(request, QuotaBody)
    changes = {
        "runs": body.runs,
        "messages": body.messages,
        "tokens": body.tokens,
        "stored_bytes": body.storedBytes,
    }
    return _answer(await commands.set_quota(request.app[HUB_KEY], principal_of(request), subject, changes))


def _answer(state: QuotaState) -> web.Response:
    quota, spending = state.quota, state.spending
    used = QuotaUse(
        runs=spending.runs, messages=spending.messages, tokens=spending.tokens, storedBytes=state.stored_bytes
    )
    answer = QuotaAnswer(
        subject=quota.subject,
        runs=quota.runs,
        messages=quota.messages,
        tokens=quota.tokens,
        storedBytes=quota.stored_bytes,
        used=used,
    )
    return web.json_response(attrs.asdict(answer))


USAGE_TAG = "Usage"
QUOTA_RAISES = (BadId, Unauthenticated, Denied, UnknownPrincipal, StorageUnavailable)
ROUTES = (
    Route(
        method="GET",
        path="/usage",
        handler=get_usage,
        tag=USAGE_TAG,
        responses={200: UsageList},
        query=UsageQuery,
        raises=(Unauthenticated, Denied, UnknownPrincipal, StorageUnavailable),
    ),
    Route(
        method="GET",
        path="/quotas/{subject}",
        handler=get_quota,
        tag=USAGE_TAG,
        responses={200: QuotaAnswer},
        raises=QUOTA_RAISES,
    ),
    Route(
        method="PUT",
        path="/quotas/{subject}",
        handler=put_quota,
        tag=USAGE_TAG,
        responses={200: QuotaAnswer},
        body=QuotaBody,
        raises=QUOTA_RAISES,
    ),
)
