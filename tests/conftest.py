"""What all tests share."""

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest
import structlog
from playwright.async_api import Browser, async_playwright
from support.browser import ARGUMENTS, CHROMIUM
from support.drivers import DRIVERS, Driver, run_driver
from support.hub import Hub
from support.waiting import PATIENCE

from hub.node import watchdog
from hub.observe.agents import AgentLogHandler
from hub.plugins import find_plugins
from hub.protocols import open_sized_protocol, protocol_plugins

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# A shell that starts the tests in the background, or with nohup, ignores these signals; the hubs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The hubs of this process share its loop with the tests. A busy machine, or a collection of the garbage of many tests,
# may block it for more than a second. A line about that would be one more than a test expects.
watchdog.BLOCKED_SECONDS = PATIENCE


def without_skips(report: Report, what: str) -> Report:
    """Where CI is set, a skip is a failure: that machine is meant to have all that the tests need."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{what} may not be skipped where CI is set. {reason}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return without_skips((yield), item.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return without_skips((yield), collector.nodeid)


def pytest_sessionfinish() -> None:
    """Save the coverage of this process: xdist kills a worker that takes long to exit."""
    coverage = sys.modules.get("coverage")
    measurement = coverage.Coverage.current() if coverage is not None else None
    if measurement is not None:
        measurement.save()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """A real hub in this process, on a port of its own, hosting what the test writes into its agents folder."""
    running = Hub(tmp_path)
    try:
        yield running
    finally:
        await running.stop()


@pytest.fixture
async def signed(hub: Hub) -> Hub:
    """A started hub with sign-in. A test file can write its own agents in a fixture with autouse."""
    hub.options["sign_in"] = True
    return await hub.start()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of HTTP that keeps the cookies of hubs on this machine, as a browser does."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


@pytest.fixture(params=DRIVERS)
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    """A driver program of each client library in turn."""
    async with run_driver(request.param) as running:
        yield running


@pytest.fixture
def fresh_plugins() -> Iterator[None]:
    """The hub reads the metadata of packages again, in this test and after it."""
    caches = (find_plugins, protocol_plugins, open_sized_protocol)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Restore the logging of this process after a test that changes it."""
    loggers = [logging.getLogger(), logging.getLogger("aiohttp.server")]
    levels = [logger.level for logger in loggers]
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    for logger, level in zip(loggers, levels):
        logger.setLevel(level)
    for handler in [handler for handler in loggers[0].handlers if isinstance(handler, AgentLogHandler)]:
        loggers[0].removeHandler(handler)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A Chromium of this test's own."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        await running.close()
