"""Load the settings from a file, the environment (HUBBUB_*), .env and flags, and record where each value came from."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import attrs
import msgspec

from hub.limits import Limits
from hub.settings import (
    KEY_VARIABLE,
    URL_VARIABLE,
    BaseAddress,
    ConfigError,
    HostList,
    NetworkList,
    OriginList,
    Settings,
)
from hub.text import suggest_name

SETTINGS_FILE = "hubbub.toml"
ENV_FILE = ".env"
CONFIG_VARIABLE = "HUBBUB_CONFIG"  # the settings file, if it is not hubbub.toml in the current folder
ENVIRONMENT_PREFIX = "HUBBUB_"
LIMIT_ENVIRONMENT_PREFIX = "HUBBUB_LIMITS_"
OTHER_VARIABLES = (URL_VARIABLE, KEY_VARIABLE, CONFIG_VARIABLE)  # they are no settings
# Without None, which no source can set.
SETTING_TYPES: dict[str, Any] = {
    field.name: get_args(field.type)[0] if NoneType in get_args(field.type) else field.type
    for field in attrs.fields(Settings)
    if field.name != "limits"
}
LIMIT_TYPES: dict[str, Any] = {field.name: field.type for field in attrs.fields(Limits)}
TABLES = {"hubbub": SETTING_TYPES, "limits": LIMIT_TYPES}
LIST_TYPES = (OriginList, HostList, NetworkList)
# Settings of earlier versions, with what to do instead.
GONE_SETTINGS = {
    "open_to_network": "a hub that is open to the network needs sign-in: set sign_in = true instead, and hosts = [...] "
    "to the host names of the hub"
}
# Kubernetes gives each container variables about the services of its namespace. For a service with the name `hubbub`,
# or one that begins with `hubbub-`, they begin like settings.
SERVICE_VARIABLE = re.compile(
    r"HUBBUB_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
SERVICE_PORT_VARIABLE = re.compile(r"HUBBUB_(\w+_)?PORT")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://[^/\s]+:\d+")

VariableKind = Literal[".env", "environment"]


@attrs.frozen
class SettingOrigin:
    """The source of a value: its kind, and the name of the file, the variable or the flag."""

    kind: Literal["default", "file", "environment", ".env", "flag"] = "default"
    name: str = ""


@attrs.frozen(kw_only=True)
class LoadedSettings:
    """The settings, and where they came from.

    *origins* has each value that a source has set, by its table in the file and its name. *service_variables* are the
    variables of Kubernetes' services that look like settings, and are none.
    """

    settings: Settings
    origins: Mapping[tuple[str, str], SettingOrigin]
    service_variables: tuple[str, ...]

    def get_origin(self, table: str, name: str) -> SettingOrigin:
        return self.origins.get((table, name), SettingOrigin())


@attrs.frozen(kw_only=True)
class SettingSources:
    """The sources of the settings. A later one overrides an earlier one: the file, .env, the environment, flags.

    The file is *file*, else the one that HUBBUB_CONFIG names, else hubbub.toml, which alone may be missing. A relative
    path of the file starts at *folder*. *flags* has the names of settings, and `limit`, a sequence of NAME=VALUE; a
    flag that is None is unset.
    """

    flags: Mapping[str, Any] = {}
    environ: Mapping[str, str] = {}
    env_file: Mapping[str, str] = {}  # the variables of .env
    file: Path | None = None
    folder: Path = Path()

    def load(self) -> LoadedSettings:
        """Return the settings, in which relative paths start at the current folder, wherever the file is.

        Raises ConfigError if the file cannot be read, and for an unknown name or a wrong value, even if another source
        overrides the value.
        """
        variables: list[tuple[str, str, VariableKind]] = [
            *((name, text, ".env") for name, text in self.env_file.items() if name not in self.environ),
            *((name, text, "environment") for name, text in self.environ.items()),
        ]
        service_variables = tuple(sorted(name for name, text, _ in variables if _is_service_variable(name, text)))
        values: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
        origins = {}
        for entry in (
            *self._read_file(),
            *_read_environment(variables, service_variables),
            *_read_flags(self.flags),
        ):
            values[entry.table][entry.name] = entry.value
            origins[entry.table, entry.name] = entry.origin
        settings = Settings(**values["hubbub"], limits=Limits(**values["limits"]))
        return LoadedSettings(settings=settings, origins=origins, service_variables=service_variables)

    def _read_file(self) -> "Iterator[_Entry]":
        variable = self.environ.get(CONFIG_VARIABLE, self.env_file.get(CONFIG_VARIABLE))
        file = self.file if self.file is not None or variable is None else Path(variable)
        return _read_file(
            self.folder / (file or SETTINGS_FILE), str(file or SETTINGS_FILE), may_be_missing=file is None
        )


@attrs.frozen
class _Entry:
    """One value from a source. *table* is the name of its table in the settings file."""

    table: str
    name: str
    value: Any
    origin: SettingOrigin


def load_settings(flags: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Settings:
    """Return the settings of the flags, the environment, and the settings file. See SettingSources."""
    return SettingSources(flags=flags, environ=environ, folder=folder).load().settings


# --- the file ---------------------------------------------------------------------------------------------------------


def _read_file(path: Path, label: str, may_be_missing: bool) -> Iterator[_Entry]:
    """Yield the values of a settings file. Errors name it *label*."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # ValueError: not TOML, or not UTF-8
        if isinstance(error, FileNotFoundError) and may_be_missing:
            return
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{label} cannot be read: {reason}") from None
    for table, entries in document.items():
        if table not in TABLES:
            raise ConfigError(
                f"{label}: {table!r} is outside of [hubbub] and [limits]: put settings into the first, limits into the "
                f"second{suggest_name(table, list(TABLES)) if isinstance(entries, dict) else ''}"
            )
        if not isinstance(entries, dict):
            raise ConfigError(
                f"{label}: {table} is not a table: write [{table}] on a line of its own, with its values below"
            )
        for name, value in entries.items():
            yield _Entry(table, name, _check_entry(label, table, name, value), SettingOrigin("file", label))


