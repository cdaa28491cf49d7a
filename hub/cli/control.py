"""Run a command of the operator: in the running hub, over its control socket, or in this process if no hub runs."""

import asyncio
import errno
import json
import socket
import sys
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import click
import msgspec

from hub.access.doors import make_base_url
from hub.cli.failures import CommandFailed, exit_with
from hub.commands.hub import open_hub
from hub.commands.operator import CONTROL_SOCKET, OperatorAnswer, run_operator_command
from hub.errors import HubError
from hub.observe.logging import log_to_stderr
from hub.settings import Settings
from hub.storage.log import LogInUse, LogUnusable
from hub.unix_sockets import open_address

ANSWER_SECONDS = 60.0
# No socket, one that a killed hub has left, or a path that is too long for a socket.
NOBODY_LISTENS = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ENAMETOOLONG)
LONG_COMMANDS = ("erase_principal",)  # those that may take longer than ANSWER_SECONDS
FIRST_COMMANDS = ("create_key", "invite_person")  # those that make sense before the first start of the hub


def call_operator(settings: Settings, command: str, /, **fields: Any) -> OperatorAnswer:
    """Return the answer to a command of hub.commands.operator. Arguments that are None are left out.

    Exit with one line if the command fails: with code 1 if the hub refuses it, with 2 if the log cannot be used.
    """
    fields = {field: value for field, value in fields.items() if value is not None}
    try:
        sock = _connect(settings.data / CONTROL_SOCKET)
        if sock is None:
            return asyncio.run(_run_offline(settings, command, fields))
        if command in LONG_COMMANDS:
            sock.settimeout(None)
        with closing(sock):
            return _post(sock, command, fields)
    except CommandFailed as error:
        exit_with(error, 1)
    except (LogUnusable, OSError) as error:
        exit_with(error)


def call_running_hub(settings: Settings, command: str, /, **fields: Any) -> Any:
    """Return the result of a command of the running hub. Raises CommandFailed, also if no hub runs."""
    sock = _connect_or_fail(settings)
    if sock is None:
        raise CommandFailed(f"no hub runs on the data folder {settings.data}: start it first, or name its --data")
    with closing(sock):
        return _post(sock, command, fields).result


def read_from_control(settings: Settings, path: str) -> str | None:
    """Return the text at a path of the control socket, or None if no hub runs. Raises CommandFailed."""
    sock = _connect_or_fail(settings)
    if sock is None:
        return None
    with closing(sock):
        status, text = _request(sock, "GET", path)
    if status != 200:
        raise CommandFailed(f"the hub answers with status {status}: {text.strip()}")
    return text


def _connect_or_fail(settings: Settings) -> socket.socket | None:
    try:
        return _connect(settings.data / CONTROL_SOCKET)
    except OSError as error:
        raise CommandFailed(f"{settings.data / CONTROL_SOCKET} cannot be used: {error.strerror}") from None


def _connect(path: Path) -> socket.socket | None:
    """Return a connection to the running hub, or None if no hub listens. Raises CommandFailed, OSError."""
    if sys.platform == "win32":
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(ANSWER_SECONDS)
    try:
        with open_address(path) as address:
            sock.connect(address)
    except OSError as error:
        sock.close()
        if error.errno in NOBODY_LISTENS:
            return None
        if isinstance(error, PermissionError):
            text = f"only the account that runs the hub may use {path}: run the command as that account"
            raise CommandFailed(text) from None
        raise
    return sock


def _post(sock: socket.socket, name: str, fields: Mapping[str, Any]) -> OperatorAnswer:
    status, text = _request(sock, "POST", f"/commands/{name}", json.dumps(fields))
    body = json.loads(text)
    if status != 200:
        raise CommandFailed(body["error"])
    return msgspec.convert({"result": None, **body}, OperatorAnswer)  # the hub leaves a result of None out


def _request(sock: socket.socket, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Return the status and the body of a response. Raises CommandFailed."""
    connection = HTTPConnection("hub")
    connection.sock = sock
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, HTTPException, ValueError):
        effect = "" if method == "GET" else ", so the command may be carried out or not"
        raise CommandFailed(f"the hub did not answer{effect}: look at the output of the hub") from None


async def _run_offline(settings: Settings, name: str, fields: Mapping[str, Any]) -> OperatorAnswer:
    """Run the command on the log alone. Raises CommandFailed, LogUnusable and OSError."""
    log_to_stderr(settings.log_level, settings.log_format)
    _check_data_folder(settings.data, name)
    hub = open_hub(settings)
    hub.base_url = make_base_url(settings)
    try:
        await hub.start_log()
    except LogInUse as error:
        raise CommandFailed(
            f"a hub (pid {error.pid}) has the log open, but does not listen at {settings.data / CONTROL_SOCKET}: if it "
            "is starting or stopping, try again in a moment; else look for `no control socket` in its output"
        ) from None
    try:
        return await run_operator_command(hub, name, fields)
    except HubError as error:
        raise CommandFailed(error.message) from None
    finally:
        await hub.close()


def _check_data_folder(folder: Path, name: str) -> None:
    if folder.is_dir():
        return
    if name not in FIRST_COMMANDS:
        raise CommandFailed(
            f"there is no data folder {folder.absolute()}: start a hub first, or name its folder with --data"
        )
    click.echo(f"there is no data folder {folder.absolute()} yet, so this command makes it", err=True)
