"""Load the settings from hubbub.toml, the environment (HUBBUB_*) and flags."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import attrs
import msgspec

from hub.limits import Limits

# The types of settings, which msgspec checks; error texts use the descriptions.
NonEmptyText = Annotated[str, msgspec.Meta(min_length=1, description="a text that is not empty")]
TextList = Annotated[tuple[NonEmptyText, ...], msgspec.Meta(description="a list of texts")]
Folder = Annotated[Path, msgspec.Meta(description="the path of a folder")]
Switch = Annotated[bool, msgspec.Meta(description="true or false")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e6, description="a number from 0 to 1000000")]
Megabytes = Annotated[int, msgspec.Meta(ge=0, le=2**40, description="a whole number, 0 or more")]


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a hub, such as its address, the agents folder and the data folder."""

    host: NonEmptyText = "localhost"
    port: Port = 9527  # 0: any free port
    agents: Folder = Path("agents")
    data: Folder = Path("data")
    cache: Folder | None = None  # None: see cache_folder
    log: NonEmptyText | None = None  # None: see log_url
    frames_per_second: Amount = 60.0  # the maximum of flushes of a session per second; 0: no limit
    retention_days: Amount = 7.0
    retention_mb: Megabytes = 1024
    origins: TextList = ()
    hosts: TextList = ()
    open_to_network: Switch = False
    direct_writes: Switch = True  # write frames directly to sockets, see hub/delivery/transport.py
    reload: Switch = False
    limits: Limits = Limits()

    @property
    def log_url(self) -> str:
        """The URL of the log. The default is the SQLite file `hub.db` in the data folder."""
        return self.log or f"sqlite:///{self.data / 'hub.db'}"

    @property
    def cache_folder(self) -> Path:
        """The folder for large files that can be downloaded again.

        By default, all hubs of an account share one folder. For an account without a home folder, the default is in the
        data folder.
        """
        if self.cache is not None:
            return self.cache
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if base.is_absolute():  # the XDG Base Directory Specification ignores relative paths
            return base / "hubbub"
        try:
            return Path.home() / ".cache" / "hubbub"
        except RuntimeError:  # an account without a home folder, as in some containers
            return self.data / "cache"


class ConfigError(Exception):
    """A setting is wrong; the message is one line that names the setting and its source, and says what to do."""


SETTINGS_FILE = "hubbub.toml"
ENVIRONMENT_PREFIX = "HUBBUB_"
LIMIT_ENVIRONMENT_PREFIX = "HUBBUB_LIMITS_"
CLIENT_VARIABLES = ("HUBBUB_URL",)  # variables of the terminal client, not settings
SETTING_TYPES: dict[str, Any] = {field.name: field.type for field in attrs.fields(Settings) if field.name != "limits"}
SETTING_TYPES |= {"cache": Folder, "log": NonEmptyText}  # without None, which no source can set
LIMIT_TYPES: dict[str, Any] = {field.name: field.type for field in attrs.fields(Limits)}
TABLES = {"hubbub": SETTING_TYPES, "limits": LIMIT_TYPES}

# One value from a source: the name of its table in hubbub.toml, its name, and the value.
Entry = tuple[str, str, Any]


def load_settings(flags: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Settings:
    """Return the settings: *flags* override HUBBUB_* of *environ*, and HUBBUB_* override hubbub.toml in *folder*.

    A flag that is None is unset. Relative paths of all sources start at the current folder. Raises ConfigError if
    hubbub.toml cannot be read, and for an unknown name or a wrong value, even if another source overrides the value.
    """
    values: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    for table, name, value in (*_from_file(folder / SETTINGS_FILE), *_from_environment(environ), *_from_flags(flags)):
        values[table][name] = value
    return Settings(**values["hubbub"], limits=Limits(**values["limits"]))


def _from_file(path: Path) -> Iterator[Entry]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: not TOML, or not UTF-8
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{SETTINGS_FILE} cannot be read: {reason}") from None
    for table, entries in document.items():
        if table not in TABLES:
            raise ConfigError(
                f"{SETTINGS_FILE}: {table!r} is outside of [hubbub] and [limits]: put settings into the first, "
                f"limits into the second{suggest_name(table, list(TABLES)) if isinstance(entries, dict) else ''}"
            )
        if not isinstance(entries, dict):
            raise ConfigError(
                f"{SETTINGS_FILE}: {table} is not a table: write [{table}] on a line of its own, with its values below"
            )
        for name, value in entries.items():
            yield table, name, _check_entry(f"{SETTINGS_FILE}: {_dotted_name(table, name)}", table, name, value)


def _dotted_name(table: str, name: str) -> str:
    return name if table == "hubbub" else f"{table}.{name}"


def _check_entry(location: str, table: str, name: str, value: Any) -> Any:
    """Return a value of hubbub.toml, converted to the type of its setting or limit; raises ConfigError."""
    if table == "hubbub" and name in LIMIT_TYPES:
        raise ConfigError(f"{SETTINGS_FILE}: {name} is a limit: move it to [limits]")
    if name not in TABLES[table]:
        kind = "setting" if table == "hubbub" else "limit"
        raise ConfigError(f"{SETTINGS_FILE}: unknown {kind} {name!r}{suggest_name(name, list(TABLES[table]))}")
    return _convert(location, TABLES[table][name], value, is_text=False)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Entry]:
    variables = {f"{ENVIRONMENT_PREFIX}{name.upper()}": ("hubbub", name) for name in SETTING_TYPES}
    limits = {f"{LIMIT_ENVIRONMENT_PREFIX}{name.upper()}": ("limits", name) for name in LIMIT_TYPES}
    for variable, text in environ.items():
        if (
            not variable.startswith(ENVIRONMENT_PREFIX)
            or variable.startswith(f"{ENVIRONMENT_PREFIX}TEST_")
            or variable in CLIENT_VARIABLES
        ):
            continue
        if variable not in variables | limits:
            names = limits if variable.startswith(LIMIT_ENVIRONMENT_PREFIX) else variables
            raise ConfigError(
                f"unknown variable {variable} in the environment{suggest_name(variable.upper(), list(names))}"
            )
        table, name = (variables | limits)[variable]
        kind = TABLES[table][name]
        value = _split_list(text) if kind is TextList else text
        yield table, name, _convert(f"{variable} in the environment", kind, value, is_text=True)


def _from_flags(flags: Mapping[str, Any]) -> Iterator[Entry]:
    for name, value in flags.items():
        if value is not None:
            yield "hubbub", name, _convert(f"--{name}", SETTING_TYPES[name], value, is_text=True)


def _split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _convert(location: str, kind: Any, value: Any, is_text: bool) -> Any:
    """Convert *value* to the type *kind* of its setting; raises ConfigError.

    If *is_text*, text such as "8080" or "true" is converted too.
    """
    try:
        return msgspec.convert(value, kind, strict=not is_text, dec_hook=_convert_path)
    except msgspec.ValidationError:
        raise ConfigError(f"{location} must be {_describe_type(kind)}") from None


def _convert_path(kind: type[Any], value: Any) -> Any:
    if kind is Path and value and isinstance(value, (str, Path)):
        return Path(value)
    raise ValueError("not a path")


def _describe_type(kind: Any) -> str:
    return str(kind.__metadata__[0].description)


def suggest_name(name: str, names: list[str]) -> str:
    """Return the end of an error text for an unknown name: a similar known name, or all known names."""
    matches = get_close_matches(name, names, n=1)
    return f": did you mean {matches[0]}?" if matches else f": use one of {', '.join(names)}"