def _check_entry(label: str, table: str, name: str, value: Any) -> Any:
    """Return a value of the settings file, converted to the type of its setting or limit; raises ConfigError."""
    if table == "hubbub" and name in LIMIT_TYPES:
        raise ConfigError(f"{label}: {name} is a limit: move it to [limits]")
    location = f"{label}: {name if table == 'hubbub' else f'{table}.{name}'}"
    _refuse_gone_setting(location, name)
    if name not in TABLES[table]:
        kind = "setting" if table == "hubbub" else "limit"
        raise ConfigError(f"{label}: unknown {kind} {name!r}{suggest_name(name, list(TABLES[table]))}")
    return _convert(location, TABLES[table][name], value, is_text=False)


def _refuse_gone_setting(location: str, name: str) -> None:
    if name in GONE_SETTINGS:
        raise ConfigError(f"{location} is gone: {GONE_SETTINGS[name]}")


# --- the environment and .env -----------------------------------------------------------------------------------------


def _read_environment(
    variables: Collection[tuple[str, str, VariableKind]], service_variables: Collection[str]
) -> Iterator[_Entry]:
    """Yield the values of variables, given as name, text and kind of source."""
    names = {f"{ENVIRONMENT_PREFIX}{name.upper()}": ("hubbub", name) for name in SETTING_TYPES}
    limits = {f"{LIMIT_ENVIRONMENT_PREFIX}{name.upper()}": ("limits", name) for name in LIMIT_TYPES}
    for variable, text, kind in variables:
        if (
            not variable.startswith(ENVIRONMENT_PREFIX)
            or variable.startswith(f"{ENVIRONMENT_PREFIX}TEST_")
            or variable in (*OTHER_VARIABLES, *service_variables)
        ):
            continue
        location = f"{variable} in {'the environment' if kind == 'environment' else kind}"
        _refuse_gone_setting(location, variable.removeprefix(ENVIRONMENT_PREFIX).lower())
        if variable not in names | limits:
            similar = limits if variable.startswith(LIMIT_ENVIRONMENT_PREFIX) else names
            raise ConfigError(f"unknown variable {location}{suggest_name(variable.upper(), list(similar))}")
        table, name = (names | limits)[variable]
        yield _Entry(table, name, _convert_text(location, TABLES[table][name], text), SettingOrigin(kind, variable))


def _is_service_variable(name: str, text: str) -> bool:
    """Return whether a variable comes from a service of Kubernetes. HUBBUB_PORT may be one, or a setting."""
    if SERVICE_VARIABLE.fullmatch(name):
        return True
    return SERVICE_PORT_VARIABLE.fullmatch(name) is not None and SERVICE_ADDRESS.fullmatch(text) is not None


# --- flags ------------------------------------------------------------------------------------------------------------


def flag_name(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def _read_flags(flags: Mapping[str, Any]) -> Iterator[_Entry]:
    for name, value in flags.items():
        if name == "limit":
            yield from map(_read_limit_flag, value or ())
        elif value is not None:
            flag = flag_name(name)
            yield _Entry("hubbub", name, _convert_text(flag, SETTING_TYPES[name], value), SettingOrigin("flag", flag))


def _read_limit_flag(text: str) -> _Entry:
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError("--limit must be NAME=VALUE, such as --limit queued_runs=5")
    if name not in LIMIT_TYPES:
        raise ConfigError(f"--limit: unknown limit {name!r}{suggest_name(name, list(LIMIT_TYPES))}")
    value = _convert_text(f"--limit {name}", LIMIT_TYPES[name], value)
    return _Entry("limits", name, value, SettingOrigin("flag", "--limit"))


# --- values -----------------------------------------------------------------------------------------------------------


def _convert_text(location: str, kind: Any, value: Any) -> Any:
    """Convert a value of the environment or a flag. Commas separate the items of a list."""
    if kind in LIST_TYPES and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return _convert(location, kind, value, is_text=True)


def _convert(location: str, kind: Any, value: Any, is_text: bool) -> Any:
    """Convert *value* to the type *kind* of its setting; raises ConfigError.

    If *is_text*, text such as "8080" or "true" is converted too.
    """
    try:
        result = msgspec.convert(value, kind, strict=not is_text, dec_hook=_convert_path)
        _check_addresses(kind, result)
        return result
    except ValueError:  # msgspec.ValidationError is one
        raise ConfigError(f"{location} must be {_describe_type(kind)}") from None


def _check_addresses(kind: Any, value: Any) -> None:
    """Raise ValueError if a value of a NetworkList or a BaseAddress has a malformed address."""
    if kind is NetworkList:
        for text in value:
            ip_network(text)
    elif kind is BaseAddress:
        url = urlsplit(value)
        if not url.hostname or url.port == 0:  # `port` raises ValueError if it is not a number up to 65535
            raise ValueError("no host, or no port")


def _convert_path(kind: type[Any], value: Any) -> Any:
    if kind is Path and value and isinstance(value, (str, Path)):
        return Path(value)
    raise ValueError("not a path")


def _describe_type(kind: Any) -> str:
    return str(kind.__metadata__[0].description)
