"""Find and load plugins: entry points in the metadata of installed packages."""

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class PluginError(Exception):
    """A plugin cannot be used. The message is one line that names the package of the plugin."""


@functools.cache
def find_plugins(group: str, reserved_names: frozenset[str]) -> Mapping[str, EntryPoint]:
    """Return the entry points of *group* by name, without importing them.

    Only the first call for a group reads the metadata. *reserved_names* are the names that the hub itself uses. If two
    packages use one name, the first on sys.path wins. Each ignored entry point is logged with one warning.
    """
    plugins: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if point.name in reserved_names:
            log.warning("plugin ignored: the hub has its own plugin of this name", plugin=describe_plugin(point))
        elif point.name in plugins:
            log.warning(
                "plugin ignored: another package has a plugin of this name",
                plugin=describe_plugin(point),
                used=describe_plugin(plugins[point.name]),
            )
        else:
            plugins[point.name] = point
    return plugins


def load_plugin(point: EntryPoint) -> Any:
    """Import the object of an entry point. Raises PluginError if the import fails."""
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # a module that exits must not end the hub
        problem = f"{type(error).__name__}: {error}"
        raise plugin_error(point, f"cannot be imported: {problem}; upgrade or remove the package") from None


def load_class(point: EntryPoint, contract: type[Any]) -> type[Any]:
    """Import the class of an entry point. *contract* is the ABC that the class must implement.

    Raises PluginError if the class does not implement it, or if the import fails.
    """
    kind = load_plugin(point)
    if not (isinstance(kind, type) and issubclass(kind, contract)):
        raise plugin_error(point, f"is not a subclass of {contract.__module__}.{contract.__qualname__}")
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise plugin_error(point, f"lacks {', '.join(missing)}, which {contract.__qualname__} requires")
    return kind


def plugin_error(point: EntryPoint, predicate: str) -> PluginError:
    """Return the error for a plugin that cannot be used. *predicate* says what is wrong, such as "is not a class"."""
    return PluginError(" ".join(f"{describe_plugin(point)} {predicate}".split()))


def describe_plugin(point: EntryPoint) -> str:
    """Return the name of an entry point, its package and its group."""
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
    return f"entry point {point.name!r} of package {package} ({point.group})"
