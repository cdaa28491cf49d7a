"""The command line: `hubbub serve`, `hubbub agents`, `hubbub check`, and the commands of hub.cli.remote."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from dotenv import load_dotenv
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hub import __version__
from hub.cli.remote import COMMANDS
from hub.cli.requirements import FILE, missing
from hub.cli.text import safe
from hub.observe.logging import log_to_stderr
from hub.settings import ConfigError, Settings, load
from hub.storage.log import LogUnusable

if TYPE_CHECKING:
    from hub.commands.agents import AgentReport

# What a flag says it takes is checked by load(), with the same words as in the file and in the environment.
FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, package_name="hubbub", prog_name="hubbub", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """A hub for AI agents. Settings also come from hubbub.toml, from HUBBUB_* variables, and from those of .env."""
    load_dotenv(Path(".env"))  # what the environment has already wins
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.option("--host", help="Where to listen (localhost).")
@click.option("--port", help="On which port (9527); 0 for any that is free.")
@click.option("--agents", type=FOLDER, metavar="DIR", help="The folder of agent files (agents).")
@click.option("--data", type=FOLDER, metavar="DIR", help="The folder of what is kept (data).")
@click.option("--log", metavar="URL", help="The log, as sqlite:///PATH (hub.db in the data folder).")
@click.option("--reload", is_flag=True, default=None, help="Load agent files again when they change.")
def serve(**flags: Any) -> None:
    """Run the hub until Ctrl-C."""
    settings = _settings(flags)
    from hub.web.server import run_hub  # aiohttp and all agents' machinery: not for --help

    try:
        code = run_hub(settings, click.echo)
    except (ConfigError, LogUnusable, OSError) as error:
        _refuse(error)
    sys.exit(code)


@cli.command()
@click.option("--agents", type=FOLDER, metavar="DIR", help="The folder of agent files (agents).")
@click.option("--data", type=FOLDER, metavar="DIR", help="The folder of what is kept (data).")
def agents(**flags: Any) -> None:
    """Tell which agents are hosted, and which are broken and why; exit with code 1 if one is broken."""
    reports: Sequence[AgentReport] = _ask_offline("inspect_agents", flags)
    _show(reports)
    file = _settings(flags).agents / FILE
    if lines := missing(file):
        click.echo(safe(f"{file}: missing: {', '.join(lines)}; install them with: pip install -r {file}"), err=True)
    sys.exit(1 if any(report.error for report in reports) else 0)


@cli.command()
@click.option("--data", type=FOLDER, metavar="DIR", help="The folder of what is kept (data).")
@click.option("--log", metavar="URL", help="The log, as sqlite:///PATH (hub.db in the data folder).")
def check(**flags: Any) -> None:
    """Tell what is damaged in the data folder; a hub may be running on it."""
    lines: Sequence[str] = _ask_offline("check_data", flags)
    for line in lines or ("nothing is damaged",):
        click.echo(safe(line))
    sys.exit(1 if lines else 0)


for command in COMMANDS:
    cli.add_command(command)


def _settings(flags: dict[str, Any]) -> Settings:
    try:
        return load(flags, os.environ, Path())
    except ConfigError as error:
        _refuse(error)


def _ask_offline(use_case: str, flags: dict[str, Any]) -> Any:
    """Return what a row of hub.commands.table answers for a hub that is not started."""
    settings = _settings(flags)
    log_to_stderr()
    from hub.access.principal import OPERATOR
    from hub.commands import table as commands
    from hub.commands.hub import open_hub

    async def answer() -> Any:
        return await commands.USE_CASES[use_case](open_hub(settings), OPERATOR)

    try:
        return asyncio.run(answer())
    except (LogUnusable, OSError) as error:
        _refuse(error)


def _show(agents: "Sequence[AgentReport]") -> None:
    """Print a table; what agent files say of themselves is text, never markup."""
    table = Table("agent", "state", "description")
    for agent in agents:
        table.add_row(Text(agent.agentId), "broken" if agent.error else "ok", Text(agent.error or agent.description))
    console = Console()
    console.print(table if agents else "no agents here yet")


def _refuse(error: Exception) -> NoReturn:
    """End with the error as one line, and exit code 2."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror:  # without the number
        said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    line = " ".join(said.split())
    click.echo(f"hubbub: {line}", err=True)
    sys.exit(2)
