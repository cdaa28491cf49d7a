"""UTC days and times: usage is counted by day, and the quotas of a day renew at its end. Times are in ms since 1970."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec

DAY_MS = 24 * 3600 * 1000
Day = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$(?!\n)", description="As in 2026-11-30.")]


def to_day(time: int) -> str:
    """Return the UTC day of a time, as in 2026-11-30."""
    return datetime.fromtimestamp(time / 1000, UTC).date().isoformat()


def next_midnight(time: int) -> int:
    """Return the end of the UTC day of a time."""
    return (time // DAY_MS + 1) * DAY_MS


def to_utc_time(time: int) -> str:
    """Return a time in UTC, as in 20261130T064236Z. The text can be a part of a file's name."""
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y%m%dT%H%M%SZ}"
