"""Check whether the log can be written. Concurrent and frequent checks share the result of one probe."""

import asyncio

import attrs

from hub.errors import StorageUnavailable
from hub.storage.log import Log

VALID_SECONDS = 1.0  # a result is reused this long, so that all requests together cost one commit a second
WAIT_SECONDS = 0.5  # many health checks have a timeout of a second, and SQLite waits 5 s for a lock
SLOW_LOG_TEXT = (
    "the log could not be written for half a second: if another process holds its write lock, end that process; "
    "otherwise check the disk"
)


@attrs.define(eq=False, repr=False)
class LogProbe:
    """Probes a log, one probe at a time. All methods are called in the loop of the log.

    A running probe ends when the log is closed, because close() answers all calls of the log.
    """

    log: Log
    _refusal: str = ""  # the error message of the last probe; empty if the log could be written
    _valid_until: float = float("-inf")
    _task: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raise StorageUnavailable, with a line for the operator, if the log cannot be written now.

        Waits at most WAIT_SECONDS. The probe is a commit, because only a commit fails on a full disk, a quota or the
        lock of another process.
        """
        loop = asyncio.get_running_loop()
        if (self._task is None or self._task.done()) and loop.time() >= self._valid_until:
            self._task = loop.create_task(self._probe())
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=WAIT_SECONDS)
            if not task.done():
                raise StorageUnavailable(self._refusal or SLOW_LOG_TEXT)
            task.result()
        if self._refusal:
            raise StorageUnavailable(self._refusal)

    async def _probe(self) -> None:
        try:
            await self.log.probe()
            self._refusal = ""
        except StorageUnavailable as error:
            self._refusal = error.message
        self._valid_until = asyncio.get_running_loop().time() + VALID_SECONDS
