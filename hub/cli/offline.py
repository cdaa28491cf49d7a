"""Call a use case on a hub that is not started."""

import asyncio
from typing import Any

from hub.cli.failures import exit_with
from hub.observe.logging import log_to_stderr
from hub.settings import Settings
from hub.storage.log import LogUnusable


def call_offline(settings: Settings, use_case: str, *arguments: Any) -> Any:
    """Return the result of a use case of hub.commands.table, called on a hub that is not started.

    If the log or a file cannot be used, exit with code 2.
    """
    log_to_stderr(settings.log_level, settings.log_format)
    from hub.access.principal import OPERATOR  # here, so that --help does not load the hub
    from hub.commands import table as commands
    from hub.commands.hub import open_hub

    async def call() -> Any:
        return await commands.USE_CASES[use_case](open_hub(settings), OPERATOR, *arguments)

    try:
        return asyncio.run(call())
    except (LogUnusable, OSError) as error:
        exit_with(error)
