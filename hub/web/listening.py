"""Open the listening sockets of an address."""

import errno
import os
import socket

from hub.forks import call_in_children, replace_with_null
from hub.web.ports import find_descriptors, find_listeners

LISTEN_BACKLOG = 4096  # for many reconnects at once: a client past this limit retries only after a second


def listen(host: str, port: int, remedy: str) -> list[socket.socket]:
    """Return the listening sockets; `localhost` means IPv4 and IPv6.

    Raises OSError with a line for the operator, which ends with *remedy*.
    """
    hosts = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    sockets: list[socket.socket] = []
    for address in hosts:
        try:
            sock = _open_socket(address, port)
        except OSError as error:
            if sockets and address == "::1":
                continue  # the machine has no IPv6
            raise OSError(error.errno, _describe_bind_error(address, port, error, remedy)) from None
        port = sock.getsockname()[1]  # for port 0 the system chooses a port; the second socket needs the same one
        sockets.append(sock)
    close_in_children(port)
    return sockets


def close_in_children(port: int) -> None:
    """Close the sockets of a port in each child that is forked from now on.

    A child that outlives the hub must not hold the port: new clients would connect, and wait forever.
    """
    call_in_children(lambda: replace_with_null(find_descriptors(port)))


def _open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on one address. Raises OSError if it cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # else the socket would also use the port of IPv4
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    sock.listen(LISTEN_BACKLOG)
    return sock


def _describe_bind_error(host: str, port: int, error: OSError, remedy: str) -> str:
    """Return the line for the operator: the cause, the process that uses the port, and the remedy."""
    problem = f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}"
    listeners = find_listeners(port) if error.errno == errno.EADDRINUSE else []
    if listeners:
        return f"{problem} by {', '.join(listeners)}; stop it, or {remedy}"
    return f"{problem}; is another hub running? {remedy}"
