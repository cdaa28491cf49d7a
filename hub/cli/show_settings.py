"""The command `hubbub settings`: each setting and each limit, and where its value came from."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import click
import orjson
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from hub.cli.failures import exit_with, load_or_exit
from hub.cli.setting_options import SettingCommand, make_setting_options
from hub.cli.tables import PIPE_WIDTH
from hub.cli.text import to_printable
from hub.setting_sources import SETTING_TYPES, TABLES, LoadedSettings, SettingOrigin
from hub.settings import ConfigError, Secret, Settings
from hub.text import hide_passwords


@attrs.frozen(kw_only=True)
class _Row:
    """One value, ready to be shown: that of a secret is left out."""

    table: str
    name: str
    value: Any
    is_hidden: bool
    origin: SettingOrigin


@click.command("settings", cls=SettingCommand, params=make_setting_options())
@click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
@click.option("--check", "only_checks", is_flag=True, help="Print only errors; exit with code 2 if there is one.")
def print_settings(as_json: bool, only_checks: bool, **flags: Any) -> None:
    """Show each setting and each limit, and where its value came from.

    Takes the flags of `hubbub serve`. Secrets are not shown.
    """
    loaded_settings = load_or_exit(flags)
    if only_checks:
        _check_certificate(loaded_settings.settings)
        return
    rows = list(_make_rows(loaded_settings))
    if as_json:
        click.echo(_format_json(rows))
    else:
        _print_table(rows)


def _check_certificate(settings: Settings) -> None:
    """Exit with code 2 if the certificate cannot be used. The reload itself would keep the old one, and not fail."""
    from hub.web.certificate import open_certificate  # here, so that --help does not load the server

    try:
        open_certificate(settings)
    except ConfigError as error:
        exit_with(error)


def _make_rows(loaded_settings: LoadedSettings) -> Iterator[_Row]:
    for table, names in TABLES.items():
        for name in names:
            value = (
                _find_value(loaded_settings.settings, name)
                if table == "hubbub"
                else getattr(loaded_settings.settings.limits, name)
            )
            is_hidden = SETTING_TYPES.get(name) is Secret and value is not None
            yield _Row(
                table=table,
                name=name,
                value=None if is_hidden else value,
                is_hidden=is_hidden,
                origin=loaded_settings.get_origin(table, name),
            )


def _find_value(settings: Settings, name: str) -> Any:
    """Return the value of a setting. Instead of None, return the value that the hub then uses, if it has one."""
    value = {"log": settings.log_url, "cache": settings.cache_folder}.get(name, getattr(settings, name))
    return hide_passwords(value) if isinstance(value, str) else value


def _format_json(rows: list[_Row]) -> str:
    tables: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    for row in rows:
        fields = {"value": row.value, "source": row.origin.kind, "name": row.origin.name or None}
        tables[row.table][row.name] = fields | ({"isHidden": True} if row.is_hidden else {})
    return orjson.dumps(tables, option=orjson.OPT_INDENT_2, default=str).decode()


def _print_table(rows: list[_Row]) -> None:
    """Print a table. Text() prevents rich from reading values as markup."""
    table = Table(*(Column(heading, overflow="fold") for heading in ("setting", "value", "from")))
    for number, row in enumerate(rows):
        name = row.name if row.table == "hubbub" else f"{row.table}.{row.name}"
        value = "(hidden)" if row.is_hidden else _format_value(row.value)
        origin = f"{row.origin.kind} {row.origin.name}" if row.origin.name else row.origin.kind
        is_last = number + 1 < len(rows) and rows[number + 1].table != row.table
        table.add_row(*(Text(to_printable(text)) for text in (name, value, origin)), end_section=is_last)
    Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH).print(table)


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return "-" if value in (None, "") else str(value)
