"""What the arguments of a use case name: the sessions, the agent and the file for which permissions are checked.

A scope is a function with the parameters of its use case. It returns one Target for each session.
"""

from collections.abc import Sequence
from typing import Any

import attrs

from hub.commands.client import ClientHandle
from hub.messages import Chat, Edit, Fork, Regenerate, Subscribe, Unsubscribe
from hub.messages.parts import has_results

DEFAULT_AGENT = "main"


@attrs.frozen(kw_only=True)
class Target:
    """A session that a use case acts on, and the agent that it uses there.

    Without *session_id*, the use case makes a new session (*may_create*), or names none. With *may_create*, a session
    that does not exist is made. *file_id* names a file instead, and so its session. With *for_reading*, the use case
    only reads this session, so the permission for `read` is enough.
    """

    session_id: str | None = None
    agent_id: str | None = None
    file_id: str | None = None
    may_create: bool = False
    for_reading: bool = False


Scope = Sequence[Target]


def no_scope(*args: Any, **kwargs: Any) -> Scope:
    """Name no session and no agent: the permission depends on the principal alone."""
    return ()


def session_scope(session_id: str, *args: Any, **kwargs: Any) -> Scope:
    return (Target(session_id=session_id),)


def new_session_scope(session_id: str | None = None, *args: Any, **kwargs: Any) -> Scope:
    return (Target(session_id=session_id, may_create=True),)


def command_scope(command: Any, *args: Any) -> Scope:
    """Name the session of a command that changes no missing session."""
    return (Target(session_id=command.sessionId),)


def chat_scope(command: Chat, client: Any = None, *args: Any) -> Scope:
    """Name the session of a chat as commands.chat does; *client* may be a function that opens a client."""
    handle = client if isinstance(client, ClientHandle) else None
    agent_id = command.agentId or (handle.agent if handle is not None else DEFAULT_AGENT)
    session_id = command.sessionId or (handle.session if handle is not None else None)
    if session_id is None and handle is not None:
        session_id = handle.own_sessions.get(agent_id)
    # The agent of a tool call is only known in its session: there, Sender.check() checks the permission.
    is_agent_open = command.agentId is None and has_results(command.parts)
    return (Target(session_id=session_id, agent_id=None if is_agent_open else agent_id, may_create=True),)


def rewrite_scope(command: Edit | Regenerate, *args: Any) -> Scope:
    return (Target(session_id=command.sessionId, agent_id=command.agentId),)


def fork_scope(command: Fork, *args: Any) -> Scope:
    """Name both sessions: a fork reads one, and makes the other."""
    return (
        Target(session_id=command.sessionId, for_reading=True),
        Target(session_id=command.newSessionId, may_create=True),
    )


def subscribe_scope(command: Subscribe | Unsubscribe, client: ClientHandle) -> Scope:
    if command.agentId is not None:
        return (Target(agent_id=command.agentId),)
    return (Target(session_id=command.sessionId),) if command.sessionId is not None else ()


def agent_scope(agent_id: str, *args: Any, **kwargs: Any) -> Scope:
    return (Target(agent_id=agent_id),)


def file_scope(file_id: str) -> Scope:
    return (Target(file_id=file_id),)
