"""Log the code that blocks the event loop: an agent in `async def` that works without an await stops the hub."""

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

BLOCKED_SECONDS = 1.0  # people notice a delay of a second; the hub's own steps take milliseconds
CHECK_INTERVAL_SECONDS = 0.25
REPORT_INTERVAL_SECONDS = 60.0  # an agent that blocks for each message must not flood the hub's output
MAX_STACK_LINES = 5
AGENT_MODULE_PREFIX = "hubbub_agents."  # see hub.hosting.loader


@attrs.define(eq=False, repr=False, kw_only=True)
class Watchdog:
    """Watches, from a daemon thread, the loop in which start() was called.

    The loop must call beat() several times a second.

    *find_agent_id* returns the id of a run's agent, or an empty string. The daemon thread calls this function, so the
    function must change nothing.
    """

    find_agent_id: Callable[[str], str]
    _loop: asyncio.AbstractEventLoop | None = None
    _loop_thread: int = 0
    _last_beat: float = 0.0
    _quiet_until: float = 0.0
    _last_check: tuple[float, float] = (0.0, 0.0)  # its time, and the processor time of the process until then
    _stop_event: threading.Event = attrs.Factory(threading.Event)

    def start(self) -> None:
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self.beat()
        self._record_check()  # the first check measures from now on
        threading.Thread(target=self._watch, name="hub-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop the reports, and let the thread end, without waiting for it."""
        self._stop_event.set()

    def beat(self) -> None:
        """Record that the loop runs."""
        self._last_beat = time.monotonic()

    def _watch(self) -> None:
        while not self._stop_event.wait(CHECK_INTERVAL_SECONDS):
            with suppress(Exception):  # a check that fails must not end the watchdog
                self._check()

    def _record_check(self) -> bool:
        """Record this check. Return True if the last one was long ago, and the process had little processor time since.

        Then the process was stopped, or other programs used the processor: the loop may be late without being blocked.
        """
        before, self._last_check = self._last_check, (time.monotonic(), time.process_time())
        seconds, processor_seconds = (new - old for new, old in zip(self._last_check, before))
        return seconds > 2 * CHECK_INTERVAL_SECONDS and processor_seconds < seconds / 2

    def _check(self) -> None:
        is_after_pause = self._record_check()
        if is_after_pause:
            return
        now = time.monotonic()
        blocked_seconds = now - self._last_beat
        if blocked_seconds < BLOCKED_SECONDS or now < self._quiet_until:
            return
        frames = list(_walk_stack(sys._current_frames().get(self._loop_thread)))
        if _is_idle(frames):  # not blocked: the process was stopped, or the machine slept
            return
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task is not None else ""
        run = name.removeprefix("run ") if name.startswith("run ") else ""
        modules = (str(frame.f_globals.get("__name__")) for frame in frames)
        agent = next(
            (module.removeprefix(AGENT_MODULE_PREFIX) for module in modules if module.startswith(AGENT_MODULE_PREFIX)),
            "",
        )
        agent = agent or (self.find_agent_id(run) if run else "")
        stack = " < ".join(map(_format_frame, frames[:MAX_STACK_LINES]))
        if self._stop_event.is_set():
            return
        self._quiet_until = now + REPORT_INTERVAL_SECONDS
        log.error("the event loop is blocked", agent=agent, run=run, seconds=round(blocked_seconds, 1), at=stack)


def _walk_stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames from the innermost one outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_idle(frames: list[FrameType]) -> bool:
    """Return whether the loop waits for events: in the selector of asyncio, or in uvloop, whose code has no frames."""
    files = [frame.f_code.co_filename for frame in frames[:2]]
    if not files or files[0] == runners.__file__:
        return True
    return files[0] == selectors.__file__ and frames[1:] != [] and frames[1].f_code.co_name == "_run_once"


def _format_frame(frame: FrameType) -> str:
    folder, _, name = frame.f_code.co_filename.replace("\\", "/").rpartition("/")
    return f"{folder.rpartition('/')[2]}/{name}:{frame.f_lineno} {frame.f_code.co_name}"
