"""The drivers of logs, by the scheme of their URLs.

Other packages add theirs by entry points of the group `hubbub.logs`.
"""

import importlib
from collections.abc import Callable
from urllib.parse import urlsplit

from hub.limits import Limits
from hub.plugins import PluginError, find_plugins, load_class
from hub.seams import Seams
from hub.storage.log import Log, LogUnusable
from hub.text import hide_passwords

DRIVERS = {"sqlite": ("hub.storage.sqlite.log", "SqliteLog")}


def open_log(url: str, limits: Limits, seams: Seams) -> Log:
    """Return the driver for *url*, not started yet; raises LogUnusable for a scheme that has none."""
    scheme = urlsplit(url).scheme
    plugins = find_plugins("hubbub.logs", frozenset(DRIVERS))
    driver: Callable[[str, Limits, Seams], Log]
    if scheme in plugins:
        try:
            driver = load_class(plugins[scheme], Log)
        except PluginError as error:
            raise LogUnusable(str(error)) from None
    elif scheme in DRIVERS:
        module, name = DRIVERS[scheme]
        driver = getattr(importlib.import_module(module), name)
    else:
        names = ", ".join(f"{name}://" for name in [*DRIVERS, *plugins])
        raise LogUnusable(f"no log speaks {hide_passwords(url)!r}: use one of {names}")
    return driver(url, limits, seams)
