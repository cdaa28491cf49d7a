"""Where `hubbub top` reads the metrics of a hub: on the control socket of a data folder, or at an address."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import attrs

from hub.cli.failures import CommandFailed
from hub.cli.hubs import get_text
from hub.cli.scrape import Metrics, parse_metrics, read_control_metrics
from hub.client.addresses import public_url
from hub.settings import Settings

T = TypeVar("T")


@attrs.frozen
class MetricsSource:
    """The metrics of one hub. *name* is for people. read() raises CommandFailed."""

    name: str
    read: Callable[[], Awaitable[Metrics]]


def choose_source(settings: Settings, url: str | None) -> MetricsSource:
    """Return the metrics at an address, or else those of the hub that runs on the data folder."""
    if url is not None:
        return MetricsSource(public_url(url), partial(_read_address, url))
    return MetricsSource(str(settings.data), partial(_call_in_thread, partial(_read_control, settings)))


def _read_control(settings: Settings) -> Metrics:
    metrics = read_control_metrics(settings)
    if metrics is None:
        raise CommandFailed(
            f"no hub runs on the data folder {settings.data}: start one with `hubbub serve`, or name another folder "
            "with --data"
        )
    return metrics


async def _read_address(url: str) -> Metrics:
    try:
        metrics = parse_metrics(await get_text(url, "/metrics"))
    except ValueError:  # not the metrics of a hub
        metrics = {}
    if "hubbub_build_info" not in metrics:
        raise CommandFailed(f"{public_url(url)} is not a hub: give the hub's address with --url")
    return metrics


async def _call_in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own. Nobody waits for the thread if the caller is cancelled."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            finish: Callable[[], None] = partial(future.set_result, function())
        except Exception as error:
            finish = partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if future.done() else finish())

    threading.Thread(target=run, daemon=True).start()
    return await future
