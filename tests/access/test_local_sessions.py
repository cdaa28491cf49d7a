"""Sessions from before sign-in: they belong to the admins, until one principal adopts them."""

from asyncio import gather
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.hub import Hub

from hub.access.principal import OPERATOR
from hub.commands import table as commands


@pytest.fixture
async def grown(tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub with two sessions and a broadcast from before sign-in. It runs with sign-in now."""
    hub = await Hub(tmp_path).start()
    client = await hub.connect(extended=True)
    for session in ("old-1", "old-2"):
        await client.send(type="chat", agentId="echo", sessionId=session, message="hello")
        await client.until_done()
    await commands.broadcast(hub.door, OPERATOR, "echo", "news")
    await hub.stop()
    hub.options["sign_in"] = True
    yield await hub.start()
    await hub.stop()


async def list_sessions(hub: Hub, key: str) -> set[str]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        async with http.get(f"{hub.url}/api/v1/sessions") as response:
            return {session["sessionId"] for session in (await response.json())["data"]}


async def test_sessions_of_local_belong_to_the_admins(grown: Hub) -> None:
    """To all admins of the default tenant. A member does not see them."""
    assert {"old-1", "old-2"} <= await list_sessions(grown, await grown.key("ann", "admin"))
    assert await list_sessions(grown, await grown.key("bob")) == set()
    assert await list_sessions(grown, await grown.key("eve", "admin", tenant="acme")) == set()


async def test_one_principal_adopts_the_sessions_of_local(grown: Hub) -> None:
    """It owns them then, and the sessions of others stay theirs. A second call finds nothing to adopt."""
    bob, ann = await grown.key("bob"), await grown.key("ann")
    client = await grown.connect(extended=True, headers={"Authorization": f"Bearer {ann}"})
    await client.send(type="chat", agentId="echo", sessionId="new", message="hello")
    await client.until_done()
    eve = await grown.key("eve", tenant="acme")
    assert await commands.adopt_sessions(grown.door, OPERATOR, "eve") == 0
    assert await commands.adopt_sessions(grown.door, OPERATOR, "bob") == 2
    assert await commands.adopt_sessions(grown.door, OPERATOR, "ann") == 0
    assert await list_sessions(grown, bob) >= {"old-1", "old-2"} and await list_sessions(grown, eve) == set()
    assert await list_sessions(grown, ann) == {"new"}
    (member,) = await commands.list_members(grown.door, OPERATOR, "old-1")
    assert (member.name, member.role) == ("bob", "owner")
    assert await commands.list_members(grown.door, OPERATOR, "agent:echo") == ()


async def test_concurrent_commands_make_one_principal(grown: Hub) -> None:
    """Two with one name could not be told apart."""
    keys = await gather(*(commands.create_key(grown.door, OPERATOR, "ann") for _ in range(5)))
    await gather(*(commands.invite_person(grown.door, OPERATOR, "bob") for _ in range(5)))
    assert len({key.principal.id for key in keys}) == 1
    records = await commands.list_principals(grown.door, OPERATOR)
    assert sorted(record.name for record in records) == ["ann", "bob"]
