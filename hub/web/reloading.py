"""Reload the settings, the agents and the certificate of a running hub when a signal asks for it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import structlog

from hub.access.doors import make_base_url
from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.commands.hub import Hub
from hub.observe.logging import log_to_stderr
from hub.settings import ConfigError, Settings
from hub.web.accepting import Acceptor
from hub.web.systemd import describe_reload, tell_systemd

log = structlog.get_logger()


@attrs.frozen
class Reloader:
    """Gives new settings to the parts of a hub that listens on *port*. *load_settings* raises ConfigError."""

    hub: Hub
    acceptor: Acceptor
    load_settings: Callable[[], Settings]
    port: int

    @asynccontextmanager
    async def reload_on(self, event: asyncio.Event) -> AsyncIterator[None]:
        """Until the end of the context, call reload() each time that *event* is set."""
        task = asyncio.create_task(self._run(event))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, event: asyncio.Event) -> None:
        while True:
            await event.wait()
            event.clear()
            tell_systemd(describe_reload())
            try:
                await self.reload()
            except Exception:
                log.exception("the reload failed")
            tell_systemd("READY=1")

    async def reload(self) -> None:
        """Use the new settings, and log what has changed. Wrong settings change nothing, and have one line."""
        try:
            settings = await asyncio.to_thread(self.load_settings)
            change = await commands.change_settings(self.hub, OPERATOR, settings)
        except ConfigError as error:
            log.error("nothing reloaded: the settings are wrong", reason=str(error))
            return
        self._use_settings(self.hub.settings)
        log.info("settings reloaded", changed=", ".join(change.changed_names) or "nothing")
        for name in change.fixed_names:
            log.warning(f"restart to change {name}")
        if self.acceptor.certificate is not None:
            await self.acceptor.certificate.reload()
        await commands.reload_agents(self.hub, OPERATOR)

    def _use_settings(self, settings: Settings) -> None:
        self.hub.base_url = make_base_url(settings, self.port)
        self.acceptor.use_settings(settings)
        log_to_stderr(settings.log_level, settings.log_format)
