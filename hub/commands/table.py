"""The table of use cases: one row for each, with the permission that is checked before the call.

`web` and `cli` call the rows of this table, and no function behind them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import attrs

from hub.access.permissions import Action
from hub.access.principal import Principal
from hub.commands import agents as _agents
from hub.commands import archiving as _archiving
from hub.commands import chat as _chat
from hub.commands import checking as _checking
from hub.commands import complete as _complete
from hub.commands import control as _control
from hub.commands import erasing as _erasing
from hub.commands import exporting as _exporting
from hub.commands import files as _files
from hub.commands import history as _history
from hub.commands import listen as _listen
from hub.commands import members as _members
from hub.commands import metrics as _metrics
from hub.commands import principals as _principals
from hub.commands import probing as _probing
from hub.commands import reloading as _reloading
from hub.commands import rewrite as _rewrite
from hub.commands import sessions as _sessions
from hub.commands import sign_in as _sign_in
from hub.commands import usage as _usage
from hub.commands.auditing import AuditedCall, AuditRule, get_rule
from hub.commands.client import ClientHandle
from hub.commands.guard import check_action, check_target
from hub.commands.hub import Hub
from hub.commands.scopes import (
    Scope,
    agent_scope,
    chat_scope,
    command_scope,
    file_scope,
    fork_scope,
    new_session_scope,
    no_scope,
    rewrite_scope,
    session_scope,
    subscribe_scope,
)
from hub.errors import HubError
from hub.messages import (
    Auth,
    Cancel,
    Chat,
    ChatWithRequest,
    Command,
    Edit,
    Fork,
    Hello,
    Ping,
    Pong,
    Regenerate,
    Resume,
    Subscribe,
    Typing,
    Unsubscribe,
)

# Actions whose permission comes from the role in the session. Without a session, being signed in is enough.
SESSION_SCOPED: frozenset[Action] = frozenset({"create", "read", "write", "manage"})

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class UseCase(Generic[P, R]):
    """One row. *action* is the permission that the caller needs, for each session that *scope* names.

    Without a target in the scope, the permission depends on the principal alone. *while_draining* allows calls while
    the hub goes down. With *is_rechecked*, the permission is checked again before the result is returned: during the
    call, a session may have been deleted, and made anew by another principal. *audit* replaces the rule of the action
    for the audit.
    """

    function: Callable[Concatenate[Hub, Principal, P], Awaitable[R]]
    action: Action
    scope: Callable[..., Scope] = no_scope
    while_draining: bool = attrs.field(default=False, kw_only=True)
    is_rechecked: bool = attrs.field(default=False, kw_only=True)
    audit: AuditRule | None = attrs.field(default=None, kw_only=True)

    async def __call__(self, hub: Hub, principal: Principal, *args: P.args, **kwargs: P.kwargs) -> R:
        """Check the permission and call the function.

        While sign-in is on, add entries to the audit. Raises Unauthenticated, Denied, UnknownSession, Draining, and the
        function's errors.
        """
        if not hub.is_sign_in_on:
            return await self._call(hub, principal, *args, **kwargs)
        call, result = self._make_call(hub, principal, args, kwargs), None
        try:
            result = await self._call(hub, principal, *args, **kwargs)
        except HubError as error:
            call.add_refusal(error)
            raise
        except BaseException:  # such as the end of the caller's connection
            await call.add_success(None)
            raise
        await call.add_success(result)
        return result

    def _make_call(self, hub: Hub, principal: Principal, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AuditedCall:
        return AuditedCall(
            hub=hub,
            principal=principal,
            name=self.function.__name__,
            rule=self.audit or get_rule(self.action),
            arguments=args,
            options=kwargs,
            scope=self.scope(*args, **kwargs),
            start=hub.node.seams.now(),
        )

    async def _call(self, hub: Hub, principal: Principal, *args: P.args, **kwargs: P.kwargs) -> R:
        if not principal.is_operator:
            if self.action != "enter":
                principal = await hub.directory.renew(principal)  # it may have changed since the request came
            await self._check(hub, principal, *args, **kwargs)
        if not self.while_draining:
            hub.node.refuse_if_draining()
        result = await self.function(hub, principal, *args, **kwargs)
        if self.is_rechecked and not principal.is_operator:
            await self._check(hub, await hub.directory.renew(principal), *args, **kwargs)
        return result

    async def _check(self, hub: Hub, principal: Principal, *args: Any, **kwargs: Any) -> None:
        check_action(principal, "join" if self.action in SESSION_SCOPED else self.action)
        for target in self.scope(*args, **kwargs):
            await check_target(hub, principal, "read" if target.for_reading else self.action, target)


chat = UseCase(_chat.chat, "write", chat_scope)
stream_chat = UseCase(_chat.stream_chat, "write", chat_scope)
ask = UseCase(_chat.ask, "write", chat_scope)
complete = UseCase(_complete.complete, "use", agent_scope)
regenerate = UseCase(_rewrite.regenerate, "write", rewrite_scope)
edit = UseCase(_rewrite.edit, "write", rewrite_scope)
fork = UseCase(_rewrite.fork, "write", fork_scope)
cancel = UseCase(_control.cancel, "write", command_scope, while_draining=True)
resume = UseCase(_control.resume, "write", command_scope, while_draining=True)
answer_questions = UseCase(_control.answer_questions, "write", session_scope)
typing = UseCase(_listen.typing, "write", command_scope, while_draining=True, audit="refusals")
upload = UseCase(_files.upload, "write", new_session_scope)
delete_file = UseCase(_files.delete_file, "write", file_scope)
create_session = UseCase(_sessions.create_session, "read", new_session_scope, audit="all")
relabel = UseCase(_sessions.relabel, "write", new_session_scope, while_draining=True)

welcome = UseCase(_listen.welcome, "enter", while_draining=True)
hello = UseCase(_listen.hello, "enter", while_draining=True)
subscribe = UseCase(_listen.subscribe, "read", subscribe_scope, while_draining=True)
unsubscribe = UseCase(_listen.unsubscribe, "join", while_draining=True)
follow_session = UseCase(_listen.follow_session, "read", session_scope, while_draining=True)
connect_session = UseCase(_listen.connect_session, "read", session_scope, while_draining=True)
follow_run = UseCase(_chat.follow_run, "read", session_scope, while_draining=True)
list_sessions = UseCase(_history.list_sessions, "join", while_draining=True)
get_session = UseCase(_history.get_session, "read", session_scope, while_draining=True, is_rechecked=True)
list_messages = UseCase(_history.list_messages, "read", session_scope, while_draining=True, is_rechecked=True)
read_events = UseCase(_history.read_events, "read", session_scope, while_draining=True, is_rechecked=True)
list_files = UseCase(_files.list_files, "read", session_scope, while_draining=True, is_rechecked=True)
open_file = UseCase(_files.open_file, "read", file_scope, while_draining=True)
list_agents = UseCase(_agents.list_agents, "join", while_draining=True)
get_agent = UseCase(_agents.get_agent, "join", agent_scope, while_draining=True)
get_working_agent = UseCase(_agents.get_working_agent, "join", agent_scope, while_draining=True)

authenticate = UseCase(_sign_in.authenticate, "enter", while_draining=True)
find_foreign_user = UseCase(_sign_in.find_foreign_user, "enter", while_draining=True)
auth = UseCase(_sign_in.auth, "enter", while_draining=True, audit="all")
use_link = UseCase(_sign_in.use_link, "enter", audit="all")
redeem_ticket = UseCase(_sign_in.redeem_ticket, "enter", while_draining=True)
get_me = UseCase(_sign_in.get_me, "join", while_draining=True)
sign_out = UseCase(_sign_in.sign_out, "join", while_draining=True, audit="all")
make_ticket = UseCase(_sign_in.make_ticket, "join", while_draining=True)

list_members = UseCase(_members.list_members, "read", session_scope, while_draining=True)
change_member = UseCase(_members.change_member, "manage", session_scope, while_draining=True)
create_invite = UseCase(_members.create_invite, "manage", new_session_scope)
list_invites = UseCase(_members.list_invites, "manage", session_scope, while_draining=True, is_rechecked=True)
revoke_invite = UseCase(_members.revoke_invite, "manage", session_scope, while_draining=True)

delete_session = UseCase(_sessions.delete_session, "manage", session_scope)
clear_sessions = UseCase(_sessions.clear_sessions, "join")

reload_agent = UseCase(_agents.reload_agent, "administer", agent_scope)
broadcast = UseCase(_agents.broadcast, "administer", agent_scope)
change_settings = UseCase(_reloading.change_settings, "operate")
reload_agents = UseCase(_agents.reload_agents, "operate")
inspect_agents = UseCase(_agents.inspect_agents, "operate", while_draining=True)
read_metrics = UseCase(_metrics.read_metrics, "operate", while_draining=True, audit="refusals")
check_data = UseCase(_checking.check_data, "operate", while_draining=True)
list_log_risks = UseCase(_checking.list_log_risks, "operate", while_draining=True)
create_probe = UseCase(_probing.create_probe, "operate", while_draining=True, audit="refusals")
find_probe = UseCase(_probing.find_probe, "operate", while_draining=True, audit="refusals")
receive_probe = UseCase(_probing.receive_probe, "enter", while_draining=True)
back_up = UseCase(_archiving.back_up, "operate", while_draining=True)
restore = UseCase(_archiving.restore, "operate", while_draining=True)

create_key = UseCase(_principals.create_key, "operate", while_draining=True)
list_credentials = UseCase(_principals.list_credentials, "operate", while_draining=True)
revoke_credential = UseCase(_principals.revoke_credential, "operate", while_draining=True)
invite_person = UseCase(_principals.invite_person, "operate", while_draining=True)
list_principals = UseCase(_principals.list_principals, "operate", while_draining=True)
change_principal = UseCase(_principals.change_principal, "operate", while_draining=True)
remove_principal = UseCase(_principals.remove_principal, "operate", while_draining=True)
adopt_sessions = UseCase(_principals.adopt_sessions, "operate", while_draining=True)
export_principal = UseCase(_exporting.export_principal, "operate", while_draining=True)
export_messages = UseCase(_exporting.export_messages, "operate", while_draining=True, audit="refusals")

erase_principal = UseCase(_erasing.erase_principal, "operate")

read_usage = UseCase(_usage.read_usage, "join", while_draining=True)
read_quota = UseCase(_usage.read_quota, "administer", while_draining=True)
read_audit = UseCase(_usage.read_audit, "administer", while_draining=True)
set_quota = UseCase(_usage.set_quota, "administer", while_draining=True)

# All rows above, by name.
USE_CASES: dict[str, UseCase[Any, Any]] = {name: row for name, row in globals().items() if isinstance(row, UseCase)}

# The use case of each command of a socket. The use cases of the first table have a parameter for the client, and answer
# the command themselves, before its first event. Those of the second table return the answer.
CLIENT_USE_CASES: dict[type[Command], UseCase[Any, Any]] = {
    Auth: auth,
    Hello: hello,
    Chat: chat,
    ChatWithRequest: chat,
    Subscribe: subscribe,
    Unsubscribe: unsubscribe,
    Regenerate: regenerate,
    Edit: edit,
    Fork: fork,
    Typing: typing,
}
NOTICE_USE_CASES: dict[type[Command], UseCase[Any, Any]] = {Cancel: cancel, Resume: resume}


async def receive(client: ClientHandle, command: Command) -> object:
    """Run a command of a socket, answer it, and return the result of its use case. Raises HubError."""
    kind = type(command)
    if kind in CLIENT_USE_CASES:
        return await CLIENT_USE_CASES[kind](client.hub, client.principal, command, client)
    answer = (
        Pong(ref=command.ref) if kind is Ping else await NOTICE_USE_CASES[kind](client.hub, client.principal, command)
    )
    client.answer(answer)
    return answer
