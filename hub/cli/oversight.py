"""The commands of the operator that watch and limit principals: `hubbub usage`, `quota`, `audit` and `erase`."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from hub.cli.calling import F, call_command, folder_options, format_time, print_note
from hub.cli.failures import load_settings_or_exit
from hub.cli.tables import TableColumn, print_table
from hub.cli.text import to_printable
from hub.settings import Settings

NO_LIMIT = "none"
USAGE_COLUMNS = (
    TableColumn("day", is_whole=True),
    TableColumn("principal"),
    TableColumn("agent"),
    TableColumn("messages", is_whole=True),
    TableColumn("tokens in", is_whole=True),
    TableColumn("tokens out", is_whole=True),
    TableColumn("estimated", is_whole=True, rank=1),
)
AUDIT_COLUMNS = (
    TableColumn("time", is_whole=True),
    TableColumn("who"),
    TableColumn("action"),
    TableColumn("target", is_whole=True),
    TableColumn("from", is_whole=True, rank=1),
    TableColumn("result", is_whole=True),
)
QUOTA_NAMES = {
    "runs": "answers at once",
    "messages": "messages a day",
    "tokens": "tokens a day",
    "stored_bytes": "bytes",
}


def _parse_limit(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value == NO_LIMIT:
        return value
    if not value.isascii() or not value.isdecimal():
        raise click.BadParameter(f"write a whole number, or {NO_LIMIT}")
    return int(value)


def _parse_day(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else datetime.strptime(value, "%Y-%m-%d").date().isoformat()
    except ValueError:
        raise click.BadParameter("write a day as 2026-11-01") from None


def _limit_option(flag: str, text: str) -> Callable[[F], F]:
    return click.option(flag, callback=_parse_limit, metavar="N", help=text)


@click.command("usage")
@click.argument("name", required=False)
@click.option("--since", callback=_parse_day, metavar="DAY", help="The first UTC day, as 2026-11-01 (29 days ago).")
@click.option("--until", callback=_parse_day, metavar="DAY", help="The last UTC day (today).")
@folder_options
def show_usage(name: str | None, since: str | None, until: str | None, **flags: Any) -> None:
    """Show the messages and tokens of each day, by agent and principal: of NAME, a name or an id, or of all.

    Tokens in brackets are estimated, because the agent reported none.
    """
    settings = load_settings_or_exit(flags)
    records = call_command(settings, "read_usage", subjectId=name, since=since, until=until)
    names = _list_names(settings)
    rows = [
        (
            record["day"],
            names.get(record["principal"], record["principal"]),
            record["agent"],
            str(record["messages"]),
            str(record["input_tokens"]),
            str(record["output_tokens"]),
            f"({record['estimated']})",
        )
        for record in records
    ]
    print_table(USAGE_COLUMNS, rows, "nothing yet")


@click.command("quota")
@click.argument("name")
@_limit_option("--runs", f"Running and queued answers at the same time; {NO_LIMIT} removes the limit.")
@_limit_option("--messages", "Messages on one UTC day.")
@_limit_option("--tokens", "Tokens on one UTC day.")
@_limit_option("--stored-bytes", "Bytes of the files in the sessions that NAME owns.")
@folder_options
def change_quota(name: str, runs: Any, messages: Any, tokens: Any, stored_bytes: Any, **flags: Any) -> None:
    """Show the limits of NAME: a principal, by its name or id, or a tenant. With options, set limits first."""
    settings = load_settings_or_exit(flags)
    values = {"runs": runs, "messages": messages, "tokens": tokens, "stored_bytes": stored_bytes}
    changes = {field: None if value == NO_LIMIT else value for field, value in values.items() if value is not None}
    if changes:
        state = call_command(settings, "set_quota", subject=name, changes=changes)
    else:
        state = call_command(settings, "read_quota", subject=name)
    counts = {**state["spending"], "stored_bytes": state["stored_bytes"]}
    rows = [
        (title, NO_LIMIT if state["quota"][field] is None else str(state["quota"][field]), str(counts[field]))
        for field, title in QUOTA_NAMES.items()
    ]
    print_table([TableColumn(title, is_whole=True) for title in ("quota", "limit", "now")], rows, "")


@click.command("audit")
@click.option("--limit", default=100, type=click.IntRange(1, 100_000), help="The number of entries, the newest (100).")
@click.option("--principal", metavar="NAME", help="Only what NAME did, a name or an id.")
@click.option("--target", metavar="ID", help="Only what was done to this session, or other id.")
@folder_options
def show_audit(limit: int, principal: str | None, target: str | None, **flags: Any) -> None:
    """Show who did what, when, and from which address. Refusals have their error code."""
    entries = call_command(load_settings_or_exit(flags), "read_audit", limit=limit, subjectId=principal, target=target)
    rows = [
        (
            format_time(entry["ts"]),
            entry["name"] or entry["principal"] or "-",
            entry["action"],
            entry["target"],
            entry["address"],
            "allowed" if entry["is_allowed"] else entry["reason"],
        )
        for entry in entries
    ]
    print_table(AUDIT_COLUMNS, rows, "no entries yet: sign-in is off, or new")


@click.command("erase")
@click.argument("name", metavar="PRINCIPAL")
@click.option("--yes", is_flag=True, help="Do not ask.")
@folder_options
def erase(name: str, yes: bool, **flags: Any) -> None:
    """Delete PRINCIPAL, a name or an id, with all that it wrote. This cannot be undone.

    The sessions that it alone owns are deleted. Its messages in other sessions become [erased]; what agents have
    answered stays, and the command lists these sessions. If the command fails, run it again.
    """
    settings = load_settings_or_exit(flags)
    if not yes:
        click.confirm(f"Erase {to_printable(name)} with all sessions and messages?", abort=True, err=True)
    result = call_command(settings, "erase_principal", name=name)
    count = len(result["deleted_sessions"])
    print_note(f"{result['principal']} is erased; {count} session{'' if count == 1 else 's'} deleted")
    if result["other_sessions"]:
        print_note("answers of agents to its messages stay in these sessions:")
    for key in result["other_sessions"]:
        click.echo(to_printable(key))


OVERSIGHT_COMMANDS = (show_usage, change_quota, show_audit, erase)


def _list_names(settings: Settings) -> dict[str, str]:
    return {record["id"]: record["name"] for record in call_command(settings, "list_principals")}
