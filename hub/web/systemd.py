"""Works with systemd, if systemd starts the hub: takes its listening sockets, and tells it the state of the hub.

The protocols are those of sd_listen_fds(3) and sd_notify(3). Without systemd, nothing here has an effect.
"""

import os
import socket
import time
from contextlib import suppress

import attrs

from hub.access.doors import is_loopback
from hub.settings import ConfigError, Settings
from hub.web.listening import close_in_children

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
NOTIFY_VARIABLE = "NOTIFY_SOCKET"
SOCKET_HINT = "write it as ListenStream=127.0.0.1:9527, without Accept=yes"


def take_sockets() -> list[socket.socket]:
    """Return the listening sockets of the socket unit, or an empty list if there is none. A second call has none.

    The sockets stay open in systemd when the hub stops, so that clients can connect while it restarts. Raises
    ConfigError if one of them cannot be used.
    """
    pid, count, _ = (os.environ.pop(name, "") for name in LISTEN_VARIABLES)  # agents' children must not see them
    if pid != str(os.getpid()):  # the variables are for a parent process
        return []
    sockets = [_take_socket(FIRST_DESCRIPTOR + number) for number in range(int(count))]
    for port in {sock.getsockname()[1] for sock in sockets}:
        close_in_children(port)
    return sockets


def _take_socket(descriptor: int) -> socket.socket:
    """Return the socket of a descriptor of systemd. Raises ConfigError if it does not listen on an IP address."""
    os.set_inheritable(descriptor, False)
    try:
        sock = socket.socket(fileno=descriptor)
        is_listening = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # not a socket
        raise ConfigError(f"systemd passed something else than a listening socket: {SOCKET_HINT}") from None
    if not is_listening or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise ConfigError(f"systemd passed a socket that does not listen on an IP address: {SOCKET_HINT}")
    return sock


def replace_address(settings: Settings, sockets: list[socket.socket]) -> Settings:
    """Return the settings with the address of the sockets of systemd: `host` and `port` have no effect then.

    If one of the sockets is open to other machines, `host` is its address.
    """
    if not sockets:
        return settings
    addresses = [sock.getsockname()[:2] for sock in sockets]
    host, port = next((address for address in addresses if not is_loopback(address[0])), ("localhost", addresses[0][1]))
    return attrs.evolve(settings, host=host, port=port)


def describe_reload() -> str:
    """Return the state of a reload that begins now. READY=1 ends it."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def tell_systemd(state: str) -> None:
    """Send a state of sd_notify(3) to systemd, such as READY=1. Never waits."""
    path = os.environ.get(NOTIFY_VARIABLE, "")
    if not path.startswith(("/", "@")):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.setblocking(False)
        sock.sendto(state.encode(), address)
