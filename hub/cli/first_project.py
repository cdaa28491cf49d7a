"""`hubbub init`: write the first agents of a new project."""

from pathlib import Path
from typing import Any

import click

from hub.cli.failures import exit_with, load_settings_or_exit
from hub.cli.text import to_printable

FIRST_AGENTS_FOLDER = Path(__file__).with_name("first_agents")  # the same files as in agents/ of the repository


@click.command("init")
@click.option("--agents", type=click.Path(path_type=Path), metavar="DIR", help="The folder of agent files (agents).")
def write_first_agents(**flags: Any) -> None:
    """Write two first agents: `main`, which uses a language model, and `echo`. A file that exists stays as it is."""
    folder = load_settings_or_exit(flags).agents
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in sorted(FIRST_AGENTS_FOLDER.glob("*.*")):
            file = folder / source.name
            is_new = _write_new(file, source.read_bytes())
            click.echo(to_printable(f"{file}: {'written' if is_new else 'exists, and stays as it is'}"))
    except OSError as error:
        exit_with(error)
    click.echo(
        "Next: hubbub model fetches a small language model for main (about 130 MB). hubbub serve starts the hub."
    )


def _write_new(file: Path, data: bytes) -> bool:
    """Write a file unless it exists; return whether it is new. Raises OSError."""
    try:
        with file.open("xb") as copy:
            copy.write(data)
    except FileExistsError:
        return False
    return True
