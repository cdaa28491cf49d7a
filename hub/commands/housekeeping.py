"""The periodic tasks of sign-in: end expired sign-ins, forget tickets, save the audit and the times of uses."""

import asyncio

import attrs
import structlog

from hub.access.tickets import Tickets
from hub.commands.audit import Audit
from hub.commands.directory import Directory
from hub.commands.open_clients import OpenClients
from hub.errors import CredentialExpired, StorageUnavailable

log = structlog.get_logger()

SWEEP_SECONDS = 1.0
SAVE_INTERVAL = 60  # sweeps


@attrs.define(eq=False, repr=False, kw_only=True)
class Housekeeping:
    """Runs the tasks between start() and stop()."""

    directory: Directory
    tickets: Tickets
    clients: OpenClients
    audit: Audit
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the tasks, and save what is not saved yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._save()

    async def _run(self) -> None:
        sweeps = 0
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweeps += 1
            self._end_expired_clients()
            self.tickets.sweep()
            await self.audit.save()
            if sweeps % SAVE_INTERVAL == 0:
                await self._save()

    async def _save(self) -> None:
        try:
            await self.directory.save_uses()
        except StorageUnavailable as error:
            log.warning("the times of sign-ins were not saved", reason=error.message)

    def _end_expired_clients(self) -> None:
        """Close the clients whose credential has expired, with the close code 4001."""
        now = self.directory.seams.now()
        for client in list(self.clients.by_connection.values()):
            if 0 < client.principal.expires <= now:
                client.end(CredentialExpired())
