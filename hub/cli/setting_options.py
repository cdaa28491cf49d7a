"""The flags of `hubbub serve`: one for each setting, in groups."""

from typing import Any, Literal, get_args, get_origin

import click

from hub.limits import Limits
from hub.setting_sources import LIST_TYPES, SETTING_TYPES, flag_name
from hub.settings import File, Folder, Settings, Switch

# Each setting with its help; the rest of the help is generated.
SETTING_GROUPS: dict[str, dict[str, str]] = {
    "Addresses and folders": {
        "host": "The address to listen on.",
        "port": "The port to listen on; 0 takes a free one.",
        "agents": "The folder of agent files.",
        "data": "The data folder.",
        "cache": "The folder of files that can be downloaded again (~/.cache/hubbub).",
        "log": "The log, as sqlite:///PATH (hub.db in the data folder).",
        "reload": "Reload agent files when they change.",
    },
    "Clients": {
        "origins": "Origins of web pages that may connect, beside those of this machine.",
        "hosts": "Host names of the hub, beside those of this machine.",
        "tls_certificate": "The certificate (PEM), with those of its issuers; turns https on.",
        "tls_key": "The private key of the certificate (PEM).",
        "public_url": "The address of the hub in links.",
        "base_path": "The path under which a proxy offers the hub, such as /hubbub.",
        "trusted_proxies": "IP addresses and networks of proxies.",
    },
    "Sign-in": {
        "sign_in": "Require sign-in.",
        "guests": "Make guests of people who open the invite link of a session.",
        "session_access": "Who may open a session: invited people, or every member.",
        "allow_http": "Sign browsers in without https.",
        "user_header": "The header in which a trusted proxy names the user.",
        "new_user_role": "The role of a new user of a proxy or an issuer.",
        "jwt_issuer": "Accept tokens (JWT) of this issuer.",
        "jwt_audience": "The audience of the tokens for this hub.",
        "jwt_keys": "The public keys of the issuer: the URL of a key set, or a file.",
        "jwt_secret": "The secret of the issuer. Other accounts can read flags: rather set HUBBUB_JWT_SECRET.",
    },
    "Output": {
        "metrics_port": "The port of a second address, for /metrics, /health and /ready without sign-in.",
        "metrics_host": "The address of --metrics-port to listen on.",
        "log_level": "The lowest level of the log lines that are written.",
        "log_format": "The form of the log lines.",
        "access_log": "Write a line for each HTTP request, and two for each WebSocket.",
        "otel": "Send traces to the collector of OTEL_EXPORTER_OTLP_ENDPOINT.",
        "otel_content": "Send the texts of messages, answers and tools with the traces.",
    },
    "Storage and speed": {
        "retention_days": "How many days the events of ended answers stay.",
        "retention_mb": "How much space these events may use, in MiB.",
        "message_days": "How many days finished messages stay; 0: until their session is deleted.",
        "message_mb": "How much space all finished messages may use, in MiB; 0 removes the limit.",
        "file_days": "How many days files stay that no message names; 0: until their session is deleted.",
        "frames_per_second": "The most frames with new text of a session in a second; 0 removes the limit.",
        "direct_writes": "Write frames directly to the sockets.",
    },
}
METAVARS = {int: "N", float: "N"}


class _SettingOption(click.Option):
    def __init__(self, *args: Any, group: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.group = group


class SettingCommand(click.Command):
    """A command whose help has a section for each group of settings."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of no group last. click calls this method."""
        sections: dict[str, list[tuple[str, str]]] = {group: [] for group in SETTING_GROUPS}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None:
                sections.setdefault(getattr(parameter, "group", "Other options"), []).append(record)
        for group, records in sections.items():
            with formatter.section(group):
                formatter.write_dl(records)


def make_setting_options() -> list[click.Parameter]:
    """Return an option for each setting, and one for all limits."""
    options = [
        _make_option(group, name, text) for group, names in SETTING_GROUPS.items() for name, text in names.items()
    ]
    text = f"A limit, such as queued_runs={Limits().queued_runs}. For several limits, several times."
    limit = _SettingOption(["--limit"], group="Limits", multiple=True, metavar="NAME=VALUE", help=text)
    return [*options, limit]


def _make_option(group: str, name: str, text: str) -> click.Parameter:
    kind, default = SETTING_TYPES[name], getattr(Settings(), name)
    if isinstance(default, bool):
        text = f"{text.removesuffix('.')} ({'on' if default else 'off'})."
    elif default not in (None, (), ""):
        text = f"{text.removesuffix('.')} ({default})."
    flag = flag_name(name)
    if kind is Switch:
        return _SettingOption([f"{flag}/--no-{flag.removeprefix('--')}"], group=group, default=None, help=text)
    return _SettingOption([flag], group=group, metavar=_describe_value(kind), help=text)


def _describe_value(kind: Any) -> str:
    """Return the word for the value of a setting in the help."""
    if kind in (Folder, File):
        return "DIR" if kind == Folder else "FILE"
    base = get_args(kind)[0]  # of Annotated
    if get_origin(base) is Literal:
        return "|".join(get_args(base))
    return "A,B" if kind in LIST_TYPES else METAVARS.get(base, "TEXT")
