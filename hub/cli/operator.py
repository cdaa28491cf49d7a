"""The commands of the operator: `hubbub key`, `hubbub invite` and `hubbub principal`."""

import re
import time
from typing import Any, get_args

import click

from hub.access.doors import ANY_ADDRESS
from hub.access.records import TenantRole
from hub.access.secrets import parse_token
from hub.cli.calling import call_command, folder_options, format_time, load_hub_settings, print_note
from hub.cli.failures import load_settings_or_exit
from hub.cli.tables import TableColumn, print_table
from hub.cli.text import to_printable
from hub.ids import describe_bad_id, is_id

ROLES = click.Choice(get_args(TenantRole))
HOURS = {"h": 1, "d": 24}
KEY_COLUMNS = (
    TableColumn("id", is_whole=True),
    TableColumn("principal"),
    TableColumn("kind", is_whole=True, rank=1),
    TableColumn("agents"),
    TableColumn("expires", is_whole=True, rank=2),
    TableColumn("last use", is_whole=True, rank=3),
    TableColumn("state", is_whole=True),
)
PRINCIPAL_COLUMNS = (
    TableColumn("name"),
    TableColumn("id", is_whole=True),
    TableColumn("kind", is_whole=True, rank=2),
    TableColumn("role", is_whole=True),
    TableColumn("tenant", is_whole=True, rank=1),
    TableColumn("created", is_whole=True, rank=3),
)

role_option = click.option("--role", type=ROLES, help="The role of a new principal (member).")
tenant_option = click.option("--tenant", metavar="NAME", help="The tenant of a new principal (default).")


