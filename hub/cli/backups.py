"""The commands `hubbub backup` and `hubbub restore`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import click

from hub.cli.calling import data_option, log_option
from hub.cli.failures import load_settings_or_exit
from hub.cli.offline import call_offline
from hub.cli.text import to_printable
from hub.limits import MiB

if TYPE_CHECKING:
    from hub.commands.archiving import BackupReport

PROGRESS_SECONDS = 2.0
COUNTED = ("sessions", "messages", "events", "files", "principals")


@attrs.define
class _Progress:
    """Writes a line about a long copy to standard error, every two seconds."""

    _next_time: float = attrs.field(factory=lambda: time.monotonic() + PROGRESS_SECONDS)

    def report(self, copied_bytes: int, all_bytes: int) -> None:
        if time.monotonic() >= self._next_time:
            self._next_time = time.monotonic() + PROGRESS_SECONDS
            _note(f"{copied_bytes // MiB} MiB of {-(-all_bytes // MiB)} MiB are copied")


@click.command("backup")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@data_option
@log_option
def _back_up(folder: Path, **flags: Any) -> None:
    """Back up the log and the files into the new folder DIR. A hub may be running on them."""
    settings = load_settings_or_exit(flags)
    result: BackupReport = call_offline(settings, "back_up", folder, _Progress().report)
    _print_and_exit(result, folder)


@click.command("restore")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Move the data that the data folder has aside, and restore.")
@data_option
@log_option
def _restore(folder: Path, force: bool, **flags: Any) -> None:
    """Restore the backup in DIR to the data folder, where no hub runs. Old data is never deleted.

    Clients whose cursors are of another time than the backup get a reset.
    """
    settings = load_settings_or_exit(flags)
    result: BackupReport = call_offline(settings, "restore", folder, _Progress().report, force)
    for path in result.old_files:
        _note(f"the old data is in {path}")
    _print_and_exit(result, settings.data)


def _print_and_exit(result: "BackupReport", folder: Path) -> NoReturn:
    """Print what *folder* has now. If it has damage, print a line for each, and exit with code 1."""
    counts = ", ".join(f"{kind}: {result.counts[kind]}" for kind in COUNTED if kind in result.counts)
    click.echo(to_printable(f"{folder} has the backup of {result.created} ({counts})"))
    for line in result.problems:
        click.echo(to_printable(line))
    sys.exit(1 if result.problems else 0)


def _note(text: str) -> None:
    click.echo(to_printable(text), err=True)


BACKUP_COMMANDS = (_back_up, _restore)
