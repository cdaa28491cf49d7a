"""Find the driver of a log by the scheme of its URL.

A plugin adds a driver as an entry point of the group `hubbub.logs`. The name of the entry point is the scheme.
"""

import importlib
from collections.abc import Callable

from hub.limits import Limits
from hub.plugins import PluginError, find_plugins, load_class
from hub.seams import Seams
from hub.storage.log import Log, LogUnusable
from hub.text import hide_passwords

LOG_DRIVERS = {"sqlite": ("hub.storage.sqlite.log", "SqliteLog")}


def open_log(url: str, limits: Limits, seams: Seams) -> Log:
    """Return the log at *url*. The caller must start the log.

    Raises LogUnusable if no driver has the scheme, if the plugin cannot be loaded, or if the driver refuses *url*.
    """
    scheme = url.partition(":")[0].lower()
    plugins = find_plugins("hubbub.logs", frozenset(LOG_DRIVERS))
    driver: Callable[[str, Limits, Seams], Log]
    if scheme in plugins:
        try:
            driver = load_class(plugins[scheme], Log)
        except PluginError as error:
            raise LogUnusable(str(error)) from None
    elif scheme in LOG_DRIVERS:
        module, name = LOG_DRIVERS[scheme]
        driver = getattr(importlib.import_module(module), name)
    else:
        names = ", ".join(f"{name}://" for name in [*LOG_DRIVERS, *plugins])
        raise LogUnusable(f"no driver opens the log {hide_passwords(url)!r}: use one of {names}")
    return driver(url, limits, seams)
