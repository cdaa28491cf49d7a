"""Import agents in a thread, because an import may take seconds and must not block the event loop."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


async def run_import(load: Callable[[], T]) -> T:
    """Call *load* in a new daemon thread named `hub-agents`; return its result, or raise its exception.

    If the caller is cancelled, the thread continues, and its result is dropped. The thread does not belong to a
    ThreadPoolExecutor: at exit, Python waits for the threads of all executors, so an import that never ends would block
    the exit.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # a future in this state is not cancelled with its caller

    def work() -> None:
        try:
            result = load()
        except BaseException as error:  # KeyboardInterrupt too: the caller raises it in the event loop
            future.set_exception(error)
        else:
            future.set_result(result)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="hub-agents", daemon=True).start()
    return await asyncio.wrap_future(future)


def is_agent_file(path: Path) -> bool:
    """Return whether a file has the name of an agent file: NAME.py or NAME.toml, without a leading `.` or `_`."""
    return path.suffix in (".py", ".toml") and path.name[0] not in "._"
