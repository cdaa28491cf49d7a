"""Runs a hub as a process: its listening sockets, its start, and its shutdown."""

import asyncio
import gc
import socket
from collections.abc import Callable

import attrs
import structlog
from aiohttp import WSCloseCode, web

from hub.access.doors import check_bind, make_base_url
from hub.commands.hub import Hub, open_hub
from hub.observe.logging import log_to_stderr
from hub.observe.output import make_output_nonblocking
from hub.setting_sources import LoadedSettings
from hub.settings import Settings
from hub.web.accepting import Acceptor, make_acceptor
from hub.web.app import make_app
from hub.web.banner import announce_hub
from hub.web.certificate import Certificate, open_certificate, watch_certificate
from hub.web.control import ControlServer, start_control
from hub.web.ending import ExitGuard
from hub.web.listening import listen
from hub.web.loop import make_loop
from hub.web.metrics_server import serve_metrics
from hub.web.reloading import Reloader
from hub.web.systemd import replace_address, take_sockets, tell_systemd
from hub.web.websocket import close_all_sockets

log = structlog.get_logger()


@attrs.frozen
class Servers:
    """What serves the clients and the operator. *control* is None if the system has no socket for the operator."""

    runner: web.AppRunner
    acceptor: Acceptor
    control: ControlServer | None


@attrs.frozen(kw_only=True)
class _Process:
    """What a process needs to run a hub.

    *sockets* are those of systemd; without them, the hub listens itself. *announce* is called with each line of the
    banner. *load_settings* reads the settings again: it raises ConfigError.
    """

    settings: Settings
    certificate: Certificate | None
    sockets: list[socket.socket]
    load_settings: Callable[[], Settings]
    announce: Callable[[str], None]
    drain_output: Callable[[], None]


def run_hub(
    loaded_settings: LoadedSettings, load_again: Callable[[], LoadedSettings], announce: Callable[[str], None]
) -> int:
    """Run a hub until SIGINT or SIGTERM, and return the exit code.

    SIGHUP ends it if it has a terminal; else SIGHUP changes its settings to those that *load_again* returns. *announce*
    is called with each line of the banner. Raises ConfigError, LogUnusable or OSError, each with one line for the
    operator.
    """
    sockets = take_sockets()
    settings = replace_address(loaded_settings.settings, sockets)
    check_bind(settings)
    process = _Process(
        settings=settings,
        certificate=open_certificate(settings),
        sockets=sockets,
        load_settings=lambda: replace_address(load_again().settings, sockets),
        announce=announce,
        drain_output=make_output_nonblocking(),
    )
    log_to_stderr(settings.log_level, settings.log_format)
    if loaded_settings.service_variables:
        hint = "they come from a service of Kubernetes; the hub takes no setting from them"
        log.info("variables ignored", variables=", ".join(loaded_settings.service_variables), hint=hint)
    with asyncio.Runner(loop_factory=lambda: make_loop(settings.limits.agent_threads)) as loop_runner:
        loop_runner.run(_serve(process))
    return 0


async def _serve(process: _Process) -> None:
    """Run the hub from its start to the end of its shutdown; see _stop() for the order of the shutdown."""
    settings, certificate, announce = process.settings, process.certificate, process.announce
    hub = open_hub(settings)
    exit_guard = ExitGuard(limits=settings.limits, drain_output=process.drain_output)
    exit_guard.install_handlers()
    sockets = process.sockets or listen(settings.host, settings.port, "choose another --port, and another --data")
    port = sockets[0].getsockname()[1]
    hub.base_url = make_base_url(settings, port)
    async with serve_metrics(hub) as metrics_port, watch_certificate(certificate):
        runner = await _set_up_server(hub)
        if await _start(hub, exit_guard.stop, runner, sockets):
            servers = await _accept_connections(hub, runner, sockets, certificate)
            _tune_garbage_collector()
            await announce_hub(hub, port, announce, metrics_port, exit_guard.has_terminal)
            tell_systemd("READY=1")
            reloader = Reloader(hub, servers.acceptor, process.load_settings, port)
            async with reloader.reload_on(exit_guard.reload):
                await exit_guard.stop.wait()
            tell_systemd("STOPPING=1")
            key = "Ctrl-C" if exit_guard.has_terminal else "signal"
            announce(f"Stopping; a second {key} does not wait for running answers.")
            await _stop(hub, servers, exit_guard.hurry)
            announce("Stopped.")
    exit_guard.finish()
    if hub.has_running_code:  # an agent ignores its cancellation, or a thread does not end
        exit_guard.exit(0)


async def _start(hub: Hub, stop: asyncio.Event, runner: web.AppRunner, sockets: list[socket.socket]) -> bool:
    """Start the hub. If a signal comes first, undo the start and return False. Raises the errors of the start."""
    start_task, stop_task = asyncio.create_task(hub.start()), asyncio.create_task(stop.wait())
    await asyncio.wait([start_task, stop_task], return_when=asyncio.FIRST_COMPLETED)
    stop_task.cancel()
    if start_task.done() and not start_task.exception():
        return True
    for sock in sockets:
        sock.close()
    start_task.cancel()
    await asyncio.wait([start_task])
    await runner.cleanup()
    if not start_task.cancelled():
        start_task.result()  # raises the error of the start
    return False


async def _set_up_server(hub: Hub) -> web.AppRunner:
    """Return the HTTP server, which accepts no connection yet. Raises ConfigError if a key file cannot be read."""
    runner = web.AppRunner(make_app(hub), shutdown_timeout=1.0)
    await runner.setup()
    return runner


async def _accept_connections(
    hub: Hub, runner: web.AppRunner, sockets: list[socket.socket], certificate: Certificate | None
) -> Servers:
    """Accept connections from the listening sockets, and commands of the operator. _stop() ends it."""
    assert runner.server is not None
    acceptor = make_acceptor(hub.settings, runner.server, sockets, hub.counters.door, certificate)
    acceptor.start()
    return Servers(runner, acceptor, await start_control(hub))


def _tune_garbage_collector() -> None:
    """Run the garbage collector less often, and exclude the existing objects. Call this after the start."""
    gc.collect()
    gc.freeze()  # the objects that the start created live as long as the hub
    # Few objects of the hub are in cycles. Collecting less often lowered the p99 age of a token from 22 to 8 ms at 400
    # sessions.
    gc.set_threshold(20_000, 50, 50)


async def _stop(hub: Hub, servers: Servers, hurry: asyncio.Event) -> None:
    """Shut down the hub.

    1. Accept no new connections and chats; notify all clients.
    2. Wait up to `drain_seconds` for running runs. A second signal ends this wait and the grace time of stopped runs.
    3. End the runs that are still open (`aborted`), and wait until all events are in the log and delivered.
    4. Close all WebSockets with code 1012 at the same time, and abort the sockets that do not answer.
    5. Close the servers, the agents with their processes, and the log with its lock.
    """
    await servers.acceptor.stop()
    hub.drain()
    await hub.finish(hurry)
    await close_all_sockets(servers.runner.app, hub, WSCloseCode.SERVICE_RESTART)
    await servers.runner.cleanup()
    if servers.control is not None:
        await servers.control.stop()
    await hub.close()
