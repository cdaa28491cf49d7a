"""The table of use cases: one row for each, with the permission that is checked before the call.

`web` and `cli` call the rows of this table, and no function behind them.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import attrs

from hub.access.principal import Action, Principal, check_permission
from hub.commands import agents as _agents
from hub.commands import chat as _chat
from hub.commands import checking as _checking
from hub.commands import complete as _complete
from hub.commands import control as _control
from hub.commands import files as _files
from hub.commands import history as _history
from hub.commands import listen as _listen
from hub.commands import metrics as _metrics
from hub.commands import rewrite as _rewrite
from hub.commands import sessions as _sessions
from hub.commands.client import ClientHandle
from hub.commands.hub import Hub
from hub.messages import (
    Cancel,
    Chat,
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

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class UseCase(Generic[P, R]):
    """One row. *action* is the permission that the caller needs.

    *while_draining* allows calls while the hub goes down.
    """

    function: Callable[Concatenate[Hub, Principal, P], Awaitable[R]]
    action: Action
    while_draining: bool = False

    async def __call__(self, hub: Hub, principal: Principal, *args: P.args, **kwargs: P.kwargs) -> R:
        """Check the permission and call the function. Raises Denied, Draining, and the function's errors."""
        check_permission(principal, self.action)
        if not self.while_draining:
            hub.node.refuse_if_draining()
        return await self.function(hub, principal, *args, **kwargs)


chat = UseCase(_chat.chat, "write")
stream_chat = UseCase(_chat.stream_chat, "write")
ask = UseCase(_chat.ask, "write")
complete = UseCase(_complete.complete, "write")
regenerate = UseCase(_rewrite.regenerate, "write")
edit = UseCase(_rewrite.edit, "write")
fork = UseCase(_rewrite.fork, "write")
cancel = UseCase(_control.cancel, "write", while_draining=True)
resume = UseCase(_control.resume, "write", while_draining=True)
answer_questions = UseCase(_control.answer_questions, "write")
typing = UseCase(_listen.typing, "write", while_draining=True)
upload = UseCase(_files.upload, "write")
create_session = UseCase(_sessions.create_session, "write")
relabel = UseCase(_sessions.relabel, "write", while_draining=True)

welcome = UseCase(_listen.welcome, "read", while_draining=True)
hello = UseCase(_listen.hello, "read", while_draining=True)
subscribe = UseCase(_listen.subscribe, "read", while_draining=True)
unsubscribe = UseCase(_listen.unsubscribe, "read", while_draining=True)
follow_session = UseCase(_listen.follow_session, "read", while_draining=True)
follow_run = UseCase(_chat.follow_run, "read", while_draining=True)
list_sessions = UseCase(_history.list_sessions, "read", while_draining=True)
get_session = UseCase(_history.get_session, "read", while_draining=True)
list_messages = UseCase(_history.list_messages, "read", while_draining=True)
read_events = UseCase(_history.read_events, "read", while_draining=True)
open_file = UseCase(_files.open_file, "read", while_draining=True)
list_agents = UseCase(_agents.list_agents, "read", while_draining=True)
get_agent = UseCase(_agents.get_agent, "read", while_draining=True)
get_working_agent = UseCase(_agents.get_working_agent, "read", while_draining=True)

delete_session = UseCase(_sessions.delete_session, "manage")
clear_sessions = UseCase(_sessions.clear_sessions, "manage")

reload_agent = UseCase(_agents.reload_agent, "operate")
broadcast = UseCase(_agents.broadcast, "operate")
inspect_agents = UseCase(_agents.inspect_agents, "operate", while_draining=True)
read_metrics = UseCase(_metrics.read_metrics, "operate", while_draining=True)
check_data = UseCase(_checking.check_data, "operate", while_draining=True)

# All rows above, by name.
USE_CASES: dict[str, UseCase[Any, Any]] = {name: row for name, row in globals().items() if isinstance(row, UseCase)}

# The use case of each command of a socket. The use cases of the first table have a parameter for the client, and answer
# the command themselves, before its first event. Those of the second table return the answer.
CLIENT_USE_CASES: dict[type[Command], UseCase[Any, Any]] = {
    Hello: hello,
    Chat: chat,
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
