"""The command queues of one connection: the commands of a session run in order, different sessions concurrently."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import attrs

from hub.limits import KiB, Limits
from hub.messages import Command

MIN_COMMAND_BYTES = 1 * KiB  # a command counts at least this: about the size of the hub's own records of it

QueuedCommand = Callable[[], Awaitable[object]]  # runs one command; raises only CancelledError


@attrs.define(eq=False, repr=False)
class _Queue:
    """The commands of one session, each with its size, and the task that runs them. The first command runs now.

    *marks* has the commands that overtook the queue: for each, how many overtaken commands have not ended.
    """

    commands: deque[tuple[QueuedCommand, int]] = attrs.Factory(deque)
    marks: dict[Command, int] = attrs.Factory(dict)
    task: asyncio.Task[None] = attrs.field(init=False)


@attrs.define(eq=False, repr=False, kw_only=True)
class Queues:
    """Runs queued commands: in order for one key, concurrently for different keys. A key stands for a session.

    A queue exists while it has a command. After each command that a marked command overtook, *follow_up* is called
    with the marked command and the result of the overtaken one.
    """

    limits: Limits
    follow_up: Callable[[Command, object], None]
    _queues: dict[str, _Queue] = attrs.Factory(dict)
    _bytes: int = 0
    _change_waiter: asyncio.Future[None] | None = None  # created on first use

    def is_busy(self, key: str) -> bool:
        """Return True if a command of this key is queued or running."""
        return key in self._queues

    def has_capacity(self, keys: Sequence[str]) -> bool:
        """Return True if put() is allowed now: it keeps `command_queues`, and `command_bytes` is not reached.

        If there is no queue, put() is always allowed.
        """
        count = len(self._queues) + sum(key not in self._queues for key in keys)
        has_queue = count <= self.limits.command_queues or not self._queues
        return has_queue and self._bytes < self.limits.command_bytes

    async def wait_for_change(self) -> None:
        """Wait until a command has ended: put() may be allowed then. Only one task may wait at a time."""
        self._change_waiter = asyncio.get_running_loop().create_future()
        await self._change_waiter

    def put(self, keys: Sequence[str], size: int, command: QueuedCommand) -> None:
        """Queue a command behind all earlier ones of any of *keys*. The caller has checked has_capacity().

        *size* is the size of the command in bytes.
        """
        first_key, *more_keys = keys
        if more_keys:  # the command runs in the first queue, when it is the next one in every queue
            ready_events, end_event = [asyncio.Event() for _ in more_keys], asyncio.Event()
            command = partial(_run_when_ready, command, ready_events, end_event)
            for key, ready_event in zip(more_keys, ready_events, strict=True):
                self._add(key, 0, partial(_block_queue, ready_event, end_event))
        self._add(first_key, max(size, MIN_COMMAND_BYTES), command)

    def _add(self, key: str, size: int, command: QueuedCommand) -> None:
        self._bytes += size
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
            queue.task = asyncio.create_task(self._run(key, queue))
        queue.commands.append((command, size))

    def mark(self, key: str, command: Command) -> None:
        """Call *follow_up* with *command* after each command of *key* that is queued or running now."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.marks[command] = len(queue.commands)

    async def wait_until_finished(self) -> None:
        """Wait until no command is queued or running.

        If the wait is cancelled, cancel all commands, wait until they have ended, and raise CancelledError.
        """
        try:
            await self._wait_for_tasks()
        except asyncio.CancelledError:
            self.cancel()
            await self._wait_for_tasks()
            raise

    async def _wait_for_tasks(self) -> None:
        while tasks := [queue.task for queue in self._queues.values() if not queue.task.done()]:
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """Cancel the running commands, and drop the queued ones."""
        for queue in self._queues.values():
            queue.task.cancel()

    async def _run(self, key: str, queue: _Queue) -> None:
        try:
            while queue.commands:
                command, size = queue.commands[0]
                result = await command()
                # No await from here to popleft(): mark() counts the running command.
                self._follow_up(queue, result)
                queue.commands.popleft()
                self._bytes -= size
                self._wake_waiter()
        finally:
            # No await since the last check of the commands: the next put() creates a new queue.
            del self._queues[key]
            self._bytes -= sum(size for _, size in queue.commands)  # dropped by cancel()
            self._wake_waiter()

    def _follow_up(self, queue: _Queue, result: object) -> None:
        for command, count in list(queue.marks.items()):
            self.follow_up(command, result)
            if count > 1:
                queue.marks[command] = count - 1
            else:
                del queue.marks[command]

    def _wake_waiter(self) -> None:
        waiter, self._change_waiter = self._change_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


async def _run_when_ready(
    command: QueuedCommand, ready_events: Sequence[asyncio.Event], end_event: asyncio.Event
) -> object:
    """Run a command when all its other queues are blocked for it. Then set *end_event*, which unblocks them."""
    try:
        for ready_event in ready_events:
            await ready_event.wait()
        return await command()
    finally:
        end_event.set()


async def _block_queue(ready_event: asyncio.Event, end_event: asyncio.Event) -> None:
    """Block a queue until a command that runs in another queue has ended."""
    ready_event.set()
    await end_event.wait()
