"""Nobody hears what it may not read: each session's chunks carry a secret of their own."""

import asyncio
from pathlib import Path

import pytest
from support.hub import Client, Hub

from hub.access.principal import OPERATOR
from hub.commands import table as commands

CANARY = '''
    """Says its message again and again, as fast as the log takes it."""
    import asyncio

    async def canary(message: str):
        for number in range({chunks}):
            yield f"<{{message}}>"
            await asyncio.sleep(0)
    '''
TENANTS, SESSIONS, LISTENERS, CHUNKS = ("default", "acme"), 10, 5, 1300


async def connect(hub: Hub, key: str) -> Client:
    return await hub.connect(extended=True, headers={"Authorization": f"Bearer {key}"})


async def subscribe(client: Client, **target: str) -> None:
    """Subscribe, and wait for the answer: else the client may miss the first chunks."""
    await client.send(type="subscribe", **target)
    await client.until_type("subscribed")


@pytest.mark.torture
@pytest.mark.timeout(300)
async def test_no_session_leaks_into_another_one(tmp_path: Path) -> None:
    """100,000 deliveries in two tenants, whose sessions have the same ids, while members come and go.

    The clients of a tenant listen to one session each, and to the agent's group. Some of them are removed in the
    middle, and hear nothing more.
    """
    hub = Hub(tmp_path, options={"sign_in": True})
    hub.agent("canary.py", CANARY.format(chunks=CHUNKS))
    await hub.start(new_connections_per_second=10_000)
    try:
        totals = await asyncio.gather(*(play(hub, tenant) for tenant in TENANTS))
    finally:
        await hub.stop()
    assert sum(totals) >= 100_000


async def play(hub: Hub, tenant: str) -> int:
    """Run all sessions of a tenant. Return the number of deliveries."""
    results = await asyncio.gather(*(play_session(hub, tenant, number) for number in range(SESSIONS)))
    return sum(results)


async def play_session(hub: Hub, tenant: str, number: int) -> int:
    session, secret = f"s{number}", f"{tenant}-{number}"
    names = [f"{secret}-{listener}" for listener in range(LISTENERS)]
    keys = {name: await commands.create_key(hub.door, OPERATOR, name, tenant=tenant) for name in names}
    owner, *others = names
    clients = {name: await connect(hub, keys[name].key) for name in names}
    principal = await hub.door.directory.authenticate(keys[owner].key)
    await commands.create_session(hub.door, principal, session)
    for name in others:
        await commands.change_member(hub.door, principal, session, keys[name].principal.id, "viewer")
    for client in clients.values():
        await subscribe(client, sessionId=session)
        await subscribe(client, agentId="canary")
    await clients[owner].send(type="chat", agentId="canary", sessionId=session, message=secret)
    removed = others[-1]
    await clients[removed].until_type("stream")
    await commands.change_member(hub.door, principal, session, keys[removed].principal.id, None)
    await clients[removed].until(lambda frame: frame.get("code") == "unknown_session")
    heard = len(clients[removed].frames)
    for name in names[:-1]:
        await clients[name].until_done()
    await clients[removed].send(type="ping")
    await clients[removed].until_type("pong")
    assert not [frame for frame in clients[removed].frames[heard:] if frame["type"] == "stream"]
    return sum([count_deliveries(client, secret) for client in clients.values()])


def count_deliveries(client: Client, secret: str) -> int:
    """Return the number of secrets that a client has heard. All of them are the one of its own session."""
    own = f"<{secret}>"
    text = client.text()
    assert text.replace(own, "") == "", secret
    others = [frame for frame in client.frames if "-" in str(frame.get("content", "")) and secret not in str(frame)]
    assert not others, others[:1]
    return text.count(own)
