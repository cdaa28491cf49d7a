"""The command `hubbub top`."""

import sys
from typing import Any

import click
from rich.console import Console

from hub.cli.calling import data_option
from hub.cli.failures import load_settings_or_exit
from hub.cli.remote import run_and_exit


@click.command("top")
@click.option("--once", is_flag=True, help="Print the figures since the start of the hub, once.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures of --once as one JSON object.")
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, help="Seconds between two readings (1).")
@data_option
@click.option("--url", metavar="URL", help="Read /metrics at this address, not on the control socket.")
def run_top(once: bool, as_json: bool, interval: float, url: str | None, **flags: Any) -> None:
    """Watch the running hub: its clients, answers, waiting times and refusals, and its process.

    Rates and times are those of the last minute. `q` and Ctrl-C end the view. In a pipe, the default is --once.
    """
    from hub.cli.top.live import print_picture, show_live  # here, so that --help does not load the hub
    from hub.cli.top.source import choose_source

    source = choose_source(load_settings_or_exit(flags), url)
    is_live = sys.stdin.isatty() and sys.stdout.isatty() and not Console().is_dumb_terminal
    if once or as_json or not is_live:
        run_and_exit(print_picture(source, as_json=as_json))
    run_and_exit(show_live(source, interval))
