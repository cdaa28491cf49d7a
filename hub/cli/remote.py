"""The commands that talk to a running hub: `hubbub chat`, `sessions`, `tail`, `login` and `logout`."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import click

from hub.access.doors import make_base_url, make_local_url
from hub.cli.failures import CommandFailed, exit_with, load_settings_or_exit
from hub.settings import URL_VARIABLE


def run_and_exit(command: Coroutine[Any, Any, int]) -> None:
    """Run a command as exit_after() does."""
    exit_after(lambda: asyncio.run(command))


def exit_after(command: Callable[[], int]) -> NoReturn:
    """Run a command, and exit with its code.

    Exit with 1 and one line if the command fails, with 130 after Ctrl-C, and with 0 if the reader of a pipe has exited.
    """
    try:
        code = command()
    except CommandFailed as error:
        exit_with(error, 1)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of the pipe has exited, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _parse_url_option(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """Return *value*, or the address from the settings of the current folder."""
    if value is not None:
        return value
    settings = load_settings_or_exit({})
    # A certificate has the name of the hub that others use.
    return make_local_url(settings) if settings.tls_certificate is None else make_base_url(settings)


url_option = click.option(
    "--url", envvar=URL_VARIABLE, callback=_parse_url_option, metavar="URL", help="The hub (http://localhost:9527)."
)

url_argument = click.argument("url", required=False, envvar=URL_VARIABLE, callback=_parse_url_option)


@click.command("chat")
@click.argument("agent", required=False)
@click.option("--session", metavar="ID", help="The session to join (a new one).")
@url_option
def run_chat(agent: str | None, session: str | None, url: str) -> None:
    """Chat with AGENT (main, or the first agent that works).

    In a pipe, read one message from standard input, and write the answer.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        from hub.cli.chat import chat_at_terminal

        run_and_exit(chat_at_terminal(url, agent, session))
    else:
        from hub.cli.plain import ask_once

        run_and_exit(ask_once(url, agent, session, sys.stdin.read()))


@click.command("sessions")
@click.option("--limit", type=click.IntRange(min=1), default=20, help="How many sessions to list, newest first (20).")
@url_option
def print_sessions(limit: int, url: str) -> None:
    """List the sessions."""
    from hub.cli.records import write_sessions

    run_and_exit(write_sessions(url, limit))


@click.command()
@click.argument("session")
@url_option
def tail(session: str, url: str) -> None:
    """Print the events of SESSION live, until Ctrl-C."""
    from hub.cli.plain import write_live

    run_and_exit(write_live(url, session))


@click.command("login")
@url_argument
def run_login(url: str) -> None:
    """Keep a key for the hub at URL: the commands that talk to this hub use it.

    The key is asked for, and not shown. In a pipe, it is read from standard input.
    """
    from hub.cli.login import keep_key

    key = click.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    run_and_exit(keep_key(url, key.strip()))


@click.command("logout")
@url_argument
def run_logout(url: str) -> None:
    """Forget the key of the hub at URL."""
    from hub.cli.login import drop_key

    run_and_exit(drop_key(url))


REMOTE_COMMANDS = (run_chat, print_sessions, tail, run_login, run_logout)
