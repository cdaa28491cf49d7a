"""Plugins: what installed packages add to the hub, by the entry points of their metadata."""

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class PluginError(Exception):
    """A plugin cannot be used; the message is one line that names its package."""


@functools.cache
def find_plugins(group: str, reserved: frozenset[str]) -> Mapping[str, EntryPoint]:
    """Return the entry points of *group* by name, without importing them. The metadata is read once per process.

    The hub's own names are *reserved*. Of two packages with one name the first on sys.path wins. Each entry point that
    is left out is logged with one warning.
    """
    plugins: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if point.name in reserved:
            log.warning("plugin ignored: the hub's own one of that name is used", plugin=describe_plugin(point))
        elif point.name in plugins:
            used = describe_plugin(plugins[point.name])
            log.warning("plugin ignored: another one of that name is used", plugin=describe_plugin(point), used=used)
        else:
            plugins[point.name] = point
    return plugins


def load_plugin(point: EntryPoint) -> Any:
    """Import what an entry point names; raises PluginError."""
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # a module that exits must not end the hub
        problem = f"{type(error).__name__}: {error}"
        raise plugin_error(point, f"cannot be imported: {problem}; upgrade or remove the package") from None


def load_class(point: EntryPoint, contract: type[Any]) -> type[Any]:
    """Import the class that an entry point names; raises PluginError if it does not fulfil *contract*, an ABC."""
    kind = load_plugin(point)
    if not (isinstance(kind, type) and issubclass(kind, contract)):
        raise plugin_error(point, f"is no subclass of {contract.__module__}.{contract.__qualname__}")
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise plugin_error(point, f"lacks {', '.join(missing)}, which {contract.__qualname__} asks for")
    return kind


def plugin_error(point: EntryPoint, reason: str) -> PluginError:
    """Return the error for a plugin that cannot be used."""
    return PluginError(" ".join(f"{describe_plugin(point)} {reason}".split()))


def describe_plugin(point: EntryPoint) -> str:
    """Name an entry point, its package, and its group."""
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
    return f"entry point {point.name!r} of package {package} ({point.group})"
