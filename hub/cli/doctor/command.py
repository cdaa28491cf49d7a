"""The command `hubbub doctor`."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import attrs
import click

from hub.cli.calling import folder_options
from hub.cli.doctor.findings import Finding, count_problems, print_findings
from hub.cli.failures import CommandFailed
from hub.cli.sources import load_sources
from hub.cli.text import to_printable_json
from hub.setting_sources import LoadedSettings
from hub.settings import ConfigError
from hub.storage.log import LogUnusable

Check = Callable[[], Iterable[Finding]]


@click.command("doctor")
@folder_options
@click.option("--agents", type=click.Path(), metavar="DIR", help="The folder of agent files (agents).")
@click.option("--url", metavar="URL", help="Also send requests to this public address, through the proxy.")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON object instead of lines.")
def run_doctor(url: str | None, is_json: bool, **flags: Any) -> None:
    """Name what is unsafe, missing or misconfigured, each with the line that fixes it.

    Exit with code 1 if something is wrong. Run it on the machine of the hub, with the account of the hub.
    """
    if is_json:
        with redirect_stdout(sys.stderr):  # agents may print when they are loaded
            findings = list(_examine(flags, url))
        problems = count_problems(findings)
        click.echo(to_printable_json({"problems": problems, "findings": [attrs.asdict(entry) for entry in findings]}))
    else:
        problems = print_findings(_examine(flags, url))
        click.echo(f"{problems} to fix" if problems else "nothing to fix")
    sys.exit(1 if problems else 0)


def _examine(flags: dict[str, Any], url: str | None) -> Iterator[Finding]:
    """Yield the findings of all checks. Report an error that ends several checks, such as a missing file, once."""
    try:
        loaded_settings = load_sources(flags)
    except ConfigError as error:
        yield Finding("wrong", str(error))
        return
    failures = set()
    for check in _list_checks(loaded_settings, url):
        try:
            yield from check()
        except (OSError, LogUnusable, CommandFailed) as error:
            failure = _describe_failure(error)
            if failure not in failures:
                yield failure
            failures.add(failure)


def _describe_failure(error: Exception) -> Finding:
    if isinstance(error, PermissionError):
        text = f"{error.filename} cannot be used by this account"
        return Finding("wrong", text, "sudo -u ACCOUNT hubbub doctor, with the account of the hub")
    if isinstance(error, OSError):
        return Finding("wrong", f"{error.filename or 'the system'}: {error.strerror}")
    return Finding("wrong", str(error))


def _list_checks(loaded_settings: LoadedSettings, url: str | None) -> Iterator[Check]:
    from hub.access.doors import make_base_url  # here, so that --help does not load the hub
    from hub.cli.doctor.certificate_checks import check_certificate, check_public_certificate
    from hub.cli.doctor.folder_checks import check_agents_folder, check_data_folder
    from hub.cli.doctor.hub_checks import check_agents, check_log, check_running_hub, check_start
    from hub.cli.doctor.machine import check_machine
    from hub.cli.doctor.setting_checks import check_settings
    from hub.observe.logging import log_to_stderr

    settings = loaded_settings.settings
    log_to_stderr("error", settings.log_format)
    yield partial(check_settings, loaded_settings)
    folder_checks = (check_data_folder, check_agents_folder, check_certificate)
    yield check_machine
    for check in (check_start, *folder_checks, check_agents, check_log, check_running_hub):
        yield partial(check, settings)
    if url is not None:
        from hub.cli.doctor.echo_client import parse_address
        from hub.cli.doctor.proxy_checks import check_proxy

        yield lambda: check_proxy(settings, parse_address(url))
        yield lambda: check_public_certificate(parse_address(url))
    elif settings.public_url is not None:
        remedy = f"hubbub doctor --url {make_base_url(settings)}"
        yield lambda: [Finding("ok", "the way through the proxy was not tested", remedy)]
