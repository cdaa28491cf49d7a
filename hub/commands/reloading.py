"""Use case: change the settings of a running hub, as far as that is possible."""

from collections.abc import Iterable
from typing import Any

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.limits import Limits
from hub.setting_sources import LIMIT_TYPES, SETTING_TYPES
from hub.settings import Settings

# The settings that a running hub can change. Code reads them at each use, or Hub.use_settings() gives it new values.
RELOADABLE_SETTINGS = (
    "log_level",
    "log_format",
    "access_log",
    "origins",
    "hosts",
    "public_url",
    "trusted_proxies",
    "guests",
    "allow_http",
    "new_user_role",
    "frames_per_second",
    "retention_days",
    "retention_mb",
)
# The limits that a running hub cannot change: threads and long-lived objects have copies of them. The other limits
# apply to what begins after the change: a request, a connection, a run.
FIXED_LIMITS = (
    "page_rows",
    "first_page_rows",
    "page_bytes",
    "chunk_bytes",
    "retry_seconds",
    "grace_seconds",
    "drain_seconds",
    "close_seconds",
    "agent_threads",
    "audit_entries",
)


@attrs.frozen
class SettingChange:
    """What a reload has changed, and which new values need a restart of the hub. Limits are named `limits.NAME`."""

    changed_names: tuple[str, ...]
    fixed_names: tuple[str, ...]


async def change_settings(hub: Hub, principal: Principal, settings: Settings) -> SettingChange:
    """Use the new values of the settings that can change, and return which they are.

    The relative paths in *settings* start where those of the first settings started. Raises ConfigError, and changes
    nothing then, if the new values do not fit to the old ones that cannot change.
    """
    first, current = hub.first_settings, hub.settings
    limits = attrs.evolve(settings.limits, **_pick(current.limits, FIXED_LIMITS))
    new_settings = attrs.evolve(current, **_pick(settings, RELOADABLE_SETTINGS), limits=limits)
    fixed_settings = [name for name in SETTING_TYPES if name not in RELOADABLE_SETTINGS]
    change = SettingChange(
        changed_names=(
            *_compare(current, new_settings, RELOADABLE_SETTINGS),
            *(f"limits.{name}" for name in _compare(current.limits, limits, LIMIT_TYPES)),
        ),
        # Compared with the first settings, because the folders of the current ones are absolute.
        fixed_names=(
            *_compare(first, settings, fixed_settings),
            *(f"limits.{name}" for name in _compare(first.limits, settings.limits, FIXED_LIMITS)),
        ),
    )
    hub.use_settings(new_settings)
    return change


def _pick(values: Settings | Limits, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(values, name) for name in names}


def _compare(old: Settings | Limits, new: Settings | Limits, names: Iterable[str]) -> list[str]:
    """Return the names whose values differ."""
    return [name for name in names if getattr(old, name) != getattr(new, name)]
