"""Decide whether a quota has been reached."""

from typing import Literal

import attrs

from hub.access.records import Quota

QuotaName = Literal["messages", "tokens", "runs"]


@attrs.frozen(kw_only=True)
class Spending:
    """What counts for a quota now: the unfinished runs, and the messages and tokens of the UTC day.

    The message of an unfinished run counts, its tokens do not.
    """

    runs: int
    messages: int
    tokens: int


@attrs.frozen
class ReachedQuota:
    """A quota that leaves no room for another message."""

    name: QuotaName
    limit: int
    used: int

    @property
    def is_daily(self) -> bool:
        return self.name != "runs"


def find_reached_quota(quota: Quota, spending: Spending) -> ReachedQuota | None:
    """Return the quota that refuses another message, or None.

    The quotas of the day come first: the end of a run does not help. A run that passes its quota of tokens is
    finished: only the next message is refused.
    """
    candidates: tuple[tuple[QuotaName, int | None, int], ...] = (
        ("messages", quota.messages, spending.messages),
        ("tokens", quota.tokens, spending.tokens),
        ("runs", quota.runs, spending.runs),
    )
    for name, limit, used in candidates:
        if limit is not None and used >= limit:
            return ReachedQuota(name, limit, used)
    return None
