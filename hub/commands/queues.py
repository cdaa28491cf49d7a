"""The queues of one connection: what concerns one session is done in order, what concerns others beside it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import attrs

from hub.limits import KiB, Limits
from hub.messages import Command

MIN_COMMAND_BYTES = 1 * KiB  # what a job counts at least: the hub's own records of a small command take about so much

QueuedCommand = Callable[[], Awaitable[object]]  # carries out one command; raises nothing but CancelledError


@attrs.define(eq=False, repr=False)
class _Queue:
    """The jobs of one session, the first of which is under way, and the task that does them.

    *marks* has commands that were done at once, each with the number of jobs that were sent before it.
    """

    jobs: deque[tuple[QueuedCommand, int]] = attrs.Factory(deque)
    marks: dict[Command, int] = attrs.Factory(dict)
    task: asyncio.Task[None] = attrs.field(init=False)


@attrs.define(eq=False, repr=False, kw_only=True)
class Queues:
    """Runs jobs; those of one key in the order in which they were put, those of different keys beside each other.

    A queue is there while it has a job. *follow_up* is called after each job that a mark is for, with the mark and with
    what the job returned.
    """

    limits: Limits
    follow_up: Callable[[Command, object], None]
    _queues: dict[str, _Queue] = attrs.Factory(dict)
    _bytes: int = 0
    _change: asyncio.Future[None] | None = None  # made when waited for

    def is_busy(self, key: str) -> bool:
        """Return whether a job of this key waits, or is under way."""
        return key in self._queues

    def has_room(self, keys: Sequence[str]) -> bool:
        """Return whether a job may be put now: there is a queue for it, and what waits is within `command_bytes`."""
        count = len(self._queues) + sum(key not in self._queues for key in keys)
        has_queue = count <= self.limits.command_queues or not self._queues
        return has_queue and self._bytes < self.limits.command_bytes

    async def changed(self) -> None:
        """Wait until a job has ended; there may be room then. One task at a time may wait."""
        self._change = asyncio.get_running_loop().create_future()
        await self._change

    def put(self, keys: Sequence[str], size: int, job: QueuedCommand) -> None:
        """Do a job after all those that were put under one of *keys* before; whoever puts it has seen the room.

        *size* is what it holds in memory, in bytes.
        """
        first, *others = keys
        if others:  # it is done in the first queue, when it is the next in each of them
            ready, done = [asyncio.Event() for _ in others], asyncio.Event()
            job = partial(_do_joined, job, ready, done)
            for key, event in zip(others, ready, strict=True):
                self._add(key, 0, partial(_hold, event, done))
        self._add(first, max(size, MIN_COMMAND_BYTES), job)

    def _add(self, key: str, size: int, job: QueuedCommand) -> None:
        self._bytes += size
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
            queue.task = asyncio.create_task(self._run(key, queue))
        queue.jobs.append((job, size))

    def mark(self, key: str, command: Command) -> None:
        """Call *follow_up* with *command* after each job that waits, or is under way, under *key*."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.marks[command] = len(queue.jobs)

    async def finished(self) -> None:
        """Wait until no job is left; where this is cancelled, the jobs are, too, and have ended before it raises."""
        try:
            await self._ended()
        except asyncio.CancelledError:
            self.cancel()
            await self._ended()
            raise

    async def _ended(self) -> None:
        while tasks := [queue.task for queue in self._queues.values() if not queue.task.done()]:
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """Cancel the jobs that are under way, and drop those that wait."""
        for queue in self._queues.values():
            queue.task.cancel()

    async def _run(self, key: str, queue: _Queue) -> None:
        try:
            while queue.jobs:
                job, size = queue.jobs[0]
                result = await job()
                # No await from here on: a mark counts the job that is under way.
                self._follow_up(queue, result)
                queue.jobs.popleft()
                self._bytes -= size
                self._note_change()
        finally:
            # No await since the last look at the jobs: what is put from here on makes a new queue.
            del self._queues[key]
            self._bytes -= sum(size for _, size in queue.jobs)  # dropped by cancel()
            self._note_change()

    def _follow_up(self, queue: _Queue, result: object) -> None:
        for command, count in list(queue.marks.items()):
            self.follow_up(command, result)
            if count > 1:
                queue.marks[command] = count - 1
            else:
                del queue.marks[command]

    def _note_change(self) -> None:
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)


async def _do_joined(job: QueuedCommand, ready: Sequence[asyncio.Event], done: asyncio.Event) -> object:
    try:
        for event in ready:
            await event.wait()
        return await job()
    finally:
        done.set()


async def _hold(ready: asyncio.Event, done: asyncio.Event) -> None:
    """Keep the place of a job that another queue does."""
    ready.set()
    await done.wait()
