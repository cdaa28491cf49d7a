"""The command `hubbub export`: the messages of a session, or everything about a principal."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Literal

import click

from hub.cli.calling import data_option, log_option
from hub.cli.failures import exit_with, load_settings_or_exit
from hub.cli.remote import exit_after, run_and_exit, url_option
from hub.cli.text import to_printable_json
from hub.settings import Settings


@click.command("export")
@click.argument("session", required=False)
@click.option("--principal", metavar="NAME", help="Export what the hub has about a principal, a name or an id.")
@click.option("--format", "form", type=click.Choice(["md", "json"]), help="The format (md; json of a principal).")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write into FILE.")
@url_option
@data_option
@log_option
def _export(
    session: str | None,
    principal: str | None,
    form: Literal["md", "json"] | None,
    output: Path | None,
    url: str,
    **flags: Any,
) -> None:
    """Write the finished messages of SESSION; or, with --principal, all data of a person or program as JSON.

    For a principal: its messages and the answers to them, its sessions, files, usage and audit, and its credentials
    without their secrets. This works on the data folder, with a running hub or without one.
    """
    if (session is None) is (principal is None):
        raise click.UsageError("name either a session, or a principal with --principal NAME")
    if principal is not None and form == "md":
        raise click.UsageError("the data of a principal is JSON: leave out --format md")
    with _redirect_output(output):
        if principal is not None:
            settings, name = load_settings_or_exit(flags), principal
            exit_after(lambda: _write_principal(settings, name))
        from hub.cli.records import write_session

        run_and_exit(write_session(url, session or "", form or "md"))


@contextmanager
def _redirect_output(path: Path | None) -> Iterator[None]:
    """Within the context, which ends with sys.exit(), write standard output to the private file *path*.

    The file appears when it is complete. Exit with code 2 if it cannot be written.
    """
    if path is None:
        yield
        return
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with open(part, "x", encoding="utf-8", opener=_open_private) as file, redirect_stdout(file):
            yield
    except SystemExit as end:
        if end.code == 0:
            os.replace(part, path)
        raise
    except OSError as error:
        exit_with(error)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_principal(settings: Settings, name: str) -> int:
    """Write the JSON document of a principal, page by page. Exit with one line if a command fails."""
    from hub.cli.control import call_operator  # here, so that --help does not load the hub

    out = sys.stdout
    parts = call_operator(settings, "export_principal", name=name).result
    out.write("{\n")
    for part, value in parts.items():
        out.write(f"  {json.dumps(part)}: {_indent(value)},\n")
    out.write('  "messages": [')
    after, separator = 0, "\n    "
    while after is not None:
        page = call_operator(settings, "export_messages", principalId=parts["principal"]["id"], after=after).result
        for message in page["messages"]:
            out.write(separator + to_printable_json(message, None))
            separator = ",\n    "
        after = page["after"]
    out.write("\n  ]\n}\n")
    out.flush()
    return 0


def _indent(value: object) -> str:
    return to_printable_json(value).replace("\n", "\n  ")


EXPORT_COMMANDS = (_export,)
