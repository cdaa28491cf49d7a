"""The threads behind `asyncio.to_thread` and the loop's default executor: those of agents, and the hub's own.

aiohttp reads static files and looks for proxies in the default executor, and agents block in it. So what the code of an
agent gives to it runs in threads of the agents, which may all be busy, and everything else in threads of the hub.
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
NAME_THREADS = 8  # for DNS: a name server that does not answer holds a thread for half a minute
QUIET_SECONDS = 60.0  # between two lines that say that the threads of agents are all busy

Result = TypeVar("Result")

running_agent: ContextVar[str] = ContextVar("running_agent", default="")  # whose code runs in this context

log = structlog.get_logger()


@contextmanager
def use_hub_threads() -> Iterator[None]:
    """Use the hub's own threads in here, though an agent waits for the result."""
    token = running_agent.set("")
    try:
        yield
    finally:
        running_agent.reset(token)


class ThreadPools(ThreadPoolExecutor):
    """A default executor for the loop; *agent_threads* is how many threads agents have."""

    def __init__(self, agent_threads: int) -> None:
        super().__init__(HUB_THREADS, "hub-default")
        self._names = ThreadPoolExecutor(NAME_THREADS, "hub-names")
        self._agents = ThreadPoolExecutor(agent_threads, "agents")
        self._agent_threads = agent_threads
        self._given: Counter[str] = Counter()  # what runs or waits in threads of agents, by agent
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    def submit(self, function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Run *function* in a thread of whoever calls this."""
        agent = running_agent.get()
        if not agent:
            return super().submit(function, *args, **kwargs)
        future = self._agents.submit(function, *args, **kwargs)
        with self._lock:
            self._given[agent] += 1
            holders = self._given.most_common(3) if self._given.total() > self._agent_threads else []
        future.add_done_callback(partial(self._done, agent))
        if holders:
            self._complain(agent, holders)
        return future

    def look_up_address(self, *query: Any) -> Future[list[Any]]:
        """Call socket.getaddrinfo in a thread of whoever calls this."""
        if running_agent.get():
            return self.submit(socket.getaddrinfo, *query)
        return self._names.submit(socket.getaddrinfo, *query)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; never wait: the code of an agent may not end."""
        for pool in (self._names, self._agents):
            pool.shutdown(wait=False, cancel_futures=True)
        super().shutdown(wait=False, cancel_futures=cancel_futures)

    def _done(self, agent: str, future: Future[Any]) -> None:
        with self._lock:
            self._given[agent] -= 1
            if not self._given[agent]:
                del self._given[agent]

    def _complain(self, agent: str, holders: list[tuple[str, int]]) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            used = ", ".join(f"{name} {count}" for name, count in holders)
            log.warning(
                "all threads of agents are busy: asyncio.to_thread() waits in them",
                agent=agent,
                threads=self._agent_threads,
                used_by=used,
            )
