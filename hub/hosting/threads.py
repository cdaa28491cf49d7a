"""Runs a plain generator in a thread of its own, and hands what it gives to the loop."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

AHEAD = 256  # pieces that the thread may be ahead of the loop


async def in_thread(start: Callable[[], Iterator[Any]], name: str) -> AsyncIterator[Any]:
    """Iterate start() in a daemon thread; it waits where it is more than AHEAD pieces ahead.

    Closed early (or cancelled), the thread stops at its next piece and closes its generator there; closing waits for
    that, for as long as the code in the thread takes.
    """
    bridge = _Bridge(asyncio.get_running_loop(), start)
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(bridge.work,), name=name, daemon=True)
    thread.start()
    try:
        while True:
            await bridge.news.wait()
            bridge.news.clear()
            while bridge.pieces:
                yield bridge.pieces.popleft()
                bridge.space.release()
            if bridge.over.is_set() and not bridge.pieces:
                break
    finally:
        bridge.stop = True
        bridge.space.release()
        await bridge.over.wait()
    if bridge.error is not None:
        raise bridge.error


class _Bridge:
    def __init__(self, loop: asyncio.AbstractEventLoop, start: Callable[[], Iterator[Any]]) -> None:
        self.loop, self.start = loop, start
        self.pieces: deque[Any] = deque()
        self.space = threading.Semaphore(AHEAD)
        self.news, self.over = asyncio.Event(), asyncio.Event()
        self.stop = False
        self.error: BaseException | None = None

    def work(self) -> None:
        try:
            self._iterate()
        except BaseException as error:  # handed to the loop, SystemExit too: a thread has nobody to tell
            told = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self.error = told.with_traceback(error.__traceback__)
        finally:
            self._tell(self.over.set, self.news.set)

    def _iterate(self) -> None:
        pieces = self.start()
        try:
            for piece in pieces:
                self.space.acquire()
                if self.stop:
                    break
                self.pieces.append(piece)
                self._tell(self.news.set)
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _tell(self, *calls: Callable[[], None]) -> None:
        try:
            for call in calls:
                self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop is closed: the hub has ended without this thread
