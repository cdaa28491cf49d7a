"""The threads of `asyncio.to_thread` and of the loop's default executor: separate pools for agents and for the hub.

aiohttp uses the default executor for static files and proxy lookups, and the calls of agents may block for long. Agents
therefore have a pool of their own: if all its threads are busy, the hub still works.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import structlog

HUB_THREADS = 8
DNS_THREADS = 8  # a name server that does not answer blocks a thread for half a minute
BUSY_WARNING_SECONDS = 60.0  # the shortest time between two warnings that all threads of agents are busy

R = TypeVar("R")

running_agent: ContextVar[str] = ContextVar("running_agent", default="")  # the agent whose code runs here, or ""

log = structlog.get_logger()


@contextmanager
def use_hub_threads() -> Iterator[None]:
    """Run calls inside this `with` block in the hub's threads, even if an agent's code entered the block."""
    token = running_agent.set("")
    try:
        yield
    finally:
        running_agent.reset(token)


class ThreadPools(ThreadPoolExecutor):
    """The default executor of the loop; *agent_threads* is the number of threads for all agents."""

    def __init__(self, agent_threads: int) -> None:
        super().__init__(HUB_THREADS, "hub-default")
        self._dns_pool = ThreadPoolExecutor(DNS_THREADS, "hub-names")
        self._agent_pool = ThreadPoolExecutor(agent_threads, "agents")
        self._agent_threads = agent_threads
        self._calls: Counter[str] = Counter()  # by agent: its calls that run or wait in the agents' pool
        self._lock = threading.Lock()
        self._next_warning = 0.0

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Run *function* in a thread for agents if an agent's code calls this, else in a thread of the hub."""
        agent = running_agent.get()
        if not agent:
            return super().submit(function, *args, **kwargs)
        future = self._agent_pool.submit(function, *args, **kwargs)
        with self._lock:
            self._calls[agent] += 1
            holders = self._calls.most_common(3) if self._calls.total() > self._agent_threads else []
        future.add_done_callback(partial(self._count_down, agent))
        if holders:
            self._warn(agent, holders)
        return future

    def look_up_address(self, *query: Any) -> Future[list[Any]]:
        """Call socket.getaddrinfo in a thread for agents if an agent's code calls this, else in a DNS thread."""
        if running_agent.get():
            return self.submit(socket.getaddrinfo, *query)
        return self._dns_pool.submit(socket.getaddrinfo, *query)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls, and return at once, whatever *wait* is: the code of an agent may never end.

        Waiting calls of agents and DNS queries are cancelled, those of the hub only if *cancel_futures* is true.
        """
        for pool in (self._dns_pool, self._agent_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        super().shutdown(wait=False, cancel_futures=cancel_futures)

    def _count_down(self, agent: str, future: Future[Any]) -> None:
        with self._lock:
            self._calls[agent] -= 1
            if not self._calls[agent]:
                del self._calls[agent]

    def _warn(self, agent: str, holders: list[tuple[str, int]]) -> None:
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + BUSY_WARNING_SECONDS
            used_by = ", ".join(f"{name} {count}" for name, count in holders)
            log.warning(
                "all threads of agents are busy: asyncio.to_thread() calls of agents wait for a free one",
                agent=agent,
                threads=self._agent_threads,
                used_by=used_by,
            )
