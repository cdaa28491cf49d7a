"""The table of use cases: each use case checks the permission of the principal before it does anything."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from support.hub import Hub

from hub.access.principal import ALL_ACTIONS, LOCAL, Action, Principal
from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.errors import Denied, Draining, HubError
from hub.messages import (
    COMMANDS,
    Cancel,
    Chat,
    Edit,
    Fork,
    Hello,
    Page,
    PageRequest,
    Ping,
    Regenerate,
    Resume,
    Subscribe,
    Typing,
    Unsubscribe,
)
from hub.web.websocket import SOCKETS_KEY

NOBODY = Principal(id="nobody", name="Nobody")
SESSION, MESSAGE, CHAT = "s1", "m_1", Chat(message="hello", agentId="echo", sessionId="s1")


@attrs.frozen
class Row:
    """How to call a use case. If *is_served*, it also works while the hub drains."""

    action: Action
    arguments: Callable[[ClientHandle], tuple[Any, ...]]
    is_served: bool = False


class ClientOpened(Exception):
    """A use case opened the client for its answer, so it was not refused."""


async def open_for_run(run_id: str, is_whole: bool) -> ClientHandle:
    raise ClientOpened


# Each use case with the action that it needs. A principal without any action is refused everywhere.
ROWS: dict[str, Row] = {
    "chat": Row("write", lambda client: (CHAT, client)),
    "stream_chat": Row("write", lambda client: (CHAT, open_for_run)),
    "ask": Row("write", lambda client: (CHAT,)),
    "complete": Row("write", lambda client: ("echo", "r1", "hello", ())),
    "regenerate": Row("write", lambda client: (Regenerate(sessionId=SESSION, messageId=MESSAGE), client)),
    "edit": Row("write", lambda client: (Edit(sessionId=SESSION, messageId=MESSAGE, message="x"), client)),
    "fork": Row("write", lambda client: (Fork(sessionId=SESSION, messageId=MESSAGE), client)),
    "cancel": Row("write", lambda client: (Cancel(sessionId=SESSION),), True),
    "resume": Row("write", lambda client: (Resume(sessionId=SESSION, interruptId="i", status="cancelled"),), True),
    "answer_questions": Row(
        "write", lambda client: (SESSION, [Resume(sessionId="s1", interruptId="i", status="cancelled")])
    ),
    "typing": Row("write", lambda client: (Typing(sessionId=SESSION), client), True),
    "upload": Row("write", lambda client: (SESSION, "x.txt", "text/plain")),
    "create_session": Row("write", lambda client: ("s2",)),
    "relabel": Row("write", lambda client: (SESSION, {"title": "x"}), True),
    "welcome": Row("read", lambda client: (client,), True),
    "hello": Row("read", lambda client: (Hello(), client), True),
    "subscribe": Row("read", lambda client: (Subscribe(sessionId=SESSION), client), True),
    "unsubscribe": Row("read", lambda client: (Unsubscribe(sessionId=SESSION), client), True),
    "follow_session": Row("read", lambda client: (SESSION, client.get_open_client), True),
    "follow_run": Row("read", lambda client: (SESSION, "r1", 0, open_for_run), True),
    "list_sessions": Row("read", lambda client: (PageRequest(9),), True),
    "get_session": Row("read", lambda client: (SESSION,), True),
    "list_messages": Row("read", lambda client: (SESSION, PageRequest(9)), True),
    "read_events": Row("read", lambda client: (SESSION, 0), True),
    "open_file": Row("read", lambda client: ("f_1",), True),
    "list_agents": Row("read", lambda client: (PageRequest(9),), True),
    "get_agent": Row("read", lambda client: ("echo",), True),
    "get_working_agent": Row("read", lambda client: ("echo",), True),
    "delete_session": Row("manage", lambda client: (SESSION,)),
    "clear_sessions": Row("manage", lambda client: ()),
    "reload_agent": Row("operate", lambda client: ("echo",)),
    "broadcast": Row("operate", lambda client: ("echo", "hello")),
    "inspect_agents": Row("operate", lambda client: (), True),
    "read_metrics": Row("operate", lambda client: (), True),
    "check_data": Row("operate", lambda client: (), True),
}


async def client_of(hub: Hub) -> ClientHandle:
    """Connect a socket; return the hub's handle of it."""
    await hub.connect("?agentId=echo")
    client = [*hub.app[SOCKETS_KEY]][0].client
    return client


