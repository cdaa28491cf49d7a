"""Use cases for requests that test the way to the hub, through its proxies."""

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.errors import Unauthenticated


async def make_probe_token(hub: Hub, principal: Principal) -> str:
    """Return a token for one request to the route `echo`, within a minute."""
    return hub.probe_tokens.issue()


async def use_probe_token(hub: Hub, principal: Principal, text: str) -> None:
    """Use a token up. Raises Unauthenticated if it is not valid."""
    if not hub.probe_tokens.redeem(text):
        raise Unauthenticated("this address is for `hubbub doctor --url`, which has a token for each request")
