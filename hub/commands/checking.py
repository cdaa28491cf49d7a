"""Use cases: check the data folder for damage, and the software of the log for risks."""

from hub.access.principal import Principal
from hub.commands.hub import Hub


async def check_data(hub: Hub, principal: Principal) -> tuple[str, ...]:
    """Return one line for each damage in the data folder.

    The hub need not be started, and another hub may run on the folder. Raises LogUnusable if the log does not
    exist or cannot be checked.
    """
    damages = await hub.node.log.check(hub.node.files.blob_size)
    return tuple(damage.to_line() for damage in damages)


async def list_log_risks(hub: Hub, principal: Principal) -> tuple[str, ...]:
    """Return one line for each risk of the software with which the log works. The hub need not be started."""
    return tuple(hub.node.log.list_risks())
