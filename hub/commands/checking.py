"""What is damaged in the data folder."""

from hub.access.principal import Principal
from hub.commands.hub import Hub


async def check_data(hub: Hub, principal: Principal) -> tuple[str, ...]:
    """Return a line for each thing in the data folder that is damaged.

    The hub need not be started, and another process may be running on the folder. Raises LogUnusable where there is
    no log.
    """
    damages = await hub.node.log.check(hub.node.files.blob_size)
    return tuple(damage.to_line() for damage in damages)
