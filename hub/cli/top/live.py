"""Show the picture of a hub live until a key or a signal ends it, or print it once."""

import asyncio
import contextlib
import signal
import sys
from collections import deque
from time import monotonic

import attrs
from prompt_toolkit.keys import Keys
from rich.console import Console, RenderableType
from rich.live import Live

from hub.cli.calling import print_note
from hub.cli.failures import CommandFailed
from hub.cli.keyboard import watch_keys
from hub.cli.text import to_printable_json
from hub.cli.top.drawing import draw_picture
from hub.cli.top.figures import Reading, make_picture
from hub.cli.top.source import MetricsSource

SPAN_SECONDS = 60.0  # of the rates and durations
SLOW_SECONDS = 3.0  # a hub that takes longer to answer has a problem
PICTURE_SECONDS = 1.0  # the longest time between two pictures
QUIT_KEYS = ("q", "Q", Keys.ControlC, Keys.ControlD)
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


async def print_picture(source: MetricsSource, *, as_json: bool) -> int:
    """Print the figures of the time since the start of the hub. Raises CommandFailed."""
    picture = make_picture(await _read_first(source))
    if as_json:
        sys.stdout.write(to_printable_json(attrs.asdict(picture)) + "\n")
    else:
        Console().print(draw_picture(picture, source.name))
    return 0


async def show_live(source: MetricsSource, interval: float) -> int:
    """Show the picture, with a reading every *interval* seconds, and return the exit code.

    Raises CommandFailed if the first reading fails. Later failures are shown in the picture.
    """
    return await LiveView(source=source, interval=interval, readings=deque([await _read_first(source)])).show()


async def _read_first(source: MetricsSource) -> Reading:
    task = asyncio.create_task(_read(source))
    await asyncio.wait([task], timeout=SLOW_SECONDS)
    if not task.done():
        print_note("the hub does not answer yet: an agent may block its event loop; waiting")
    return await task


async def _read(source: MetricsSource) -> Reading:
    metrics = await source.read()
    return Reading(monotonic(), metrics)


@attrs.define(eq=False, kw_only=True)
class LiveView:
    """A live view of a hub. *readings* are those of the last SPAN_SECONDS, the oldest first; at least one.

    *request_time* is the time of the request that has no answer yet.
    """

    source: MetricsSource
    interval: float
    readings: deque[Reading]
    console: Console = attrs.Factory(Console)
    exit_code: int | None = None
    problem: str = ""
    request_time: float | None = None
    _change: asyncio.Event = attrs.Factory(asyncio.Event)

    async def show(self) -> int:
        """Show the view until its end, and return the exit code. Then the terminal is as before."""
        for number in END_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.end, 128 + number)
        task = asyncio.create_task(self._read_often())
        try:
            with Live(console=self.console, screen=True, auto_refresh=False) as live, watch_keys(self._on_key):
                while self.exit_code is None:
                    live.update(self._draw(), refresh=True)
                    await self._wait_for_change()
        except OSError:  # the terminal is gone
            self.exit_code = self.exit_code or 1
        finally:
            task.cancel()
            await asyncio.wait([task])
        return self.exit_code

    def end(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self._change.set()

    def _on_key(self, key: str) -> None:
        if key in QUIT_KEYS:
            self.end(0)

    async def _wait_for_change(self) -> None:
        """Wait for a reading or the end, but not for long: the hub may be slow, and the terminal may be resized."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PICTURE_SECONDS):
                await self._change.wait()
        self._change.clear()

    def _draw(self) -> RenderableType:
        first, last = self.readings[0], self.readings[-1]
        picture = make_picture(last, first if first is not last else None)
        return draw_picture(picture, self.source.name, note=self._describe_problem(), height=self.console.size.height)

    def _describe_problem(self) -> str:
        wait = 0.0 if self.request_time is None else monotonic() - self.request_time
        if wait < SLOW_SECONDS:
            return self.problem
        return f"the hub has not answered for {wait:.0f} s: an agent may block its event loop"

    async def _read_often(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            self.request_time = monotonic()
            try:
                self._add(await _read(self.source))
            except CommandFailed as error:
                self.problem = str(error)
            self.request_time = None
            self._change.set()

    def _add(self, reading: Reading) -> None:
        """Add a reading. After a failed one, or if the hub has restarted, forget the earlier ones."""
        if self.problem or reading.start != self.readings[-1].start:
            self.readings.clear()
        self.problem = ""
        self.readings.append(reading)
        while len(self.readings) > 2 and reading.time - self.readings[0].time > SPAN_SECONDS:
            self.readings.popleft()
