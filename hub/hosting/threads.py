"""Iterate a plain generator in a thread of its own, and pass its items to the event loop."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

MAX_QUEUED_ITEMS = 256  # items; at this number the thread waits for the loop (backpressure)


async def iterate_in_thread(start: Callable[[], Iterator[Any]], name: str) -> AsyncIterator[Any]:
    """Yield the items of the iterator that start() returns, and raise its exception.

    A daemon thread calls start() and the iterator. It waits while MAX_QUEUED_ITEMS items are unread. If this async
    iterator is closed or cancelled early, the thread stops at its next item and closes its own iterator. The async
    iterator waits, without a time limit, until the thread has ended.
    """
    bridge = _Bridge(asyncio.get_running_loop(), start)
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(bridge.work,), name=name, daemon=True)
    thread.start()
    try:
        while True:
            await bridge.wakeup.wait()
            bridge.wakeup.clear()
            while bridge.items:
                yield bridge.items.popleft()
                bridge.capacity.release()
            if bridge.has_ended.is_set() and not bridge.items:
                break
    finally:
        bridge.is_stopping = True
        bridge.capacity.release()
        await bridge.has_ended.wait()
    if bridge.error is not None:
        raise bridge.error


class _Bridge:
    """The state that the thread and the event loop share: a queue of items, and how the iteration ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: Callable[[], Iterator[Any]]) -> None:
        self.loop, self.start = loop, start
        self.items: deque[Any] = deque()
        self.capacity = threading.Semaphore(MAX_QUEUED_ITEMS)
        self.wakeup, self.has_ended = asyncio.Event(), asyncio.Event()
        self.is_stopping = False
        self.error: BaseException | None = None

    def work(self) -> None:
        try:
            self._iterate()
        except BaseException as error:  # SystemExit too: iterate_in_thread() raises it, as a RuntimeError
            exception = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self.error = exception.with_traceback(error.__traceback__)
        finally:
            self._call_in_loop(self.has_ended.set, self.wakeup.set)

    def _iterate(self) -> None:
        iterator = self.start()
        try:
            for item in iterator:
                self.capacity.acquire()
                if self.is_stopping:
                    break
                self.items.append(item)
                self._call_in_loop(self.wakeup.set)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _call_in_loop(self, *callbacks: Callable[[], None]) -> None:
        try:
            for callback in callbacks:
                self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # the loop is closed: the hub has ended before this thread
