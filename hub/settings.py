"""Settings, from hubbub.toml, HUBBUB_* and flags."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import attrs
import msgspec

from hub.limits import Limits

# What a setting may be, for msgspec to check, and in words for who wrote something else.
NonEmptyText = Annotated[str, msgspec.Meta(min_length=1, description="a text that is not empty")]
TextList = Annotated[tuple[NonEmptyText, ...], msgspec.Meta(description="a list of texts")]
Folder = Annotated[Path, msgspec.Meta(description="the path of a folder")]
Switch = Annotated[bool, msgspec.Meta(description="true or false")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e6, description="a number from 0 to 1000000")]
Megabytes = Annotated[int, msgspec.Meta(ge=0, le=2**40, description="a whole number, 0 or more")]


@attrs.frozen(kw_only=True)
class Settings:
    """Where the hub listens, what it hosts, where it keeps its log."""

    host: NonEmptyText = "localhost"
    port: Port = 9527  # 0: any that is free
    agents: Folder = Path("agents")
    data: Folder = Path("data")
    cache: Folder | None = None  # see cache_folder
    log: NonEmptyText | None = None  # see log_url
    frames_per_second: Amount = 60.0  # how often a session is flushed at most; 0 takes the limit away
    retention_days: Amount = 7.0
    retention_mb: Megabytes = 1024
    origins: TextList = ()
    hosts: TextList = ()
    open_to_network: Switch = False
    direct_writes: Switch = True  # frames go to the sockets past their transports: see hub/delivery/transport.py
    reload: Switch = False
    limits: Limits = Limits()

    @property
    def log_url(self) -> str:
        """The URL of the log: three slashes before a relative path, four before an absolute one."""
        return self.log or f"sqlite:///{self.data / 'hub.db'}"

    @property
    def cache_folder(self) -> Path:
        """The folder of what is large and can be fetched again; without the setting, the account's, for all hubs."""
        if self.cache is not None:
            return self.cache
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if base.is_absolute():  # the XDG Base Directory Specification: others are ignored
            return base / "hubbub"
        try:
            return Path.home() / ".cache" / "hubbub"
        except RuntimeError:  # an account without a home, as in some containers
            return self.data / "cache"


class ConfigError(Exception):
    """The settings cannot be used; the message is one line that says which, where it stands, and what to do."""


SETTINGS_FILE = "hubbub.toml"
ENVIRONMENT_PREFIX = "HUBBUB_"
LIMIT_ENVIRONMENT_PREFIX = "HUBBUB_LIMITS_"
CLIENT_VARIABLES = ("HUBBUB_URL",)  # read by the commands that talk to a hub
SETTING_TYPES: dict[str, Any] = {field.name: field.type for field in attrs.fields(Settings) if field.name != "limits"}
SETTING_TYPES |= {"cache": Folder, "log": NonEmptyText}  # no source can say None, it can only be silent
LIMIT_TYPES: dict[str, Any] = {field.name: field.type for field in attrs.fields(Limits)}
TABLES = {"hubbub": SETTING_TYPES, "limits": LIMIT_TYPES}

# What one source says: a table of hubbub.toml, a name in it, and the value.
Entry = tuple[str, str, Any]


def load(flags: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Settings:
    """Return the settings: *flags* win over HUBBUB_* of *environ*, and these over the hubbub.toml in *folder*.

    A flag of None was not given. A relative path is meant from the current folder, whichever source names it.
    Raises ConfigError for what is unknown or mistyped, also where a stronger source has another value for it.
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
                f"{SETTINGS_FILE}: {table!r} stands outside of [hubbub] and [limits]: settings belong in the first, "
                f"limits in the second{suggest_name(table, list(TABLES)) if isinstance(entries, dict) else ''}"
            )
        if not isinstance(entries, dict):
            raise ConfigError(f"{SETTINGS_FILE}: {table} is not a table: write [{table}] on a line of its own")
        for name, value in entries.items():
            yield table, name, _checked(f"{SETTINGS_FILE}: {_dotted(table, name)}", table, name, value)


def _dotted(table: str, name: str) -> str:
    return name if table == "hubbub" else f"{table}.{name}"


def _checked(where: str, table: str, name: str, value: Any) -> Any:
    if table == "hubbub" and name in LIMIT_TYPES:
        raise ConfigError(f"{SETTINGS_FILE}: {name} is a limit: put it under [limits]")
    if name not in TABLES[table]:
        what = "setting" if table == "hubbub" else "limit"
        raise ConfigError(f"{SETTINGS_FILE}: unknown {what} {name!r}{suggest_name(name, list(TABLES[table]))}")
    return _convert(where, TABLES[table][name], value, False)


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
            known = limits if variable.startswith(LIMIT_ENVIRONMENT_PREFIX) else variables
            raise ConfigError(
                f"unknown variable {variable} in the environment{suggest_name(variable.upper(), list(known))}"
            )
        table, name = (variables | limits)[variable]
        kind = TABLES[table][name]
        value = _split(text) if kind is TextList else text
        yield table, name, _convert(f"{variable} in the environment", kind, value, True)


def _from_flags(flags: Mapping[str, Any]) -> Iterator[Entry]:
    for name, value in flags.items():
        if value is not None:
            yield "hubbub", name, _convert(f"--{name}", SETTING_TYPES[name], value, True)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _convert(where: str, kind: Any, value: Any, is_text: bool) -> Any:
    """Return *value* as the setting's type; where *is_text*, it may be text that spells it."""
    try:
        return msgspec.convert(value, kind, strict=not is_text, dec_hook=_path)
    except msgspec.ValidationError:
        raise ConfigError(f"{where} must be {_words(kind)}") from None


def _path(kind: type[Any], value: Any) -> Any:
    if kind is Path and value and isinstance(value, (str, Path)):
        return Path(value)
    raise ValueError("not a path")


def _words(kind: Any) -> str:
    return str(kind.__metadata__[0].description)


def suggest_name(name: str, known: list[str]) -> str:
    """Return how to go on after "unknown NAME": with the name that was meant, or all there are."""
    close = get_close_matches(name, known, n=1)
    return f": did you mean {close[0]}?" if close else f": there are {', '.join(known)}"
