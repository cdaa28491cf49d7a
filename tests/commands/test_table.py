"""The table of use cases: each use case checks the permission of the principal before it does anything."""

import pytest
from support.hub import Hub
from support.use_cases import ROWS, ClientOpened

from hub.access.principal import LOCAL, NOBODY, Principal
from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.errors import Draining, HubError, Unauthenticated
from hub.messages import COMMANDS, ChatWithRequest, Page, PageRequest, Ping
from hub.storage.log import LogUnusable
from hub.web.websocket import SOCKETS_KEY

GUEST = Principal(id="p_1", name="Guest", role="guest")
SESSION = "s1"


async def client_of(hub: Hub) -> ClientHandle:
    """Connect a socket; return the hub's handle of it."""
    await hub.connect("?agentId=echo")
    client = [*hub.app[SOCKETS_KEY]][0].client
    return client


def test_each_use_case_has_a_row_here() -> None:
    """A new use case without a row fails this test, and so does a changed action."""
    assert {name: row.action for name, row in commands.USE_CASES.items()} == {n: row.action for n, row in ROWS.items()}


def test_each_command_of_a_socket_has_a_use_case() -> None:
    """All but `ping`, which needs no permission. Protocols of other packages may also send chats with requests."""
    known = {*commands.CLIENT_USE_CASES, *commands.NOTICE_USE_CASES}
    assert known | {Ping} == {*COMMANDS.values(), ChatWithRequest}
    assert {*commands.CLIENT_USE_CASES.values(), *commands.NOTICE_USE_CASES.values()} <= {*commands.USE_CASES.values()}


async def test_whoever_has_not_signed_in_is_refused_by_each_use_case(hub: Hub) -> None:
    """The refusal comes first: no use case leaves a session, a run, a listener or a file."""
    await hub.start()
    client = await client_of(hub)
    for name, row in ROWS.items():
        if row.action != "enter":
            with pytest.raises(Unauthenticated) as refusal:
                await commands.USE_CASES[name](hub.door, NOBODY, *row.arguments(client, SESSION))
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
            await commands.USE_CASES[name](hub.door, LOCAL, *row.arguments(client, SESSION))
            is_refused = False
        except Draining:
            is_refused = True
        except (HubError, ClientOpened, LogUnusable):
            is_refused = False
        assert is_refused is not row.is_served, name


async def test_a_denied_command_gets_an_error_on_its_socket(hub: Hub) -> None:
    """The error has the `ref` of the command, and the connection stays open."""
    await hub.start()
    socket = await hub.connect("?agentId=echo")
    client = [*hub.app[SOCKETS_KEY]][0].client
    client.principal = GUEST
    await socket.send(type="chat", message="hello", ref="one")
    error = await socket.next()
    assert (error["type"], error["code"], error["ref"]) == ("error", "denied", "one")
    client.principal = LOCAL
    await socket.send(type="chat", message="hello", sessionId="s1")
    assert (await socket.until_done())["stopReason"] == "end_turn"
