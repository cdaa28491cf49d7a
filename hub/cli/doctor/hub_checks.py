"""Check the agents and the log on a hub that is not started, and the running hub."""

import asyncio
import importlib.metadata
import os
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from hub import __version__
from hub.access.doors import is_loopback
from hub.access.principal import OPERATOR
from hub.adapters.local_model import MODEL_FILE
from hub.cli.doctor.findings import Finding, Level
from hub.cli.doctor.machine import check_descriptors, compare_descriptors
from hub.cli.failures import CommandFailed
from hub.cli.model import ENGINE_NAME, is_verified
from hub.cli.requirements import REQUIREMENTS_FILE, find_missing_lines
from hub.cli.scrape import find_label, find_value, read_control_metrics
from hub.commands import table as commands
from hub.commands.hub import Hub, open_hub
from hub.observe.tracing import open_tracing
from hub.seams import Seams
from hub.settings import ConfigError, Settings
from hub.web.app import make_app
from hub.web.jwt_sign_in import make_jwt_verifier

MODEL_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
LONG_LAG_SECONDS = 1.0
LOG_FILE = "hub.db"  # of the default log


def check_start(settings: Settings) -> Iterator[Finding]:
    """Check what the hub checks at its start: the settings `jwt_*`, `base_path`, and `otel` with its variables."""
    try:
        make_app(open_hub(settings))
        asyncio.run(_load_keys(settings))
        asyncio.run(_try_tracing(settings))
    except ConfigError as error:
        yield Finding("wrong", str(error))


async def _load_keys(settings: Settings) -> None:
    """Read the keys of the issuer of tokens, if they are in a file. Raises ConfigError."""
    verifier = make_jwt_verifier(settings, Seams())
    if verifier is not None and settings.jwt_keys is not None and "://" not in settings.jwt_keys:
        await verifier.open()
        await verifier.close()


async def _try_tracing(settings: Settings) -> None:
    """Open what sends traces, and close it. Raises ConfigError."""
    tracing = open_tracing(settings, __version__)
    if tracing is not None:
        await tracing.close()


def check_agents(settings: Settings) -> Iterator[Finding]:
    """Load the agents, and check what they need."""
    if not settings.agents.is_dir():
        yield Finding("wrong", f"there is no agents folder {settings.agents}", "hubbub init")
        return
    reports = _call(settings, lambda hub: commands.inspect_agents(hub, OPERATOR))
    broken_reports = [report for report in reports if report.error is not None]
    for report in broken_reports:
        yield Finding("wrong", f"agent {report.agentId} is broken: {report.error}", "repair it, then: hubbub agents")
    if not reports:
        yield Finding("wrong", f"the agents folder {settings.agents} has no agent", "hubbub init")
    elif not broken_reports:
        yield Finding("ok", f"agents: {', '.join(report.agentId for report in reports)}")
    file = settings.agents / REQUIREMENTS_FILE
    if lines := find_missing_lines(file):
        yield Finding("wrong", f"packages of agents are missing: {', '.join(lines)}", f"pip install -r {file}")
    if any(report.agentId == "main" for report in reports) and _is_model_missing(settings):
        text = "the agent main has no model: no endpoint is configured, and the local model is not there"
        yield Finding("advice", text, "hubbub model, or OPENAI_BASE_URL=... in .env")


def _is_model_missing(settings: Settings) -> bool:
    """Return whether the agent `main` has no model, so that it can only say how to get one."""
    try:
        options = tomllib.loads((settings.agents / "main.toml").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    if options.get("adapter") != "openai_chat" or options.get("base_url") or any(map(os.environ.get, MODEL_VARIABLES)):
        return False
    folders = (settings.cache_folder, settings.data)
    has_weights = any(is_verified(folder / "models" / MODEL_FILE) for folder in folders)
    return not has_weights or not _has_engine()


def _has_engine() -> bool:
    try:
        importlib.metadata.version(ENGINE_NAME)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_log(settings: Settings) -> Iterator[Finding]:
    """Check the log for damage, if there is one. Raises LogUnusable."""
    for risk in _call(settings, lambda hub: commands.list_log_risks(hub, OPERATOR)):
        yield Finding("advice", risk, "install a newer Python, or a newer SQLite")
    if settings.log is None and not (settings.data / LOG_FILE).exists():
        yield Finding("ok", "there is no log yet: the first start makes it")
        return
    lines = _call(settings, lambda hub: commands.check_data(hub, OPERATOR))
    for line in lines:
        yield Finding("wrong", f"damage in the log: {line}", "hubbub restore DIR, with a backup")
    if not lines:
        yield Finding("ok", "the log has no damage")


def check_running_hub(settings: Settings) -> Iterator[Finding]:
    """Check the process of the running hub, by its metrics."""
    try:
        metrics = read_control_metrics(settings)
    except CommandFailed as error:
        yield Finding("wrong", str(error))
        return
    if metrics is None:
        yield Finding("ok", "no hub runs on this data folder")
        yield from check_descriptors(settings)
        return
    version = find_label(metrics, "hubbub_build_info", "version")
    if version != __version__:
        text = f"the running hub has the version {version}, and this command has {__version__}"
        yield Finding("wrong", text, "restart the hub")
    else:
        yield Finding(
            "ok", f"a hub runs on this data folder, with {find_value(metrics, 'hubbub_connections'):g} clients"
        )
    yield from compare_descriptors(settings, find_value(metrics, "process_max_fds", -1), "the running hub may open")
    yield from _check_untrusted_proxies(settings, find_value(metrics, "hubbub_untrusted_proxy_requests_total"))
    lag = find_value(metrics, "hubbub_loop_lag_worst_seconds")
    if lag > LONG_LAG_SECONDS:
        text = f"something blocked the event loop of the running hub for {lag:.1f} s"
        yield Finding("advice", text, "look for `the event loop is blocked` in its output: the line names the agent")


def _check_untrusted_proxies(settings: Settings, count: float) -> Iterator[Finding]:
    """Check whether requests came through a proxy that the settings do not name. Its address is not known here."""
    if not count:
        return
    if not settings.is_sign_in_on:
        text = f"{count:g} requests came through a proxy, and were refused, because sign-in is off"
        yield Finding("wrong", text, "sign_in = true")
    elif not settings.trusted_proxies:
        text = f"{count:g} requests came through a proxy, but trusted_proxies is empty: its clients share one address"
        # Everyone who reaches the hub itself can send the headers of a proxy.
        level: Level = "wrong" if is_loopback(settings.host) else "advice"
        yield Finding(level, text, 'trusted_proxies = ["ADDRESS"]: hubbub doctor --url URL names the address')


def _call(settings: Settings, use_case: Callable[[Hub], Awaitable[Any]]) -> Any:
    """Return the result of a use case on a hub that is not started."""

    async def call() -> Any:
        return await use_case(open_hub(settings))

    return asyncio.run(call())