def test_each_use_case_has_a_row_here() -> None:
    """A new use case without a row fails this test, and so does a changed action."""
    assert {name: row.action for name, row in commands.USE_CASES.items()} == {n: row.action for n, row in ROWS.items()}


def test_each_command_of_a_socket_has_a_use_case() -> None:
    """All but `ping`, which needs no permission."""
    known = {*commands.CLIENT_USE_CASES, *commands.NOTICE_USE_CASES}
    assert known | {Ping} == set(COMMANDS.values())
    assert {*commands.CLIENT_USE_CASES.values(), *commands.NOTICE_USE_CASES.values()} <= {*commands.USE_CASES.values()}


async def test_a_principal_without_permissions_is_refused_by_each_use_case(hub: Hub) -> None:
    """The refusal comes first: no use case leaves a session, a run, a listener or a file."""
    await hub.start()
    client = await client_of(hub)
    for name, row in ROWS.items():
        with pytest.raises(Denied, match=f"^Nobody may not {row.action} here") as refusal:
            await commands.USE_CASES[name](hub.door, NOBODY, *row.arguments(client))
        assert (refusal.value.code, refusal.value.status, refusal.value.close_code) == ("denied", 403, 4507)
    assert not client.connection.subscriptions and not hub.node.sessions
    assert await commands.list_sessions(hub.door, LOCAL, PageRequest(9)) == Page([])


@pytest.mark.parametrize("name", ROWS)
async def test_a_use_case_needs_exactly_its_own_action(hub: Hub, name: str) -> None:
    """A principal with all other actions is refused. A principal with only this action is not."""
    await hub.start()
    client, row = await client_of(hub), ROWS[name]
    all_but, alone = ALL_ACTIONS - {row.action}, frozenset({row.action})
    with pytest.raises(Denied):
        await commands.USE_CASES[name](hub.door, attrs.evolve(NOBODY, may=all_but), *row.arguments(client))
    try:
        await commands.USE_CASES[name](hub.door, attrs.evolve(NOBODY, may=alone), *row.arguments(client))
    except Denied:
        pytest.fail(f"{name} asks for more than {row.action}")
    except (HubError, ClientOpened):
        pass  # the session, question or file does not exist, or the use case opened the client for its answer


async def test_a_draining_hub_serves_only_the_use_cases_that_start_nothing(hub: Hub) -> None:
    """Each row of the table says whether its use case is served. A cancel is served, too."""
    await hub.start()
    client = await client_of(hub)
    hub.door.drain()
    for name, row in ROWS.items():
        try:
            await commands.USE_CASES[name](hub.door, LOCAL, *row.arguments(client))
            is_refused = False
        except Draining:
            is_refused = True
        except (HubError, ClientOpened):
            is_refused = False
        assert is_refused is not row.is_served, name


async def test_a_denied_command_gets_an_error_on_its_socket(hub: Hub) -> None:
    """The error has the `ref` of the command, and the connection stays open."""
    await hub.start()
    socket = await hub.connect("?agentId=echo")
    client = [*hub.app[SOCKETS_KEY]][0].client
    client.principal = NOBODY
    await socket.send(type="chat", message="hello", sessionId="s1", ref="one")
    error = await socket.next()
    assert (error["type"], error["code"], error["ref"]) == ("error", "denied", "one")
    client.principal = LOCAL
    await socket.send(type="chat", message="hello", sessionId="s1")
    assert (await socket.until_done())["stopReason"] == "end_turn"
