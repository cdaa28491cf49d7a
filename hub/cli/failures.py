"""The errors of the command line: each is one line, and an exit code."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from hub.settings import ConfigError, Settings, load_settings


class CommandFailed(Exception):
    """A command failed: the message is one line for the user, and names the remedy."""


def load_settings_or_exit(flags: Mapping[str, Any]) -> Settings:
    """Return the settings of the current folder. If they are wrong, exit with code 2."""
    try:
        return load_settings(flags, os.environ, Path())
    except ConfigError as error:
        exit_with(error)


def exit_with(error: Exception, code: int = 2) -> NoReturn:
    """Print the error as one line, and exit."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # str(error) begins with the error number
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    click.echo(f"hubbub: {' '.join(text.split())}", err=True)
    sys.exit(code)
