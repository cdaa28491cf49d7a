"""The table of use cases: each use case checks the permission of the principal before it does anything."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from support.hub import Hub

from hub.access.permissions import Action
from hub.access.principal import LOCAL, NOBODY, Principal
from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.commands.directory import ForeignUser
from hub.errors import Draining, HubError, Unauthenticated
from hub.messages import (
    COMMANDS,
    Auth,
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

GUEST = Principal(id="p_1", name="Guest", role="guest")
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


# Each use case with the action that it needs.
ROWS: dict[str, Row] = {
    "chat": Row("write", lambda client: (CHAT, client)),
    "stream_chat": Row("write", lambda client: (CHAT, open_for_run)),
    "ask": Row("write", lambda client: (CHAT,)),
    "complete": Row("use", lambda client: ("echo", "r1", "hello", ())),
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
    "create_session": Row("read", lambda client: ("s2",)),
    "relabel": Row("write", lambda client: (SESSION, {"title": "x"}), True),
    "welcome": Row("enter", lambda client: (client,), True),
    "hello": Row("enter", lambda client: (Hello(), client), True),
    "subscribe": Row("read", lambda client: (Subscribe(sessionId=SESSION), client), True),
    "unsubscribe": Row("join", lambda client: (Unsubscribe(sessionId=SESSION), client), True),
    "follow_session": Row("read", lambda client: (SESSION, client.get_open_client), True),
    "follow_run": Row("read", lambda client: (SESSION, "r1", 0, open_for_run), True),
    "list_sessions": Row("join", lambda client: (PageRequest(9),), True),
    "get_session": Row("read", lambda client: (SESSION,), True),
    "list_messages": Row("read", lambda client: (SESSION, PageRequest(9)), True),
    "read_events": Row("read", lambda client: (SESSION, 0), True),
    "open_file": Row("read", lambda client: ("f_1",), True),
    "list_agents": Row("join", lambda client: (PageRequest(9),), True),
    "get_agent": Row("join", lambda client: ("echo",), True),
    "get_working_agent": Row("join", lambda client: ("echo",), True),
    "delete_session": Row("manage", lambda client: (SESSION,)),
    "clear_sessions": Row("join", lambda client: ()),
    "reload_agent": Row("administer", lambda client: ("echo",)),
    "broadcast": Row("administer", lambda client: ("echo", "hello")),
    "inspect_agents": Row("operate", lambda client: (), True),
    "read_metrics": Row("operate", lambda client: (), True),
    "check_data": Row("operate", lambda client: (), True),
    "authenticate": Row("enter", lambda client: ("hk_wrong",), True),
    "find_foreign_user": Row("enter", lambda client: (ForeignUser(kind="proxy", subject="x", name="x"),), True),
    "auth": Row("enter", lambda client: (Auth(token="hk_wrong"), client), True),
    "use_link": Row("enter", lambda client: ("hi_wrong",)),
    "redeem_ticket": Row("enter", lambda client: ("ht_wrong", None, None), True),
    "get_me": Row("join", lambda client: (), True),
    "sign_out": Row("join", lambda client: (), True),
    "make_ticket": Row("join", lambda client: (None,), True),
    "list_members": Row("read", lambda client: (SESSION,), True),
    "change_member": Row("manage", lambda client: (SESSION, "p_1", None), True),
    "create_invite": Row("manage", lambda client: (SESSION, "member")),
    "list_invites": Row("manage", lambda client: (SESSION,), True),
    "revoke_invite": Row("manage", lambda client: (SESSION, "i1"), True),
    "create_key": Row("operate", lambda client: ("ann",), True),
    "list_credentials": Row("operate", lambda client: (), True),
    "revoke_credential": Row("operate", lambda client: ("k1",), True),
    "invite_person": Row("operate", lambda client: ("ann",), True),
    "list_principals": Row("operate", lambda client: (), True),
    "change_principal": Row("operate", lambda client: ("nobody here",), True),
    "remove_principal": Row("operate", lambda client: ("nobody here",), True),
    "adopt_sessions": Row("operate", lambda client: ("nobody here",), True),
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


async def test_whoever_has_not_signed_in_is_refused_by_each_use_case(hub: Hub) -> None:
    """The refusal comes first: no use case leaves a session, a run, a listener or a file."""
    await hub.start()
    client = await client_of(hub)
    for name, row in ROWS.items():
        if row.action != "enter":
            with pytest.raises(Unauthenticated) as refusal:
                await commands.USE_CASES[name](hub.door, NOBODY, *row.arguments(client))
            assert (refusal.value.code, refusal.value.status, refusal.value.close_code) == (
                "unauthenticated",
                401,
                4500,
            )
    assert not client.connection.subscriptions and not hub.node.sessions
    assert await commands.list_sessions(hub.door, LOCAL, PageRequest(9)) == Page([])


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
    client.principal = GUEST
    await socket.send(type="chat", message="hello", sessionId="s1", ref="one")
    error = await socket.next()
    assert (error["type"], error["code"], error["ref"]) == ("error", "denied", "one")
    client.principal = LOCAL
    await socket.send(type="chat", message="hello", sessionId="s1")
    assert (await socket.until_done())["stopReason"] == "end_turn"
