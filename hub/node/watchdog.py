"""Says in the log what blocks the event loop: an agent that works in `async def` without an await stops the hub."""

import asyncio
import selectors
import sys
import threading
import time
from asyncio import runners
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType

import attrs
import structlog

log = structlog.get_logger()

BLOCKED_SECONDS = 1.0  # people notice a stop of a second; the hub's own steps take milliseconds
LOOK_SECONDS = 0.25
QUIET_SECONDS = 60.0  # between two lines: an agent that blocks at each message must not fill the log
FRAMES = 5
MODULES = "hubbub_agents."  # see hub.hosting.loader


@attrs.define(eq=False, repr=False, kw_only=True)
class Watchdog:
    """A daemon thread that watches the loop which calls start(); beat() must be called in it a few times a second.

    *agent_of* returns the agent of a run by its id, or an empty string. It is called in the thread, and may only read.
    """

    agent_of: Callable[[str], str]
    _loop: asyncio.AbstractEventLoop | None = None
    _loop_thread: int = 0
    _beaten: float = 0.0
    _quiet_until: float = 0.0
    _stopped: threading.Event = attrs.Factory(threading.Event)

    def start(self) -> None:
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self.beat()
        threading.Thread(target=self._watch, name="hub-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Report nothing more; the thread ends by itself."""
        self._stopped.set()

    def beat(self) -> None:
        """Note that the loop turns."""
        self._beaten = time.monotonic()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            with suppress(Exception):  # a look that fails must not end the watch, and there is nobody to tell
                self._look()

    def _look(self) -> None:
        now = time.monotonic()
        blocked = now - self._beaten
        if blocked < BLOCKED_SECONDS or now < self._quiet_until:
            return
        frames = list(_stack(sys._current_frames().get(self._loop_thread)))
        if _is_idle(frames):  # the process was stopped, or the machine slept
            return
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task is not None else ""
        run = name.removeprefix("run ") if name.startswith("run ") else ""
        modules = (str(frame.f_globals.get("__name__")) for frame in frames)
        agent = next((module.removeprefix(MODULES) for module in modules if module.startswith(MODULES)), "")
        agent = agent or (self.agent_of(run) if run else "")
        at = " < ".join(map(_line, frames[:FRAMES]))
        if self._stopped.is_set():
            return
        self._quiet_until = now + QUIET_SECONDS
        log.error("the event loop is blocked", agent=agent, run=run, seconds=round(blocked, 1), at=at)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames from the innermost one outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_idle(frames: list[FrameType]) -> bool:
    """Tell whether the loop waits for events: in the selector of asyncio, or within uvloop, which has no frames."""
    files = [frame.f_code.co_filename for frame in frames[:2]]
    if not files or files[0] == runners.__file__:
        return True
    return files[0] == selectors.__file__ and frames[1:] != [] and frames[1].f_code.co_name == "_run_once"


def _line(frame: FrameType) -> str:
    folder, _, name = frame.f_code.co_filename.replace("\\", "/").rpartition("/")
    return f"{folder.rpartition('/')[2]}/{name}:{frame.f_lineno} {frame.f_code.co_name}"
