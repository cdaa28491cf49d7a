"""The errors of the command line: each is one line, and an exit code."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import click

from hub.cli.sources import CONFIG_KEY, CommandSources, load_sources
from hub.setting_sources import LoadedSettings
from hub.settings import ConfigError, Settings


class CommandFailed(Exception):
    """A command failed: the message is one line for the user, and names the remedy."""


def load_settings_or_exit(flags: Mapping[str, Any]) -> Settings:
    """Return the settings of the running command. If they are wrong, exit with code 2."""
    return load_or_exit(flags).settings


def load_or_exit(flags: Mapping[str, Any]) -> LoadedSettings:
    """Return the settings of the running command, with their origins. If they are wrong, exit with code 2."""
    try:
        return load_sources(flags)
    except ConfigError as error:
        exit_with(error)


def make_reloader(flags: Mapping[str, Any]) -> Callable[[], LoadedSettings]:
    """Return a function that reads the settings of the running command again. It raises ConfigError."""
    context = click.get_current_context()
    sources: CommandSources = context.obj
    return partial(sources.reload, flags, context.meta.get(CONFIG_KEY))


def exit_with(error: Exception, code: int = 2) -> NoReturn:
    """Print the error as one line, and exit."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # str(error) begins with the error number
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    click.echo(f"hubbub: {' '.join(text.split())}", err=True)
    sys.exit(code)
