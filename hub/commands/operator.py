"""The commands of the operator: their names, their arguments, and their answers as plain JSON values.

They come over the control socket of a running hub, or from the command line where no hub runs.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import attrs
import msgspec

from hub.access.principal import OPERATOR
from hub.access.records import TenantRole
from hub.commands import table as commands
from hub.commands.export_json import present_credential, present_message_page, present_principal_data
from hub.commands.hub import Hub
from hub.days import Day
from hub.errors import UnknownType
from hub.ids import DEFAULT_TENANT, quote
from hub.limits import CountOrZero
from hub.messages import Id
from hub.protocols.reading import convert

CONTROL_SOCKET = "control.sock"  # in the data folder of a running hub
MAX_AUDIT_ENTRIES = 100_000  # in one answer

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Days = Annotated[float, msgspec.Meta(gt=0, le=36_500)]
AgentIds = Annotated[tuple[Id, ...], msgspec.Meta(min_length=1)]


class _Arguments(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The arguments of a use case, by the names of its parameters."""

    example: ClassVar[str] = '{"name":"ann"}'


class _NoArguments(_Arguments):
    example: ClassVar[str] = "{}"


class _PrincipalName(_Arguments):
    name: str


class _OptionalName(_Arguments):
    name: str | None = None


class _OptionalTenant(_Arguments):
    example: ClassVar[str] = '{"tenant":"default"}'
    tenant: str | None = None


class _CredentialId(_Arguments):
    example: ClassVar[str] = '{"credentialId":"0123456789abcdef"}'
    credential_id: str


class _ProbeId(_Arguments):
    example: ClassVar[str] = '{"probeId":"0123456789abcdef"}'
    probe_id: str


class _MessagePosition(_Arguments):
    example: ClassVar[str] = '{"principalId":"p_0123456789abcdef","after":0}'
    principal_id: str
    after: int = 0


class _NewPerson(_Arguments):
    example: ClassVar[str] = '{"name":"ann","role":"member"}'
    name: Name
    role: TenantRole | None = None
    tenant: str = DEFAULT_TENANT


class _KeyFields(_NewPerson):
    example: ClassVar[str] = '{"name":"ann","role":"member","agents":["main"],"days":90}'
    agents: AgentIds | None = None
    days: Days | None = None


class _PrincipalChange(_Arguments):
    example: ClassVar[str] = '{"name":"ann","role":"admin"}'
    name: str
    role: TenantRole | None = None
    new_name: Name | None = None


class _UsageFilter(_Arguments):
    example: ClassVar[str] = '{"since":"2026-11-01"}'
    since: Day | None = None
    until: Day | None = None
    subject_id: str | None = None


class _QuotaSubject(_Arguments):
    example: ClassVar[str] = '{"subject":"ann"}'
    subject: str


class _QuotaChange(_QuotaSubject):
    example: ClassVar[str] = '{"subject":"ann","changes":{"messages":100}}'
    changes: dict[Literal["runs", "messages", "tokens", "stored_bytes"], CountOrZero | None]


class _AuditFilter(_Arguments):
    example: ClassVar[str] = '{"limit":100}'
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_AUDIT_ENTRIES)] = 100
    subject_id: str | None = None
    target: str | None = None


@attrs.frozen
class OperatorCommand:
    """One row: the use case, and the class of its arguments. *present* turns the result into plain JSON values."""

    use_case: commands.UseCase[Any, Any]
    arguments: type[_Arguments]
    present: Callable[[Any], Any] = msgspec.to_builtins


@attrs.frozen
class OperatorAnswer:
    """The answer to a command. *isSignInOn* tells whether the hub asks for the credentials that were made."""

    result: Any
    isSignInOn: bool


def _present_credentials(credentials: Any) -> list[dict[str, Any]]:
    return [present_credential(credential) for credential in credentials]


OPERATOR_COMMANDS: dict[str, OperatorCommand] = {
    "create_key": OperatorCommand(commands.create_key, _KeyFields),
    "list_credentials": OperatorCommand(commands.list_credentials, _OptionalName, _present_credentials),
    "revoke_credential": OperatorCommand(commands.revoke_credential, _CredentialId, present_credential),
    "invite_person": OperatorCommand(commands.invite_person, _NewPerson),
    "list_principals": OperatorCommand(commands.list_principals, _OptionalTenant),
    "change_principal": OperatorCommand(commands.change_principal, _PrincipalChange),
    "remove_principal": OperatorCommand(commands.remove_principal, _PrincipalName),
    "adopt_sessions": OperatorCommand(commands.adopt_sessions, _PrincipalName),
    "read_usage": OperatorCommand(commands.read_usage, _UsageFilter),
    "read_quota": OperatorCommand(commands.read_quota, _QuotaSubject),
    "set_quota": OperatorCommand(commands.set_quota, _QuotaChange),
    "read_audit": OperatorCommand(commands.read_audit, _AuditFilter),
    "erase_principal": OperatorCommand(commands.erase_principal, _PrincipalName),
    "export_principal": OperatorCommand(commands.export_principal, _PrincipalName, present_principal_data),
    "export_messages": OperatorCommand(commands.export_messages, _MessagePosition, present_message_page),
    "create_probe": OperatorCommand(commands.create_probe, _NoArguments),
    "find_probe": OperatorCommand(commands.find_probe, _ProbeId),
}


async def run_operator_command(hub: Hub, name: str, fields: Mapping[str, Any]) -> OperatorAnswer:
    """Run a command of the table with arguments from JSON.

    Raises UnknownType for an unknown name, BadFrame for wrong arguments, and the errors of the use case.
    """
    command = OPERATOR_COMMANDS.get(name)
    if command is None:
        raise UnknownType(f"unknown command {quote(name)}: use one of {', '.join(OPERATOR_COMMANDS)}")
    arguments = convert(dict(fields), command.arguments, hub.limits, name)
    result = await command.use_case(hub, OPERATOR, **msgspec.structs.asdict(arguments))
    return OperatorAnswer(command.present(result), hub.is_sign_in_on)
