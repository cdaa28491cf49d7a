"""What the commands of the operator share: their options, their calls, and their notes."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from hub.cli.failures import CommandFailed, exit_with, load_or_exit
from hub.cli.text import to_printable
from hub.setting_sources import SETTINGS_FILE
from hub.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

SIGN_IN_OFF = "sign-in is off, so the hub asks nobody for this: set sign_in = true in hubbub.toml, and restart the hub"

data_option = click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="The data folder of the hub (data)."
)
log_option = click.option("--log", metavar="URL", help="The log, as sqlite:///PATH (hub.db in the data folder).")


def folder_options(function: F) -> F:
    """Add the options that name the hub."""
    return data_option(log_option(function))


def load_hub_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings for a command that may make the data folder.

    Exit with code 1 if nothing names the data folder and the current folder has nothing of a hub, or with 2 if
    the settings are wrong.
    """
    loaded_settings = load_or_exit(flags)
    settings, folder = loaded_settings.settings, Path.cwd()
    has_name = loaded_settings.get_origin("hubbub", "data").kind != "default"
    if not has_name and not any(path.exists() for path in (settings.data, settings.agents, Path(SETTINGS_FILE))):
        text = f"no hub is in {folder}: it has no {settings.data}, no {settings.agents} and no {SETTINGS_FILE}"
        exit_with(CommandFailed(f"{text}. Go to the folder of the hub, or name its data folder with --data"), 1)
    return settings


def call_command(settings: Settings, command: str, /, **fields: Any) -> Any:
    """Return the result of a command. Credentials that the hub does not ask for get a line."""
    from hub.cli.control import call_operator  # here, so that --help does not load the hub

    answer = call_operator(settings, command, **fields)
    if command in ("create_key", "invite_person") and not answer.isSignInOn:
        print_note(SIGN_IN_OFF)
    return answer.result


def print_note(text: str) -> None:
    """Write a line for people: standard output has only the result."""
    click.echo(to_printable(text), err=True)


def format_time(ms: int, zero: str = "-") -> str:
    """Return a time in the time zone of this machine, or *zero* for 0."""
    return datetime.fromtimestamp(ms / 1000).isoformat(" ", "minutes") if ms else zero
