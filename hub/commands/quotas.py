"""Count what principals and tenants use, and refuse what their quotas do not allow.

An account is loaded from the log before the first run of its principal or tenant is counted. From then on, every run
is counted here, so the account is exact without another read. It is the sum of all rows of the day in the log.
"""

import asyncio
from collections.abc import Sequence

import attrs
import structlog

from hub.access.quotas import ReachedQuota, Spending, find_reached_quota
from hub.access.records import Quota, UsageRecord
from hub.days import next_midnight, to_day
from hub.errors import PrincipalQuotaExceeded, StorageUnavailable
from hub.seams import Seams
from hub.storage.access_store import AccessStore

log = structlog.get_logger()

WAIT_MS = 1000  # how long a client should wait for the end of one of its runs


@attrs.define(eq=False, kw_only=True)
class Account:
    """What a principal or a tenant uses: unfinished runs, and the messages and tokens of ended runs on *day*."""

    subject: str
    quota: Quota
    day: str
    messages: int = 0
    tokens: int = 0
    open_runs: int = 0

    def count(self, day: str) -> Spending:
        """Return what counts on *day*, which is today."""
        self.begin(day)
        return Spending(runs=self.open_runs, messages=self.messages + self.open_runs, tokens=self.tokens)

    def add(self, usage: Sequence[UsageRecord]) -> None:
        """Count the usage of an ended run."""
        for record in usage:
            self.begin(record.day)
            if record.day == self.day:
                self.messages += record.messages
                self.tokens += record.input_tokens + record.output_tokens

    def begin(self, day: str) -> None:
        """Start a new day, unless it has begun."""
        if day > self.day:
            self.day, self.messages, self.tokens = day, 0, 0


@attrs.define(eq=False)
class Place:
    """A RunPlace: it counts one unfinished run in two accounts, of the principal and of the tenant."""

    _accounts: tuple[Account, ...]
    is_used: bool = False
    is_closed: bool = False

    def __attrs_post_init__(self) -> None:
        for account in self._accounts:
            account.open_runs += 1

    def close(self, usage: Sequence[UsageRecord] = ()) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        for account in self._accounts:
            account.open_runs -= 1
            account.add(usage)


@attrs.define(eq=False, kw_only=True)
class Quotas:
    """The accounts of this process, by principal and by tenant. It is the RunQuotas of the sessions."""

    store: AccessStore
    seams: Seams
    _accounts: dict[str, Account] = attrs.Factory(dict)
    _quota_version: int = 0  # changes with each quota: what was read before the change is not used
    _day: str = ""
    _saves: set[asyncio.Task[None]] = attrs.Factory(set)

    async def reserve(self, tenant: str, principal_id: str) -> Place:
        """Return a place for a new run. Raises PrincipalQuotaExceeded, StorageUnavailable."""
        accounts = await self._load_accounts(tenant, principal_id)
        # No await from the checks on: two chats at the same moment must not take the same place.
        now = self.seams.now()
        for account in accounts:
            reached_quota = find_reached_quota(account.quota, account.count(to_day(now)))
            if reached_quota is not None:
                raise _make_refusal(account, reached_quota, tenant, now)
        return Place(accounts)

    async def occupy(self, tenant: str, principal_id: str) -> Place:
        """Return a place for a run of an earlier process, whatever the quotas are. Raises StorageUnavailable."""
        return Place(await self._load_accounts(tenant, principal_id))

    async def load(self, subject: str, tenant: str) -> Account:
        """Return the account of a principal of a tenant, or of the tenant itself. Raises StorageUnavailable."""
        day = to_day(self.seams.now())
        self._forget_old_accounts(day)
        while (account := self._accounts.get(subject)) is None:
            version = self._quota_version
            principal_id = None if subject == tenant else subject
            quota = await self.store.find_quota(subject)
            usage = await self.store.list_usage(tenant, day, day, principal_id)
            # While nothing is loaded, no run of the subject is open, so the log has all its usage.
            if version == self._quota_version and subject not in self._accounts:
                account = Account(subject=subject, quota=quota or Quota(subject=subject), day=day)
                account.add(usage)
                self._accounts[subject] = account
        account.begin(day)
        return account

    def set_quota(self, quota: Quota) -> None:
        """Apply a quota. Call this in the step after its commit."""
        self._quota_version += 1
        if (account := self._accounts.get(quota.subject)) is not None:
            account.quota = quota

    def save(self, place: Place, usage: Sequence[UsageRecord]) -> None:
        """Save the usage of an answer outside a session, then close its place: in a task, so that no client waits.

        Without usage, the answer has not begun.
        """
        if not usage:
            place.close()
            return
        task = asyncio.create_task(self._save(place, usage))
        self._saves.add(task)
        task.add_done_callback(self._saves.discard)

    async def wait_for_saves(self) -> None:
        """Wait until all usage is saved."""
        await asyncio.gather(*self._saves)

    async def _save(self, place: Place, usage: Sequence[UsageRecord]) -> None:
        try:
            await self.store.add_usage(usage)
        except StorageUnavailable as error:
            log.warning("the usage of an answer was not saved", reason=error.message)
        place.close(usage)

    async def _load_accounts(self, tenant: str, principal_id: str) -> tuple[Account, ...]:
        return await self.load(principal_id, tenant), await self.load(tenant, tenant)

    def _forget_old_accounts(self, day: str) -> None:
        """On a new day, forget the accounts that were not used on the last day, and have no unfinished run."""
        if day == self._day:
            return
        self._accounts = {
            subject: account
            for subject, account in self._accounts.items()
            if account.open_runs or account.day >= self._day
        }
        self._day = day


def _make_refusal(account: Account, reached_quota: ReachedQuota, tenant: str, now: int) -> PrincipalQuotaExceeded:
    owner = f"tenant {tenant} has" if account.subject == tenant else "you have"
    limit, used = reached_quota.limit, reached_quota.used
    if not reached_quota.is_daily:
        text = f"{owner} {used} running and queued answers, and may have {limit}: wait until one ends, or cancel it"
        return PrincipalQuotaExceeded(text, limit=limit, used=used, retryAfterMs=WAIT_MS)
    text = f"{owner} used {used} of the {limit} {reached_quota.name} of today: wait until midnight UTC"
    renewal = next_midnight(now)
    return PrincipalQuotaExceeded(f"{text}, or ask an admin for more", limit=limit, used=used, renewsAt=renewal)
