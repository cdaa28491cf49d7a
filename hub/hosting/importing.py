"""Runs what imports an agent in a thread: an import takes seconds, and the event loop must go on meanwhile."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


async def run_import(load: Callable[[], Result]) -> Result:
    """Call *load* in a daemon thread of its own, named `hub-agents`; return or raise what it returns or raises.

    If the caller is cancelled, the thread goes on and its result is dropped. There is no ThreadPoolExecutor, because
    Python waits for the threads of one at its exit: an import that never ends would hold the process.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # from here on a cancelled caller does not cancel the future

    def work() -> None:
        try:
            result = load()
        except BaseException as error:  # KeyboardInterrupt too: the caller raises it in the loop
            future.set_exception(error)
        else:
            future.set_result(result)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="hub-agents", daemon=True).start()
    return await asyncio.wrap_future(future)


def is_agent_file(path: Path) -> bool:
    """Tell by its name whether a file of the agents folder is an agent."""
    return path.suffix in (".py", ".toml") and path.name[0] not in "._"
