"""Settings, from hubbub.toml, HUBBUB_* and flags; and every limit with its unit."""

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import attrs
import msgspec

KiB = 1024
MiB = 1024 * KiB


@attrs.frozen
class Limits:
    """What the hub bounds, each with its unit. Where a number comes from a measurement, the comment names it."""

    frame_bytes: int = 1 * MiB  # a client's frame: people paste documents; more closes with 1009
    body_bytes: int = 64 * KiB  # of a request over HTTP
    chat_bytes: int = 1 * MiB  # of a chat over HTTP: as large as a frame
    conversation_bytes: int = 8 * MiB  # of a request that brings a whole conversation: OpenAI's and AG-UI's
    metadata_bytes: int = 16 * KiB  # of a session or of a message, as JSON
    json_depth: int = 32
    object_keys: int = 256
    max_integer: int = 2**53  # what JavaScript holds exactly
    high_water_bytes: int = 64 * KiB  # unsent bytes at which a connection falls behind
    stuck_seconds: float = 10.0  # unsent bytes that do not shrink for so long: the transport is aborted
    ping_seconds: float = 25.0
    pong_seconds: float = 10.0
    header_seconds: float = 10.0
    subscriptions: int = 128  # per connection
    page_rows: int = 8192
    first_page_rows: int = 1024  # of a catch-up: one who joins late sees something soon
    page_bytes: int = 256 * KiB  # of replay; also the longest merged chunk
    kept_page_bytes: int = 8 * MiB  # of pages read lately, per node: those who come a little later share them
    chunk_bytes: int = 32 * KiB  # of text in one event
    pending_bytes: int = 1 * MiB  # of text of one run not yet in the log: beyond it the agent waits
    content_bytes: int = 256 * KiB  # of one event of an agent that is no text
    reply_bytes: int = 64 * KiB  # of the payload of an answer to a question, as JSON
    open_questions: int = 32  # per run
    result_bytes: int = 32 * KiB  # of a tool's result in its event: beyond it the result is kept as a file
    result_start_bytes: int = 1 * KiB  # of such a result, which its event still has
    file_bytes: int = 32 * MiB
    session_files_bytes: int = 256 * MiB
    files_bytes: int = 4096 * MiB  # of all sessions
    file_name_length: int = 200  # characters
    upload_seconds: float = 600.0  # for a file to arrive: 32 MiB at half a megabit a second
    run_bytes: int = 8 * MiB  # of text of one run: beyond it the run ends with an error
    queued_runs: int = 20  # per session
    message_parts: int = 64
    taken_messages: int = 10_000  # taken back at once: more make the event that says so too long
    fork_messages: int = 1000  # copied into a fork, the newest
    fork_bytes: int = 9 * MiB  # of their text and parts: the longest answer fits
    run_seconds: float = 3600.0
    silence_seconds: float = 600.0
    grace_seconds: float = 5.0  # between a cancel and the end of work that will not stop
    drain_seconds: float = 15.0
    close_seconds: float = 2.0  # for the closing handshakes of a drain
    retry_seconds: float = 0.5  # before what the log refused is tried again
    call_depth: int = 8  # agents that call agents
    history_messages: int = 100
    presence_members: int = 50
    presence_seconds: float = 1.0


# What a setting may be, for msgspec to check, and in words for who wrote something else.
Text = Annotated[str, msgspec.Meta(min_length=1, description="a text that is not empty")]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(description="a list of texts")]
Folder = Annotated[Path, msgspec.Meta(description="the path of a folder")]
Switch = Annotated[bool, msgspec.Meta(description="true or false")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e6, description="a number from 0 to 1000000")]
Megabytes = Annotated[int, msgspec.Meta(ge=0, le=2**40, description="a whole number, 0 or more")]


@attrs.frozen
class Settings:
    """Where the hub listens, what it hosts, where it keeps its log."""

    host: Text = "localhost"
    port: Port = 9527  # 0: any that is free
    agents: Folder = Path("agents")
    data: Folder = Path("data")
    log: Text | None = None  # see log_url
    frames_per_second: Amount = 60.0  # how often a session is flushed at most; 0 takes the limit away
    retention_days: Amount = 7.0
    retention_mb: Megabytes = 1024
    origins: Texts = ()
    hosts: Texts = ()
    open_to_network: Switch = False
    reload: Switch = False
    limits: Limits = Limits()

    @property
    def log_url(self) -> str:
        """The URL of the log: three slashes before a relative path, four before an absolute one."""
        return self.log or f"sqlite:///{self.data / 'hub.db'}"


class ConfigError(Exception):
    """The settings cannot be used; the message is one line that says which, where it stands, and what to do."""


FILE = "hubbub.toml"
PREFIX = "HUBBUB_"
OTHERS = ("HUBBUB_URL",)  # read by the commands that talk to a hub
KINDS: dict[str, Any] = {field.name: field.type for field in attrs.fields(Settings) if field.name != "limits"}
KINDS["log"] = Text  # no source can say None, it can only be silent


def load(flags: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Settings:
    """Return the settings: *flags* win over HUBBUB_* of *environ*, and these over the hubbub.toml in *folder*.

    A flag of None was not given. A relative path is meant from the current folder, whichever source names it.
    Raises ConfigError for what is unknown or mistyped, also where a stronger source has another value for it.
    """
    found: dict[str, Any] = {}
    found.update(_from_file(folder / FILE))
    found.update(_from_environment(environ))
    found.update((key, _convert(f"--{key}", key, value, True)) for key, value in flags.items() if value is not None)
    return Settings(**found)


def _from_file(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: not TOML, or not UTF-8
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{FILE} cannot be read: {reason}") from None
    table = document.pop("hubbub", {})
    for name in document:
        raise ConfigError(f"{FILE}: {name!r} stands outside of [hubbub], where the settings belong")
    if not isinstance(table, dict):
        raise ConfigError(f"{FILE}: hubbub is not a table: write [hubbub] on a line of its own, and the settings below")
    for name, value in table.items():
        if name not in KINDS:
            raise ConfigError(f"{FILE}: unknown setting {name!r}{hint(name, list(KINDS))}")
        yield name, _convert(f"{FILE}: {name}", name, value, False)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    keys = {key.upper(): key for key in KINDS}
    for name, text in environ.items():
        short = name.removeprefix(PREFIX)
        if short == name or short.startswith("TEST_") or name in OTHERS:
            continue
        if short not in keys:
            meant = hint(short.upper(), list(keys), PREFIX)
            raise ConfigError(f"unknown variable {name} in the environment{meant}")
        value = _split(text) if KINDS[keys[short]] is Texts else text
        yield keys[short], _convert(f"{name} in the environment", keys[short], value, True)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _convert(where: str, key: str, value: Any, written: bool) -> Any:
    """Return *value* as the setting's type; *written* values may be text that spells it."""
    try:
        return msgspec.convert(value, KINDS[key], strict=not written, dec_hook=_path)
    except msgspec.ValidationError:
        raise ConfigError(f"{where} must be {_words(KINDS[key])}") from None


def _path(kind: type[Any], value: Any) -> Any:
    if kind is Path and value and isinstance(value, (str, Path)):
        return Path(value)
    raise ValueError("not a path")


def _words(kind: Any) -> str:
    return str(kind.__metadata__[0].description)


def hint(name: str, known: list[str], prefix: str = "") -> str:
    """Return how to go on after "unknown NAME": with the name that was meant, or all there are."""
    close = get_close_matches(name, known, n=1)
    return f": did you mean {prefix}{close[0]}?" if close else f": there are {', '.join(prefix + one for one in known)}"
