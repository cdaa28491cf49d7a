"""The sources of the settings of a command, and the option --config of all commands."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from hub.cli.env_file import read_env_file
from hub.setting_sources import LoadedSettings, SettingSources

CONFIG_KEY = "hub.config"  # of the option --config in the `meta` of a click context


def _store_config(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[CONFIG_KEY] = value


config_option = click.Option(
    ["--config"],
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The settings file (hubbub.toml).",
    expose_value=False,
    is_eager=True,  # the callbacks of other options load the settings
    callback=_store_config,
)


@attrs.define
class CommandSources:
    """The sources of the settings of this process.

    *environ* is the environment without .env. *env_file* has the variables of .env that were added to os.environ.
    """

    environ: Mapping[str, str]
    folder: Path
    env_file: Mapping[str, str] = {}

    def load(self, flags: Mapping[str, Any], file: Path | None) -> LoadedSettings:
        """Return the settings. Raises ConfigError."""
        return self._load(flags, file, self.env_file)

    def reload(self, flags: Mapping[str, Any], file: Path | None) -> LoadedSettings:
        """Read .env again too, and change os.environ accordingly. Raises ConfigError, and changes nothing then."""
        env_file = read_env_file(self.folder)
        loaded_settings = self._load(flags, file, env_file)
        self.use_env_file(env_file)
        return loaded_settings

    def use_env_file(self, variables: Mapping[str, str]) -> None:
        """Put the variables of .env into os.environ, in the place of those of its last version."""
        for name in self.env_file.keys() - variables.keys() - self.environ.keys():
            os.environ.pop(name, None)
        os.environ.update({name: text for name, text in variables.items() if name not in self.environ})
        self.env_file = variables

    def _load(self, flags: Mapping[str, Any], file: Path | None, env_file: Mapping[str, str]) -> LoadedSettings:
        sources = SettingSources(flags=flags, environ=self.environ, env_file=env_file, file=file, folder=self.folder)
        return sources.load()


def open_sources() -> CommandSources:
    """Read .env, and put its variables into os.environ. Raises ConfigError."""
    sources = CommandSources(environ=dict(os.environ), folder=Path().absolute())
    sources.use_env_file(read_env_file(sources.folder))
    return sources


def load_sources(flags: Mapping[str, Any]) -> LoadedSettings:
    """Return the settings of the running command, with their origins. Raises ConfigError."""
    context = click.get_current_context()
    sources: CommandSources = context.obj
    return sources.load(flags, context.meta.get(CONFIG_KEY))
