"""Use cases for probes: requests that test the way through proxies to the hub."""

from hub.access.principal import Principal
from hub.access.probes import ProbeReport
from hub.commands.hub import Hub
from hub.errors import Unauthenticated


async def create_probe(hub: Hub, principal: Principal) -> str:
    """Return the token of a new probe: for one request to the route `echo`, within a minute."""
    return hub.probes.issue()


async def receive_probe(hub: Hub, principal: Principal, token: str, report: ProbeReport) -> None:
    """Use up the token of a probe, and keep its report. Raises Unauthenticated if the token is not valid."""
    if not hub.probes.receive(token, report):
        raise Unauthenticated("this address is for `hubbub doctor --url`, which has a token for each request")


async def find_probe(hub: Hub, principal: Principal, probe_id: str) -> ProbeReport | None:
    """Return how a probe arrived, or None if it has not. *probe_id* is the id of its token."""
    return hub.probes.find_report(probe_id)
