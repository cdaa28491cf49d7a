"""The commands that talk to a running hub: `hubbub chat`, `sessions`, `tail` and `export`."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal

import click

from hub.cli.failures import CommandFailed
from hub.settings import ConfigError, load

URL = "HUBBUB_URL"


def _url(given: str | None) -> str:
    """Return the hub's address: as told, or where a hub of this folder's settings would listen."""
    if given is not None:
        return given
    settings = load({}, os.environ, Path())
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port or 9527}"


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command to its end. Exit code 1 and one line where it fails, 130 where Ctrl-C ended it."""
    try:
        code = asyncio.run(work)
    except CommandFailed as failed:
        click.echo(f"hubbub: {' '.join(str(failed).split())}", err=True)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `| head` has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _place(context: click.Context, parameter: click.Parameter, given: str | None) -> str:
    try:
        return _url(given)
    except ConfigError as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(2)


url_option = click.option("--url", envvar=URL, callback=_place, metavar="URL", help="The hub (http://localhost:9527).")


@click.command()
@click.argument("agent", required=False)
@click.option("--session", metavar="ID", help="The session to join; else a new one.")
@url_option
def chat(agent: str | None, session: str | None, url: str) -> None:
    """Talk to AGENT (main; without it, the first that works).

    Not from a terminal, it reads one message and writes the answer.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        from hub.cli.chat import talk

        _run(talk(url, agent, session))
    else:
        from hub.cli.plain import answer_once

        _run(answer_once(url, agent, session, sys.stdin.read()))


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, help="How many sessions, the newest first (20).")
@url_option
def sessions(limit: int, url: str) -> None:
    """List the sessions."""
    from hub.cli.records import list_sessions

    _run(list_sessions(url, limit))


@click.command()
@click.argument("session")
@url_option
def tail(session: str, url: str) -> None:
    """Follow SESSION live, until Ctrl-C."""
    from hub.cli.plain import follow

    _run(follow(url, session))


@click.command()
@click.argument("session")
@click.option("--format", "form", type=click.Choice(["md", "json"]), default="md", help="md or json (md).")
@url_option
def export(session: str, form: Literal["md", "json"], url: str) -> None:
    """Write the finished messages of SESSION."""
    from hub.cli.records import write_session

    _run(write_session(url, session, form))


COMMANDS = (chat, sessions, tail, export)
