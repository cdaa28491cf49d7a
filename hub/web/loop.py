"""The event loop of a hub: uvloop if it is installed, with thread pools that agents cannot exhaust."""

import asyncio
from typing import Any

from hub.pools import ThreadPools

try:
    import uvloop
except ImportError:  # Windows
    BASE_LOOP: Any = asyncio.SelectorEventLoop
else:
    BASE_LOOP = uvloop.Loop


class _HubLoop(BASE_LOOP):  # type: ignore[misc]
    pools: ThreadPools

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """Resolve a host name in a thread of the hub. Agents could occupy all four threads of uvloop's own resolver."""
        return await asyncio.wrap_future(self.pools.look_up_address(host, port, family, type, proto, flags))


def make_loop(agent_threads: int) -> asyncio.AbstractEventLoop:
    """Return an event loop with a ThreadPools as its default executor.

    *agent_threads* is the number of threads for all agents together.
    """
    loop = _HubLoop()
    loop.pools = ThreadPools(agent_threads)
    loop.set_default_executor(loop.pools)
    return loop
