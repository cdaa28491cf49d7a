"""The lines that a hub prints when it has started."""

from collections.abc import Callable

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.commands.hub import Hub
from hub.errors import StorageUnavailable
from hub.web.routes import API_PREFIX

ADDRESS_SCHEMES = {"http": ("http", "ws"), "https": ("https", "wss")}
ALLOW_HTTP_WARNING = (
    "Warning             allow_http = true: browsers sign in without https, so anyone in the network can read "
    "their cookies"
)


async def announce_hub(
    hub: Hub, port: int, announce: Callable[[str], None], metrics_port: int | None, has_terminal: bool
) -> None:
    """Announce the addresses, the agents, the data folder, and how to sign in. docs/start.md shows these lines.

    The last line depends on *has_terminal*: without a terminal, nobody can press Ctrl-C.
    """
    settings = hub.settings
    address, socket_address = (
        f"{scheme}://{settings.host}:{port}{settings.base_path}" for scheme in ADDRESS_SCHEMES[settings.scheme]
    )
    announce(f"Hubbub listens on   {address}  (the console)")
    announce(f"                    {socket_address}{API_PREFIX}/ws")
    announce(f"                    {address}/docs  (the API reference)")
    for agent in await commands.inspect_agents(hub, OPERATOR):
        announce(f"  agent {agent.agentId:<13} {'broken: ' + agent.error if agent.error else agent.description}")
    if metrics_port is not None:
        announce(f"Metrics             http://{settings.metrics_host}:{metrics_port}/metrics")
    announce(f"Data folder         {settings.data.resolve()}")
    if settings.allow_http:
        announce(ALLOW_HTTP_WARNING)
    if hub.is_sign_in_on:
        await _announce_first_admin(hub, announce)
    announce("Press Ctrl-C to stop." if has_terminal else "The hub is ready.")


async def _announce_first_admin(hub: Hub, announce: Callable[[str], None]) -> None:
    """Announce how the first admin signs in, unless somebody is known."""
    try:
        if await commands.list_principals(hub, OPERATOR):
            return
        if hub.settings.user_header is not None:
            announce("First admin         sign in through the proxy, then: hubbub principal set NAME --role admin")
            return
        link = await commands.invite_person(hub, OPERATOR, "admin", role="admin")
    except StorageUnavailable as error:
        announce(f"First admin         no link could be made: {error.message}")
        return
    announce(f"First admin         {link}")
    announce("                    (for one browser, once, within 7 days; for another link: hubbub invite admin)")
