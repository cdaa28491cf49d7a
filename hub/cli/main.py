"""The command line: `hubbub serve`, `agents` and `check`, and the commands of the other modules of this folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from hub import __version__
from hub.cli.backups import BACKUP_COMMANDS
from hub.cli.doctor.command import run_doctor
from hub.cli.exports import EXPORT_COMMANDS
from hub.cli.failures import exit_with, load_or_exit, load_settings_or_exit, make_reloader
from hub.cli.first_project import write_first_agents
from hub.cli.model import fetch_model
from hub.cli.offline import call_offline
from hub.cli.operator import OPERATOR_GROUPS
from hub.cli.oversight import OVERSIGHT_COMMANDS
from hub.cli.remote import REMOTE_COMMANDS
from hub.cli.requirements import REQUIREMENTS_FILE, find_missing_lines
from hub.cli.setting_options import SettingCommand, make_setting_options
from hub.cli.show_settings import print_settings
from hub.cli.sources import config_option, open_sources
from hub.cli.tables import TableColumn, print_table
from hub.cli.text import to_printable
from hub.cli.top.command import run_top
from hub.settings import ConfigError
from hub.storage.log import LogUnusable

if TYPE_CHECKING:
    from hub.commands.agents import AgentReport

log = structlog.get_logger()

# click checks nothing: hub.setting_sources checks flags, the settings file and the environment with the same errors.
FOLDER_TYPE = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, package_name="hubbub", prog_name="hubbub", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """A hub for AI agents. Settings come from flags, HUBBUB_* variables (also in .env), and hubbub.toml."""
    try:
        context.obj = open_sources()
    except ConfigError as error:
        exit_with(error)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command(cls=SettingCommand, params=make_setting_options())
def serve(**flags: Any) -> None:
    """Run the hub until Ctrl-C."""
    loaded_settings = load_or_exit(flags)
    from hub.web.server import run_hub  # here, so that --help does not load aiohttp

    announce = _log_banner_line if loaded_settings.settings.log_format == "json" else click.echo
    try:
        code = run_hub(loaded_settings, make_reloader(flags), announce)
    except (ConfigError, LogUnusable, OSError) as error:
        exit_with(error)
    sys.exit(code)


def _log_banner_line(line: str) -> None:
    """Write a line of the banner as a log line: each line of the output is then JSON."""
    log.info(" ".join(line.split()))


@cli.command()
@click.option("--agents", type=FOLDER_TYPE, metavar="DIR", help="The folder of agent files (agents).")
@click.option("--data", type=FOLDER_TYPE, metavar="DIR", help="The data folder (data).")
def agents(**flags: Any) -> None:
    """List the agents, and why an agent is broken; exit with code 1 if one is broken."""
    settings = load_settings_or_exit(flags)
    reports: Sequence[AgentReport] = call_offline(settings, "inspect_agents")
    _print_agents(reports)
    file = settings.agents / REQUIREMENTS_FILE
    if lines := find_missing_lines(file):
        click.echo(
            to_printable(f"{file}: missing: {', '.join(lines)}; install them with: pip install -r {file}"), err=True
        )
    sys.exit(1 if any(report.error for report in reports) else 0)


@cli.command("check")
@click.option("--data", type=FOLDER_TYPE, metavar="DIR", help="The data folder (data).")
@click.option("--log", metavar="URL", help="The log, as sqlite:///PATH (hub.db in the data folder).")
def run_check(**flags: Any) -> None:
    """Check the data folder for damage; a hub may be running on it."""
    lines: Sequence[str] = call_offline(load_settings_or_exit(flags), "check_data")
    for line in lines or ("nothing is damaged",):
        click.echo(to_printable(line))
    sys.exit(1 if lines else 0)


def _add_config_option(command: click.Command) -> None:
    """Add --config to a command and to the commands of a group. After a group's name, it would be one option more."""
    command.params.append(config_option)
    for member in command.commands.values() if isinstance(command, click.Group) else ():
        _add_config_option(member)


for command in (
    *(print_settings, write_first_agents, fetch_model, run_doctor, run_top),
    *(*REMOTE_COMMANDS, *EXPORT_COMMANDS, *OPERATOR_GROUPS, *OVERSIGHT_COMMANDS, *BACKUP_COMMANDS),
):
    cli.add_command(command)
_add_config_option(cli)


def _print_agents(agents: "Sequence[AgentReport]") -> None:
    columns = (TableColumn("agent", is_whole=True), TableColumn("state", is_whole=True), TableColumn("description"))
    rows = [(agent.agentId, "broken" if agent.error else "ok", agent.error or agent.description) for agent in agents]
    print_table(columns, rows, "no agents here yet")
