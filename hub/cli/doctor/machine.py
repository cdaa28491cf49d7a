"""Check the machine: Python, the packages, the account, the file descriptors and the clock."""

import ctypes
import importlib.util
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from importlib import metadata

from hub.cli.doctor.findings import Finding
from hub.cli.requirements import is_line_met
from hub.extras import list_extra
from hub.settings import Settings

MIN_PYTHON = (3, 11)
# Of aiohttp: the parser and the writer of HTTP, and the reader and the mask of WebSockets.
AIOHTTP_EXTENSIONS = ("_http_parser", "_http_writer", "_websocket.reader_c", "_websocket.mask")
SHOWN_PACKAGES = ("aiohttp", "uvloop", "msgspec", "orjson")
CLIENT_WHEEL = "hubbub-client"  # every hub serves it: docs/clients-python.md
FREE_DESCRIPTORS = 200  # for files, the log and agents, beside those of connections
FEW_DESCRIPTORS = 1024
CLOCK_ERROR = 5  # TIME_ERROR of adjtimex(2): the clock is not synchronized
OLDEST_TIME = 1_767_225_600  # the start of 2026: this version did not exist before


def check_machine() -> Iterator[Finding]:
    """Check all that does not depend on the folders of the hub."""
    yield from _check_python()
    yield from _check_packages()
    yield from _check_client_wheel()
    yield from _check_extensions()
    yield from _check_account()
    yield from _check_clock()


def _check_python() -> Iterator[Finding]:
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {metadata.version(name)}" for name in SHOWN_PACKAGES if _is_installed(name)]
    if sys.version_info < MIN_PYTHON:
        text = f"Python {platform.python_version()} is too old for Hubbub"
        yield Finding("wrong", text, "install Python 3.11 or later, and Hubbub in a new environment of it")
    else:
        yield Finding("ok", ", ".join(versions))


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _check_packages() -> Iterator[Finding]:
    """Compare the installed packages with those that Hubbub needs."""
    try:
        lines = [*(metadata.requires("hubbub") or ()), *list_extra("cli")]
    except metadata.PackageNotFoundError:  # it runs from its source tree
        return
    lines = [line.partition(";")[0].strip() for line in lines if not is_line_met(line)]
    if lines:
        remedy = shlex.join([sys.executable, "-m", "pip", "install", *lines])
        yield Finding("wrong", f"packages are missing or too old: {', '.join(lines)}", remedy)


def _check_client_wheel() -> Iterator[Finding]:
    """Check that the wheel of the client is not installed beside the hub: both have the files of the package hub."""
    if _is_installed(CLIENT_WHEEL):
        text = f"{CLIENT_WHEEL} is in the same environment as Hubbub: both have files of the package hub"
        pip = shlex.join([sys.executable, "-m", "pip"])
        again = f"then install Hubbub again: {pip} install --force-reinstall --no-deps WHEEL"
        yield Finding("wrong", text, f"{pip} uninstall {CLIENT_WHEEL}\n{again}")


def _check_extensions() -> Iterator[Finding]:
    missing = [name for name in AIOHTTP_EXTENSIONS if importlib.util.find_spec(f"aiohttp.{name}") is None]
    if os.environ.get("AIOHTTP_NO_EXTENSIONS"):
        yield Finding("wrong", "aiohttp runs without its C extensions: it is slow", "unset AIOHTTP_NO_EXTENSIONS")
    elif missing:
        text = f"aiohttp has no C extensions here ({', '.join(missing)}): HTTP and WebSockets are slow"
        yield Finding("wrong", text, "pip install --force-reinstall --only-binary :all: aiohttp")
    if sys.platform != "win32" and not _is_installed("uvloop"):
        yield Finding("advice", "uvloop is not installed: the hub needs more processor time", "pip install uvloop")


def _check_account() -> Iterator[Finding]:
    if sys.platform != "win32" and os.geteuid() == 0:
        text = "this account is root: the code of an agent could change the whole machine"
        yield Finding("advice", text, "run the hub with an account of its own: useradd --system --create-home hubbub")


def check_descriptors(settings: Settings) -> Iterator[Finding]:
    """Compare the limit of this process with the connections that the hub accepts. A running hub may have another."""
    if sys.platform == "win32":
        return
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield from compare_descriptors(settings, soft, "this account may open")


def compare_descriptors(settings: Settings, limit: float, owner: str) -> Iterator[Finding]:
    """Compare a limit of file descriptors with the need. *owner* is the beginning of the text."""
    need = settings.limits.node_connections + FREE_DESCRIPTORS if settings.is_sign_in_on else FEW_DESCRIPTORS
    if 0 <= limit < need:
        text = f"{owner} {limit:g} files at a time, but the hub may need {need}: it would refuse connections"
        remedy = f"ulimit -n {need} before the start, or LimitNOFILE={need} in the systemd unit"
        yield Finding("wrong" if settings.is_sign_in_on else "advice", text, remedy)


def _check_clock() -> Iterator[Finding]:
    if time.time() < OLDEST_TIME:
        text = f"the clock is wrong: it is {time.strftime('%Y-%m-%d')}; keys would be valid too long or too short"
        yield Finding("wrong", text, "timedatectl set-ntp true")
    elif _is_clock_unsynchronised():
        text = "the clock is not synchronized: the times of messages and the ends of keys and tokens (JWT) depend on it"
        yield Finding("advice", text, "timedatectl set-ntp true")


def _is_clock_unsynchronised() -> bool:
    """Ask the kernel. Return False where it has no answer."""
    if sys.platform != "linux":
        return False
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))) == CLOCK_ERROR
    except (OSError, AttributeError):
        return False
