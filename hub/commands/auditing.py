"""Make the audit entries of a call of a use case."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from hub.access.permissions import Action
from hub.access.principal import Principal
from hub.access.records import Credential, PrincipalRecord
from hub.commands.client import ClientHandle
from hub.commands.erasing import Erasure
from hub.commands.hub import Hub
from hub.commands.principals import NewKey
from hub.commands.scopes import Scope
from hub.commands.sign_in import SignIn
from hub.commands.usage import QuotaState
from hub.errors import HubError
from hub.ids import is_id

# Which calls of a use case get an entry:
# - all: every call
# - reads: refused calls, and the first read of a session in a minute
# - refusals: refused calls, and calls that sign somebody in
AuditRule = Literal["all", "reads", "refusals"]
ACTION_RULES: dict[Action, AuditRule] = {"enter": "refusals", "join": "refusals", "read": "reads"}
REFUSAL_STATUSES = (401, 403, 404, 429)  # of the errors that refuse a read


def get_rule(action: Action) -> AuditRule:
    """Return the rule of the use cases with this action."""
    return ACTION_RULES.get(action, "all")


@attrs.frozen(kw_only=True)
class AuditedCall:
    """A call of a use case: *name* is the name of its row, *start* the time of its start (ms)."""

    hub: Hub
    principal: Principal
    name: str
    rule: AuditRule
    arguments: Sequence[Any]
    options: Mapping[str, Any]
    scope: Scope
    start: int

    @property
    def client(self) -> ClientHandle | None:
        return next((value for value in self.arguments if isinstance(value, ClientHandle)), None)

    def add_refusal(self, error: HubError) -> None:
        """Add the entries of a call that raised *error*."""
        if self.rule == "all" or error.status in REFUSAL_STATUSES:
            for target in self._list_targets(self.principal, None):
                self.hub.audit.note(self.principal, self.name, target, error.code, self.start)

    async def add_success(self, result: object) -> None:
        """Add the entries of a call that returned *result*, or whose caller did not wait for its end."""
        actor = self._find_actor(result)
        if self.rule == "refusals" and actor is self.principal:
            return
        targets = self._list_targets(actor, result)
        if targets == [""] and self.principal.is_operator and self.options.get("name"):
            targets = [await _find_principal_id(self.hub, self.options["name"])]
        for target in targets:
            if self.rule != "reads" or self._is_new_read(target):
                self.hub.audit.note(actor, self.name, target, start=self.start)

    def _is_new_read(self, target: str) -> bool:
        client, principal = self.client, self.principal
        reader = client.id if client is not None else f"{principal.id} {principal.address}"
        return self.hub.audit.is_new_read(reader, self.name, target)

    def _find_actor(self, result: object) -> Principal:
        """Return the principal of the call: if the call has signed somebody in, this principal."""
        if self.principal.is_signed_in:
            return self.principal
        if isinstance(result, SignIn):
            return attrs.evolve(result.principal, address=self.principal.address)
        client = self.client
        return client.principal if client is not None and client.principal.is_signed_in else self.principal

    def _list_targets(self, actor: Principal, result: object) -> list[str]:
        """Return the keys of the sessions that the arguments or the result name, or else other ids, or one ""."""
        session_ids = [target.session_id for target in self.scope if target.session_id is not None]
        ids = session_ids or [id for id in [_find_session_id(result)] if id is not None]
        if ids:
            return [self.hub.make_key(actor, id) if is_id(id) else "" for id in ids]
        ids = [id for target in self.scope for id in (target.file_id, target.agent_id) if id is not None and is_id(id)]
        return ids or [_find_record_id(result)]


def _find_session_id(result: object) -> str | None:
    """Return the id of the session that a use case has made or joined, as its result names it."""
    if isinstance(result, SignIn):
        return result.session_id
    session_id = getattr(result[0] if isinstance(result, tuple) and result else result, "sessionId", None)
    return session_id if isinstance(session_id, str) else None


def _find_record_id(result: object) -> str:
    """Return the id of what a command of the operator has changed, as its result names it."""
    if isinstance(result, NewKey):
        return result.principal.id
    if isinstance(result, (PrincipalRecord, Credential)):
        return result.id
    if isinstance(result, Erasure):
        return result.principal
    if isinstance(result, QuotaState):
        return result.quota.subject
    return ""


async def _find_principal_id(hub: Hub, name: str) -> str:
    """Return the id of the principal that an operator's command names, or "" if it is not clear."""
    ids = [record.id for record in await hub.node.log.access.list_principals() if name in (record.id, record.name)]
    return ids[0] if len(ids) == 1 else ""
