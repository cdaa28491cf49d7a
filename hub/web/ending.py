"""The end of a hub's process: what signals ask for, and a thread that ends the process in time."""

import asyncio
import os
import queue
import signal
import threading
from collections.abc import Callable
from typing import Literal

import attrs
import structlog

from hub.limits import Limits

EXIT_SECONDS = 1.0  # after the hub's own end: for what agents do at the exit of the interpreter

log = structlog.get_logger()


@attrs.define(eq=False, kw_only=True)
class ExitGuard:
    """Ends the process where the hub does not, because a thread, a child or the code of an agent goes on.

    The first signal sets *stop*, and the process ends within `drain_seconds`. The second sets *hurry*; it ends within
    `grace_seconds`. The third ends it at once. After done() any signal does.
    """

    limits: Limits
    drain_output: Callable[[], None]
    stop: asyncio.Event = attrs.Factory(asyncio.Event)
    hurry: asyncio.Event = attrs.Factory(asyncio.Event)
    _news: "queue.SimpleQueue[Literal['signal', 'done']]" = attrs.Factory(queue.SimpleQueue)

    def listen(self) -> None:
        """Take the signals from now on; called in the loop, in the main thread."""
        loop = asyncio.get_running_loop()

        def signalled() -> None:
            if self.stop.is_set():
                self.hurry.set()
            self.stop.set()

        # Not by the loop: its handlers wait while an agent blocks it. Nothing here may take a lock.
        def handle(number: int, frame: object) -> None:
            self._news.put("signal")
            if not loop.is_closed():
                loop.call_soon_threadsafe(signalled)

        # SIGHUP comes when a terminal is closed; Windows has none.
        for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
            signal.signal(number, handle)
        threading.Thread(target=self._watch, name="hub-ending", daemon=True).start()

    def done(self) -> None:
        """Note that the hub has ended in order: what is left is the exit of the interpreter."""
        self._news.put("done")

    def _watch(self) -> None:
        seconds = iter((self.limits.drain_seconds, self.limits.grace_seconds))
        news = self._news.get()
        while news != "done":
            try:
                news = self._news.get(timeout=next(seconds, 0.0))
            except queue.Empty:
                log.error("the hub could not end in order: what was under way ends at the next start")
                self.exit(1)
        try:
            self._news.get(timeout=EXIT_SECONDS)
        except queue.Empty:
            pass
        self.exit(0)

    def exit(self, code: int) -> None:
        """End the process now, without waiting for threads and children of agents."""
        from multiprocessing import active_children  # few hubs have any

        for child in active_children():
            if child.daemon:  # Python ends these at an exit
                child.terminate()
        self.drain_output()
        os._exit(code)
