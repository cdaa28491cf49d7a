"""The door: each use case asks what the principal may do before it does anything."""

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
    """What a use case is called with; *is_served* says that it is served while the hub goes down."""

    action: Action
    arguments: Callable[[ClientHandle], tuple[Any, ...]]
    is_served: bool = False


class Opened(Exception):
    """A use case opened the client of its answer: nobody refused it before."""


async def open_for_run(run_id: str, is_whole: bool) -> ClientHandle:
    raise Opened


# Each use case with what a principal must be allowed to call it. A principal that may do nothing is refused everywhere.
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
    """Return the hub's own handle on a socket that is connected."""
    await hub.connect("?agentId=echo")
    client = [*hub.app[SOCKETS_KEY]][0].client
    return client


def test_each_use_case_has_a_row_here() -> None:
    """A new one without a row fails; so does one whose action changed."""
    assert {name: row.action for name, row in commands.USE_CASES.items()} == {n: row.action for n, row in ROWS.items()}


def test_each_command_of_a_socket_has_a_use_case() -> None:
    """All but `ping`, which concerns nobody."""
    known = {*commands.CLIENT_USE_CASES, *commands.NOTICE_USE_CASES}
    assert known | {Ping} == set(COMMANDS.values())
    assert {*commands.CLIENT_USE_CASES.values(), *commands.NOTICE_USE_CASES.values()} <= {*commands.USE_CASES.values()}


async def test_one_who_may_do_nothing_is_refused_by_each_use_case(hub: Hub) -> None:
    """Before it has done anything: no session, no run, no listener, and no file is there after it."""
    await hub.start()
    client = await client_of(hub)
    for name, row in ROWS.items():
        with pytest.raises(Denied, match=f"^Nobody may not {row.action} here") as refusal:
            await commands.USE_CASES[name](hub.door, NOBODY, *row.arguments(client))
        assert (refusal.value.code, refusal.value.status, refusal.value.close) == ("denied", 403, 4507)
    assert not client.connection.subscriptions and not hub.node.sessions
    assert await commands.list_sessions(hub.door, LOCAL, PageRequest(9)) == Page([])


@pytest.mark.parametrize("name", ROWS)
async def test_a_use_case_asks_for_its_own_action(hub: Hub, name: str) -> None:
    """One who may do all but that is refused; one who may do that alone is not."""
    await hub.start()
    client, row = await client_of(hub), ROWS[name]
    all_but, alone = ALL_ACTIONS - {row.action}, frozenset({row.action})
    with pytest.raises(Denied):
        await commands.USE_CASES[name](hub.door, attrs.evolve(NOBODY, may=all_but), *row.arguments(client))
    try:
        await commands.USE_CASES[name](hub.door, attrs.evolve(NOBODY, may=alone), *row.arguments(client))
    except Denied:
        pytest.fail(f"{name} asks for more than {row.action}")
    except (HubError, Opened):
        pass  # there is no such session, question or file, or the client of its answer was to be opened


async def test_a_hub_that_goes_down_serves_what_changes_nothing(hub: Hub) -> None:
    """And stops answers; the table says which."""
    await hub.start()
    client = await client_of(hub)
    hub.door.drain()
    for name, row in ROWS.items():
        try:
            await commands.USE_CASES[name](hub.door, LOCAL, *row.arguments(client))
            is_refused = False
        except Draining:
            is_refused = True
        except (HubError, Opened):
            is_refused = False
        assert is_refused is not row.is_served, name


async def test_one_who_may_not_is_told_so_on_its_socket(hub: Hub) -> None:
    """As an error that names its `ref`; the connection stays."""
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
