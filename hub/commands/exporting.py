"""Use cases of the operator: export what the hub has about one principal, such as for a person who asks for it."""

from collections.abc import Mapping, Sequence

import attrs

from hub.access.principal import Principal
from hub.access.records import AuditEntry, Credential, PrincipalRecord, SessionRole, UsageRecord
from hub.commands.hub import Hub
from hub.commands.principals import find_principal
from hub.commands.sessions import list_rows
from hub.ids import Key, key_prefix
from hub.limits import MiB
from hub.storage.records import AuthoredMessage, FileRecord, SessionQuery, SessionRow

PAGE_MESSAGES, EXPORT_PAGE_BYTES = 2000, 4 * MiB
FIRST_DAY, LAST_DAY = "0000-01-01", "9999-12-31"


@attrs.frozen(kw_only=True)
class PrincipalData:
    """What the log has about a principal, without its messages: see export_messages().

    *roles* are its roles in *sessions*, by the keys of the sessions.
    """

    principal: PrincipalRecord
    credentials: Sequence[Credential]
    sessions: Sequence[SessionRow]
    roles: Mapping[Key, SessionRole]
    files: Sequence[FileRecord]
    usage: Sequence[UsageRecord]
    audit: Sequence[AuditEntry]


@attrs.frozen
class MessagePage:
    """A page of messages, and *after* for the next page, or None on the last page."""

    messages: Sequence[AuthoredMessage]
    after: int | None


async def export_principal(hub: Hub, principal: Principal, name: str) -> PrincipalData:
    """Return what the log has about a principal, a name or an id.

    Raises UnknownPrincipal, AmbiguousName, StorageUnavailable.
    """
    record, log = await find_principal(hub, principal, name), hub.node.log
    await hub.directory.save_uses()
    await hub.audit.save()
    return PrincipalData(
        principal=record,
        credentials=await log.access.list_credentials(record.id),
        sessions=await list_rows(hub, SessionQuery(prefix=key_prefix(record.tenant), readers={record.id})),
        roles={grant.key: grant.role for grant in await log.access.list_grants(record.id)},
        files=await log.files.list_files_of_author(record.id),
        usage=await log.access.list_usage(None, FIRST_DAY, LAST_DAY, record.id),
        audit=await log.access.list_audit(None, hub.limits.audit_entries, record.id),
    )


async def export_messages(hub: Hub, principal: Principal, principal_id: str, after: int = 0) -> MessagePage:
    """Return a page of the messages that a principal wrote, and of the answers to them. Raises StorageUnavailable."""
    store = hub.node.log.sessions
    return MessagePage(*await store.read_messages_of_author(principal_id, after, PAGE_MESSAGES, EXPORT_PAGE_BYTES))
