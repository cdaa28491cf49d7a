"""The command `hubbub doctor`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from hub.cli.doctor.findings import Finding, print_findings
from hub.cli.sources import load_sources
from hub.setting_sources import LoadedSettings
from hub.settings import ConfigError


@click.command("doctor")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="The data folder of the hub (data).")
@click.option("--agents", type=click.Path(path_type=Path), metavar="DIR", help="The folder of agent files (agents).")
@click.option("--log", metavar="URL", help="The log, as sqlite:///PATH (hub.db in the data folder).")
@click.option("--url", metavar="URL", help="Also send requests to this public address, through the proxy.")
def run_doctor(url: str | None, **flags: Any) -> None:
    """Name what is unsafe, missing or misconfigured, each with the line that mends it.

    Exit with code 1 if something must be mended. Run it on the machine of the hub, with the account of the hub.
    """
    try:
        loaded_settings = load_sources(flags)
    except ConfigError as error:
        problems = print_findings([Finding("wrong", str(error))])
    else:
        problems = print_findings(_examine(loaded_settings, url))
    click.echo(f"{problems} to mend" if problems else "nothing must be mended")
    sys.exit(1 if problems else 0)


def _examine(loaded_settings: LoadedSettings, url: str | None) -> Iterator[Finding]:
    from hub.access.doors import make_base_url
    from hub.cli.doctor.folder_checks import check_data_folder  # here, so that --help does not load the hub
    from hub.cli.doctor.hub_checks import check_agents, check_log, check_running_hub
    from hub.cli.doctor.machine import check_machine
    from hub.cli.doctor.setting_checks import check_settings
    from hub.observe.logging import log_to_stderr

    settings = loaded_settings.settings
    log_to_stderr("error", settings.log_format)
    yield from check_machine(settings)
    yield from check_settings(loaded_settings)
    yield from check_data_folder(settings)
    yield from check_agents(settings)
    yield from check_log(settings)
    yield from check_running_hub(settings)
    if url is not None:
        from hub.cli.doctor.proxy_checks import check_proxy

        yield from check_proxy(settings, url)
    elif settings.public_url is not None:
        yield Finding("ok", "the way through the proxy was not tried", f"hubbub doctor --url {make_base_url(settings)}")
