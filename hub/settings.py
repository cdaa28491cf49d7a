"""The settings of a hub. hub.setting_sources loads them."""

import os
from pathlib import Path
from typing import Annotated, Literal

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
File = Annotated[Path, msgspec.Meta(description="the path of a file")]
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
        description="an http or https address without a path, such as https://hub.example.com; base_path is for a path",
    ),
]
# Only characters that an address never escapes: every proxy and every browser writes such a path in the same way.
BasePath = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A((/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~-]+)+)?\Z",
        description="a path such as /hubbub: / at its start but not at its end, and letters, digits and . _ ~ -",
    ),
]
NewUserRole = Annotated[
    Literal["admin", "member", "observer", "guest"], msgspec.Meta(description="admin, member, observer or guest")
]
SessionAccess = Annotated[Literal["private", "team"], msgspec.Meta(description="private or team")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], msgspec.Meta(description="debug, info, warning or error")
]
LogFormat = Annotated[Literal["text", "json"], msgspec.Meta(description="text or json")]
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
    message_days: Amount = 0.0  # 0: finished messages stay until their session is deleted
    message_mb: Megabytes = 0  # 0: no limit
    file_days: Amount = 0.0  # 0: files stay until their session is deleted
    origins: OriginList = ()
    hosts: HostList = ()
    tls_certificate: File | None = None  # PEM, with the certificates of its issuers; turns https on
    tls_key: File | None = None  # PEM
    public_url: BaseAddress | None = None  # the address of the hub in links; None: the address that it listens on
    base_path: BasePath = ""  # the path before all addresses of the hub, as its proxy offers them
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
    log_level: LogLevel = "info"  # the lowest level of the log lines that are written
    log_format: LogFormat = "text"  # json: each line is an object
    metrics_host: NonEmptyText = "localhost"
    metrics_port: Port | None = None  # of a second address, for /metrics, /health and /ready without sign-in
    otel: Switch = False  # send traces to the collector that the variables OTEL_... name
    otel_content: Switch = False  # with the texts of messages, answers and tools
    access_log: Switch = False  # a line for each HTTP request, and two for each WebSocket
    direct_writes: Switch = True  # write frames directly to sockets, see hub/delivery/transport.py
    reload: Switch = False
    limits: Limits = Limits()

    def __attrs_post_init__(self) -> None:
        """Raise ConfigError if a setting needs another one, or excludes it."""
        for is_wrong, problem in (
            (self.tls_certificate and not self.tls_key, MISSING_TLS_KEY),
            (self.tls_key and not self.tls_certificate, MISSING_CERTIFICATE),
            (self.otel_content and not self.otel, MISSING_OTEL),
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
    def scheme(self) -> str:
        """The scheme of the address that the hub listens on: https if it has a certificate."""
        return "http" if self.tls_certificate is None else "https"

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


URL_VARIABLE, KEY_VARIABLE = "HUBBUB_URL", "HUBBUB_KEY"  # variables of the clients, not settings


class ConfigError(Exception):
    """A setting is wrong; the message is one line that names the setting and its source, and says what to do."""


MISSING_TLS_KEY = 'tls_certificate needs its key: set tls_key = "FILE" to the private key (PEM)'
MISSING_CERTIFICATE = 'tls_key needs its certificate: set tls_certificate = "FILE" to the certificate (PEM)'
MISSING_OTEL = "otel_content has no effect without otel: set otel = true to send traces"
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
