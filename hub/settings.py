"""Load the settings from hubbub.toml, the environment (HUBBUB_*) and flags."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import attrs
import msgspec

from hub.limits import Limits

# The types of settings, which msgspec checks; error texts use the descriptions.
NonEmptyText = Annotated[str, msgspec.Meta(min_length=1, description="a text that is not empty")]
# An origin as browsers write it: in lower case, without a path and without the default port.
Origin = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A(null|(?!https://.*:443\Z|http://.*:80\Z)[a-z][a-z0-9+.-]*://[^/?#@\\\sA-Z]+)\Z",
        description="an origin",
    ),
]
OriginList = Annotated[
    tuple[Origin, ...],
    msgspec.Meta(description="a list of origins as browsers write them, such as https://chat.example.com"),
]
# A name, or an IP address (only an IPv6 address has two colons or more).
HostName = Annotated[
    str, msgspec.Meta(pattern=r"\A(?=\S)[^:/?#@\s]*(:[^/?#@\s]*:[^/?#@\s]*)?\Z", description="the name of a host")
]
HostList = Annotated[
    tuple[HostName, ...],
    msgspec.Meta(description="a list of host names without a scheme and a port, such as hub.example.com"),
]
Folder = Annotated[Path, msgspec.Meta(description="the path of a folder")]
Switch = Annotated[bool, msgspec.Meta(description="true or false")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e6, description="a number from 0 to 1000000")]
Megabytes = Annotated[int, msgspec.Meta(ge=0, le=2**40, description="a whole number, 0 or more")]
NetworkList = Annotated[
    tuple[str, ...], msgspec.Meta(description="a list of IP addresses and networks, such as 127.0.0.1 and 10.0.0.0/8")
]
HeaderName = Annotated[  # a token of RFC 9110, section 5.6.2
    str,
    msgspec.Meta(
        pattern=r"\A[A-Za-z0-9_!#$%&'*+.^`|~-]+\Z", description="the name of a header, such as X-Forwarded-User"
    ),
]
BaseAddress = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\Ahttps?://[^/?#@\\\s]+\Z",
        description="an http or https address without a path, such as https://hub.example.com",
    ),
]
NewUserRole = Annotated[
    Literal["admin", "member", "observer", "guest"], msgspec.Meta(description="admin, member, observer or guest")
]
SessionAccess = Annotated[Literal["private", "team"], msgspec.Meta(description="private or team")]
# RFC 7518, section 3.2: the key of HS256 has 32 bytes or more.
Secret = Annotated[str, msgspec.Meta(min_length=32, description="a text of 32 characters or more")]


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
    origins: OriginList = ()
    hosts: HostList = ()
    public_url: BaseAddress | None = None  # the address of the hub in links; None: the address that it listens on
    sign_in: Switch = False  # see is_sign_in_on
    guests: Switch = True  # the invite link of a session makes a guest of a person who is not signed in
    session_access: SessionAccess = "private"  # team: every member of the tenant is a member of each session
    allow_http: Switch = False  # sign browsers in without https: anyone in the network can read their cookies
    trusted_proxies: NetworkList = ()  # the peers whose headers about the client are true
    user_header: HeaderName | None = None  # the header in which a trusted proxy names the user
    new_user_role: NewUserRole = "member"  # of users whom a proxy or an issuer names for the first time
    jwt_issuer: NonEmptyText | None = None
    jwt_audience: NonEmptyText | None = None
    jwt_keys: NonEmptyText | None = None  # the public keys of the issuer: the URL of a key set, or a file (PEM or JWKS)
    jwt_secret: Secret | None = attrs.field(default=None, repr=False)
    direct_writes: Switch = True  # write frames directly to sockets, see hub/delivery/transport.py
    reload: Switch = False
    limits: Limits = Limits()

    def __attrs_post_init__(self) -> None:
        """Raise ConfigError if a setting needs another one, or excludes it."""
        for is_wrong, problem in (
            (self.user_header and not self.trusted_proxies, MISSING_PROXIES),
            (self.jwt_issuer and not self.jwt_audience, MISSING_AUDIENCE),
            (self.jwt_issuer and not (self.jwt_keys or self.jwt_secret), MISSING_KEYS),
            (self.jwt_keys and self.jwt_secret, TWO_KINDS_OF_KEYS),
            ((self.jwt_audience or self.jwt_keys or self.jwt_secret) and not self.jwt_issuer, MISSING_ISSUER),
        ):
            if is_wrong:
                raise ConfigError(problem)

    @property
    def is_sign_in_on(self) -> bool:
        """Whether a request needs a credential. If not, every request has the principal LOCAL."""
        return self.sign_in or self.user_header is not None or self.jwt_issuer is not None

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


MISSING_PROXIES = (
    "user_header without trusted_proxies would let every client name its own user: set trusted_proxies = "
    '["ADDRESS"] to the address of the proxy'
)
MISSING_AUDIENCE = (
    "jwt_issuer without jwt_audience would accept tokens that were issued for other services: set jwt_audience = "
    '"NAME" to the name of this hub at the issuer'
)
MISSING_KEYS = (
    'jwt_issuer needs the keys of the issuer: set jwt_keys = "URL or file" to its public keys, or jwt_secret = "TEXT" '
    "to the secret that the hub shares with it"
)
TWO_KINDS_OF_KEYS = "jwt_keys and jwt_secret exclude each other: remove the one that the issuer does not use"
MISSING_ISSUER = (
    'jwt_audience, jwt_keys and jwt_secret have no effect without jwt_issuer: set jwt_issuer = "NAME" to the issuer '
    "of the tokens, the text of their claim iss"
)

SETTINGS_FILE = "hubbub.toml"
ENVIRONMENT_PREFIX = "HUBBUB_"
LIMIT_ENVIRONMENT_PREFIX = "HUBBUB_LIMITS_"
URL_VARIABLE, KEY_VARIABLE = "HUBBUB_URL", "HUBBUB_KEY"  # variables of the clients, not settings
# Without None, which no source can set.
SETTING_TYPES: dict[str, Any] = {
    field.name: get_args(field.type)[0] if NoneType in get_args(field.type) else field.type
    for field in attrs.fields(Settings)
    if field.name != "limits"
}
LIMIT_TYPES: dict[str, Any] = {field.name: field.type for field in attrs.fields(Limits)}
TABLES = {"hubbub": SETTING_TYPES, "limits": LIMIT_TYPES}
# Settings of earlier versions, with what to do instead.
GONE_SETTINGS = {
    "open_to_network": "a hub that is open to the network needs sign-in: set sign_in = true instead, and hosts = [...] "
    "to the host names of the hub"
}

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
    _refuse_gone_setting(location, name)
    if name not in TABLES[table]:
        kind = "setting" if table == "hubbub" else "limit"
        raise ConfigError(f"{SETTINGS_FILE}: unknown {kind} {name!r}{suggest_name(name, list(TABLES[table]))}")
    return _convert(location, TABLES[table][name], value, is_text=False)


def _refuse_gone_setting(location: str, name: str) -> None:
    if name in GONE_SETTINGS:
        raise ConfigError(f"{location} is gone: {GONE_SETTINGS[name]}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[Entry]:
    variables = {f"{ENVIRONMENT_PREFIX}{name.upper()}": ("hubbub", name) for name in SETTING_TYPES}
    limits = {f"{LIMIT_ENVIRONMENT_PREFIX}{name.upper()}": ("limits", name) for name in LIMIT_TYPES}
    for variable, text in environ.items():
        if (
            not variable.startswith(ENVIRONMENT_PREFIX)
            or variable.startswith(f"{ENVIRONMENT_PREFIX}TEST_")
            or variable in (URL_VARIABLE, KEY_VARIABLE)
        ):
            continue
        location = f"{variable} in the environment or .env"
        _refuse_gone_setting(location, variable.removeprefix(ENVIRONMENT_PREFIX).lower())
        if variable not in variables | limits:
            names = limits if variable.startswith(LIMIT_ENVIRONMENT_PREFIX) else variables
            raise ConfigError(f"unknown variable {location}{suggest_name(variable.upper(), list(names))}")
        table, name = (variables | limits)[variable]
        kind = TABLES[table][name]
        value = _split_list(text) if kind in (OriginList, HostList, NetworkList) else text
        yield table, name, _convert(location, kind, value, is_text=True)


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


def suggest_name(name: str, names: list[str]) -> str:
    """Return the end of an error text for an unknown name: a similar known name, or all known names."""
    matches = get_close_matches(name, names, n=1)
    return f": did you mean {matches[0]}?" if matches else f": use one of {', '.join(names)}"
