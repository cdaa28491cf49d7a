"""Handles the signals of a hub's process. A thread ends the process if the hub does not end in time."""

import asyncio
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Literal

import attrs
import structlog

from hub.limits import Limits

EXIT_SECONDS = 1.0  # time for the exit handlers (atexit) of agents, from finish() on

log = structlog.get_logger()


@attrs.define(eq=False, kw_only=True)
class ExitGuard:
    """Ends the process if the hub does not end in time: a thread, a child process or an agent may prevent its end.

    The first signal sets *stop*, and the process ends within `drain_seconds`. The second signal sets *hurry*, and the
    process ends within `grace_seconds`. The third signal ends the process at once. After finish() the process ends
    within a second, or at the next signal. *drain_output* writes the buffered output before the process ends.

    SIGHUP is one of these signals if the process *has_terminal*: the terminal was closed. Without a terminal, it sets
    *reload*.
    """

    limits: Limits
    drain_output: Callable[[], None]
    stop: asyncio.Event = attrs.Factory(asyncio.Event)
    hurry: asyncio.Event = attrs.Factory(asyncio.Event)
    reload: asyncio.Event = attrs.Factory(asyncio.Event)
    has_terminal: bool = attrs.Factory(lambda: _has_terminal())
    _reports: "queue.SimpleQueue[Literal['signal', 'done']]" = attrs.Factory(queue.SimpleQueue)

    def install_handlers(self) -> None:
        """Install the signal handlers. Call this in the event loop, in the main thread."""
        loop = asyncio.get_running_loop()

        def set_events() -> None:
            if self.stop.is_set():
                self.hurry.set()
            self.stop.set()

        # Not loop.add_signal_handler(): an agent that blocks the loop would delay that handler. This function may
        # interrupt any code of the main thread, so it must not take a lock.
        def handle(number: int, frame: object) -> None:
            self._reports.put("signal")
            if not loop.is_closed():
                loop.call_soon_threadsafe(set_events)

        def handle_hangup(number: int, frame: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.reload.set)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handle)
        if sys.platform != "win32":
            signal.signal(signal.SIGHUP, handle if self.has_terminal else handle_hangup)
        threading.Thread(target=self._watch, name="hub-ending", daemon=True).start()

    def finish(self) -> None:
        """Report that the hub has ended in order. The caller then lets the interpreter exit."""
        self._reports.put("done")

    def _watch(self) -> None:
        """End the process if the hub, or after finish() the interpreter, does not end in time.

        This runs in a thread of its own.
        """
        seconds = iter((self.limits.drain_seconds, self.limits.grace_seconds))
        report = self._reports.get()
        while report != "done":
            try:
                report = self._reports.get(timeout=next(seconds, 0.0))
            except queue.Empty:
                log.error("the hub could not end in order and was stopped: the next start ends its open runs")
                self.exit(1)
        try:
            self._reports.get(timeout=EXIT_SECONDS)
        except queue.Empty:
            pass
        self.exit(0)

    def exit(self, code: int) -> None:
        """End the process now, without waiting for the threads and child processes of agents."""
        from multiprocessing import active_children  # imported late, because few hubs have child processes

        for child in active_children():
            if child.daemon:  # as Python does at a normal exit
                child.terminate()
        self.drain_output()
        os._exit(code)


def _has_terminal() -> bool:
    """Return whether Ctrl-C ends the process, and SIGHUP would come from a terminal that was closed.

    Without a terminal, as under systemd, or after nohup, an operator sends these signals. Call this before the handlers
    are installed.
    """
    if sys.platform == "win32":
        return sys.stdin is not None and sys.stdin.isatty()
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
        return False
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
