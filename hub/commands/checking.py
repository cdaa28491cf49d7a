"""Use case: check the data folder for damage."""

from hub.access.principal import Principal
from hub.commands.hub import Hub


async def check_data(hub: Hub, principal: Principal) -> tuple[str, ...]:
    """Return one line for each damage in the data folder.

    The hub need not be started, and another hub may run on the folder. Raises LogUnusable if the log does not
    exist or cannot be checked.
    """
    damages = await hub.node.log.check(hub.node.files.blob_size)
    return tuple(damage.to_line() for damage in damages)