def _parse_days(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    match = re.fullmatch(r"([0-9]{1,6})([hd])", value or "")
    if value is not None and (match is None or not int(match[1])):
        raise click.BadParameter("write it as 90d (days) or 12h (hours)")
    return int(match[1]) * HOURS[match[2]] / 24 if match is not None else None


def _split_ids(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    ids = [text.strip() for text in (value or "").split(",") if text.strip()]
    if value is not None and not ids:
        raise click.BadParameter("name one agent or several, as main,echo")
    for agent_id in ids:
        if not is_id(agent_id):
            raise click.BadParameter(describe_bad_id("the agent", agent_id))
    return ids or None


@click.group("key")
def key_commands() -> None:
    """Make, list and revoke keys, with which programs sign in."""


@key_commands.command("create")
@click.argument("name")
@role_option
@click.option("--agents", callback=_split_ids, metavar="A,B", help="The only agents that the key may use (all).")
@click.option("--expires", callback=_parse_days, metavar="TIME", help="How long the key is valid: 90d, 12h (for ever).")
@tenant_option
@folder_options
def _create_key(
    name: str, role: str | None, agents: list[str] | None, expires: float | None, tenant: str | None, **flags: Any
) -> None:
    """Make a key for the principal NAME, and print the key, this once.

    If nobody has the name, a program with this name is made.
    """
    settings = load_hub_settings(flags)
    result = call_command(settings, "create_key", name=name, role=role, agents=agents, days=expires, tenant=tenant)
    click.echo(result["key"])
    for warning in result["warnings"]:
        print_note(f"{warning}; the key can use this agent as soon as its file is there")
    print_note(f"the key is not shown again; to end it: hubbub key revoke {result['keyId']}")


@key_commands.command("list")
@click.argument("name", required=False)
@click.option("--all", "with_all", is_flag=True, help="List browsers, links, and users of proxies and issuers too.")
@folder_options
def _list_keys(name: str | None, with_all: bool, **flags: Any) -> None:
    """List the keys of NAME, or of all, with the time of their last use."""
    settings = load_settings_or_exit(flags)
    credentials = call_command(settings, "list_credentials", name=name)
    names = {record["id"]: record["name"] for record in call_command(settings, "list_principals")}
    rows = [
        (
            credential["id"],
            names.get(credential["principal"], credential["principal"]),
            credential["kind"],
            "all" if credential["agents"] is None else ", ".join(credential["agents"]),
            format_time(credential["expires"], "never"),
            format_time(credential["used"], "-"),
            _describe_state(credential),
        )
        for credential in credentials
        if with_all or credential["kind"] == "key"
    ]
    print_table(KEY_COLUMNS, rows, "no keys yet")


@key_commands.command("revoke")
@click.argument("key_id", metavar="ID")
@folder_options
def _revoke_key(key_id: str, **flags: Any) -> None:
    """End the key with this ID, also on open connections. Browsers and links have an id too."""
    token = parse_token(key_id)
    settings = load_settings_or_exit(flags)
    result = call_command(settings, "revoke_credential", credentialId=token.id if token is not None else key_id)
    click.echo(to_printable(f"{result['id']} is revoked"))


@click.command("invite")
@click.argument("name")
@role_option
@tenant_option
@folder_options
def invite(name: str, role: str | None, tenant: str | None, **flags: Any) -> None:
    """Print a link that signs the person NAME in, in one browser, once, within 7 days.

    If nobody has the name, a person with this name is made.
    """
    settings = load_hub_settings(flags)
    link = call_command(settings, "invite_person", name=name, role=role, tenant=tenant)
    click.echo(link)
    if settings.public_url is None and settings.host in ANY_ADDRESS:
        print_note("the link is for this machine: set public_url in hubbub.toml to the address that others use")


@click.group("principal")
def principal_commands() -> None:
    """List and change principals: the people and programs that the hub knows."""


@principal_commands.command("list")
@click.option("--tenant", metavar="NAME", help="Only those of this tenant (all).")
@folder_options
def _list_principals(tenant: str | None, **flags: Any) -> None:
    """List the principals."""
    records = call_command(load_settings_or_exit(flags), "list_principals", tenant=tenant)
    fields = ("name", "id", "kind", "role", "tenant")
    rows = [(*(record[field] for field in fields), format_time(record["created"], "-")) for record in records]
    empty = "nobody yet: make a key with hubbub key create NAME, or hubbub invite NAME"
    print_table(PRINCIPAL_COLUMNS, rows, empty)


@principal_commands.command("set")
@click.argument("name")
@click.option("--role", type=ROLES, help="The new role.")
@click.option("--name", "new_name", metavar="NAME", help="The new name.")
@folder_options
def _change_principal(name: str, role: str | None, new_name: str | None, **flags: Any) -> None:
    """Change the role or the name of the principal NAME, a name or an id. Open connections have the role at once."""
    if role is None and new_name is None:
        raise click.UsageError("say what to change: --role or --name")
    result = call_command(load_settings_or_exit(flags), "change_principal", name=name, role=role, newName=new_name)
    click.echo(to_printable(f"{result['name']} has the role {result['role']}"))


@principal_commands.command("remove")
@click.argument("name")
@folder_options
def _remove_principal(name: str, **flags: Any) -> None:
    """Delete the principal NAME, a name or an id, with its keys and its roles in sessions. Its messages stay."""
    result = call_command(load_settings_or_exit(flags), "remove_principal", name=name)
    click.echo(to_printable(f"{result['name']} ({result['id']}) is removed"))


@principal_commands.command("adopt")
@click.argument("name")
@folder_options
def _adopt_sessions(name: str, **flags: Any) -> None:
    """Make the principal NAME, a name or an id, the owner of all sessions of its tenant that have none.

    These are the sessions from before sign-in was set up.
    """
    count = call_command(load_settings_or_exit(flags), "adopt_sessions", name=name)
    click.echo(to_printable(f"{name} is now the owner of {count} more session{'' if count == 1 else 's'}"))


OPERATOR_GROUPS = (key_commands, invite, principal_commands)


def _describe_state(credential: dict[str, Any]) -> str:
    if credential["revoked"]:
        return "used" if credential["kind"] == "invite" and credential["used"] else "revoked"
    return "expired" if 0 < credential["expires"] <= time.time() * 1000 else "valid"
