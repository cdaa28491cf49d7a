"""Tenants: the use cases take and return session ids; below them a key has the tenant and the id."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.hub import Hub
from support.sockets import frames
from support.waiting import PATIENCE, eventually

from hub.access.principal import LOCAL, Principal
from hub.commands import table as commands
from hub.commands.client import ClientHandle, attach
from hub.errors import BadId, NotRunning, UnknownFile, UnknownInterrupt, UnknownSession
from hub.ids import Key, id_of, key_prefix, session_key, tenant_of
from hub.messages import Cancel, Chat, Fork, Page, PageRequest, Resume, Subscribe, Typing
from hub.protocols import open_protocol

ACME = Principal(id="ann", name="Ann", tenant="acme", role="operator")


class Listener:
    """A connection of a given principal, in the extended protocol. The routes cannot open one: they have no sign-in."""

    def __init__(self, client: ClientHandle, reader: asyncio.StreamReader) -> None:
        self.client, self._reader = client, reader
        self.frames: list[dict[str, Any]] = []

    async def until(self, kind: str) -> dict[str, Any]:
        """Read until the first frame of this type, and return that frame."""
        async with asyncio.timeout(PATIENCE):
            while True:
                new = list(frames(await self._reader.read(1 << 20)))
                self.frames += new
                for frame in new:
                    if frame["type"] == kind:
                        return frame

    def text(self) -> str:
        return "".join(frame["content"] for frame in self.frames if frame["type"] == "stream")


@asynccontextmanager
async def connect(hub: Hub, principal: Principal) -> AsyncIterator[Listener]:
    """Connect a client of the principal to the hub."""
    server_side: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            server_side.set_result(transport)

    async def nothing() -> None: ...

    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    client = attach(hub.door, principal, open_protocol("hubbub.v1"), await server_side, nothing, agent="echo")
    try:
        yield Listener(client, reader)
    finally:
        writer.close()
        await client.close(nothing)
        server.close()


async def say(hub: Hub, principal: Principal, message: str, **fields: Any) -> str:
    """Return the answer to a message in the session s1."""
    chat = Chat(message=message, agentId="echo", sessionId="s1", **fields)
    return (await commands.ask(hub.door, principal, chat)).content


def test_a_key_is_the_id_alone_in_the_default_tenant() -> None:
    """So the data of older releases needs no migration."""
    assert session_key("default", "s1") == "s1" and session_key("acme", "s1") == "acme/s1"
    assert [id_of(Key(key)) for key in ("s1", "acme/s1")] == ["s1", "s1"]
    assert [tenant_of(Key(key)) for key in ("s1", "acme/s1")] == ["default", "acme"]
    assert [key_prefix(tenant) for tenant in ("default", "acme")] == ["", "acme/"]


async def test_two_tenants_can_have_sessions_with_the_same_id(hub: Hub) -> None:
    """Each session has its own messages, events, idempotency keys and list entry. All answers have the plain id."""
    await hub.start()
    assert await say(hub, LOCAL, "ours", clientMsgId="one") == "ours "
    assert await say(hub, ACME, "theirs", clientMsgId="one") == "theirs "
    for principal, words in ((LOCAL, "ours"), (ACME, "theirs")):
        messages = (await commands.list_messages(hub.door, principal, "s1", PageRequest(9))).rows
        assert [message.content for message in messages] == [words, f"{words} "]
        listed = (await commands.list_sessions(hub.door, principal, PageRequest(9))).rows
        assert [row.sessionId for row in listed] == ["s1"]
        page = await commands.read_events(hub.door, principal, "s1", 0)
        assert {event.sessionId for event in page.data} == {"s1"} and page.seq == len(page.data)
        state = await commands.get_session(hub.door, principal, "s1")
        assert state.sessionId == "s1" and state.epoch == listed[0].epoch == page.epoch
    with sqlite3.connect(hub.folder / "data" / "hub.db") as db:
        assert {key for (key,) in db.execute("SELECT id FROM sessions")} == {"s1", "acme/s1"}


async def test_a_tenant_cannot_reach_the_sessions_of_another_tenant(hub: Hub) -> None:
    """Files, questions and runs belong to one tenant, and clearing deletes only its own sessions."""
    await hub.start()
    await say(hub, LOCAL, "ours")
    await say(hub, ACME, "theirs")
    async with await commands.upload(hub.door, ACME, "s1", "x.txt", "text/plain") as incoming:
        await incoming.write(b"secret")
        stored = await incoming.save()
    assert stored.sessionId == "s1" and (await commands.open_file(hub.door, ACME, stored.fileId)).file.size == 6
    with pytest.raises(UnknownFile):
        await commands.open_file(hub.door, LOCAL, stored.fileId)
    resume = Resume(sessionId="s1", interruptId="i", status="cancelled")
    with pytest.raises(UnknownInterrupt, match="^session s1 has no question i"):
        await commands.resume(hub.door, ACME, resume)
    with pytest.raises(NotRunning, match="in session s1$"):
        await commands.cancel(hub.door, ACME, Cancel(sessionId="s1"))
    assert (await commands.clear_sessions(hub.door, ACME)).deleted == 1
    with pytest.raises(UnknownSession, match="no session s1"):
        await commands.get_session(hub.door, ACME, "s1")
    assert (await commands.get_session(hub.door, LOCAL, "s1")).seq > 0
    await commands.relabel(hub.door, LOCAL, "s1", {"title": "ours"})
    await commands.delete_session(hub.door, LOCAL, "s1")


async def test_a_listener_gets_only_events_of_its_own_tenant(hub: Hub) -> None:
    """Of a session, of an agent's runs, of typing, and of a forked session."""
    await hub.start()
    async with connect(hub, ACME) as ann, connect(hub, ACME) as bob, connect(hub, LOCAL) as local:
        await commands.receive(ann.client, Subscribe(sessionId="s1"))
        await commands.receive(bob.client, Subscribe(agentId="echo"))
        await commands.receive(local.client, Subscribe(sessionId="s1"))
        subscribed = await ann.until("subscribed")
        assert subscribed["sessionId"] == "s1" and [one["id"] for one in subscribed["members"]] == []
        await say(hub, LOCAL, "ours")
        await say(hub, ACME, "theirs")
        for listener, words in ((ann, "theirs "), (bob, "theirs "), (local, "ours ")):
            await listener.until("run_finished")
            assert listener.text() == words
            assert {frame.get("sessionId", "s1") for frame in listener.frames} == {"s1"}
        await commands.receive(bob.client, Subscribe(sessionId="s1"))
        await commands.receive(bob.client, Typing(sessionId="s1"))
        assert (await ann.until("typing"))["author"] == {"id": "ann", "name": "Ann"}
        message, _ = (await commands.list_messages(hub.door, ACME, "s1", PageRequest(9))).rows
        await commands.receive(ann.client, Fork(sessionId="s1", messageId=message.messageId, newSessionId="s2"))
        await eventually(lambda: "acme/s2" in hub.node.sessions)
        assert (await commands.get_session(hub.door, ACME, "s2")).sessionId == "s2"
        with pytest.raises(UnknownSession):
            await commands.get_session(hub.door, LOCAL, "s2")


async def test_a_queued_run_of_a_tenant_continues_after_a_restart(hub: Hub) -> None:
    """Recovery finds sessions by their keys."""
    await hub.start()
    await commands.chat(hub.door, ACME, Chat(message=str(hub.folder / "never"), agentId="gated", sessionId="s1"))
    second = Chat(message="waited", agentId="echo", sessionId="s1", ifBusy="enqueue")
    waiting = await commands.chat(hub.door, ACME, second)
    await eventually(lambda: hub.node.sessions[Key("acme/s1")].channel.head > 3)
    await hub.stop()
    await hub.start()
    await eventually(lambda: not hub.node.sessions)
    messages = (await commands.list_messages(hub.door, ACME, "s1", PageRequest(9))).rows
    assert [message.content for message in messages][1:] == ["waited", "one ", "waited "]
    assert waiting.status == "queued" and messages[-1].runId == waiting.runId
    assert await commands.list_sessions(hub.door, LOCAL, PageRequest(9)) == Page([])


async def test_clearing_by_time_checks_only_the_sessions_of_the_tenant(hub: Hub) -> None:
    """An older session of another tenant with the same id does not count."""
    await hub.start()
    await say(hub, LOCAL, "old")
    *_, last = (await commands.list_messages(hub.door, LOCAL, "s1", PageRequest(9))).rows
    before = last.ts + 1
    await eventually(lambda: hub.node.seams.now() > before)
    await say(hub, ACME, "new")
    assert (await commands.clear_sessions(hub.door, ACME, ["s1"], before)).deleted == 0
    assert (await commands.get_session(hub.door, ACME, "s1")).seq > 0
    assert (await commands.clear_sessions(hub.door, LOCAL, None, before)).deleted == 1
    assert (await commands.clear_sessions(hub.door, ACME, None, before + 10**9)).deleted == 1


async def test_a_listener_gets_the_state_of_its_own_tenants_session(hub: Hub) -> None:
    """Even if a run is active in another tenant's session with the same id. An unused session leaves memory."""
    await hub.start()
    await commands.chat(hub.door, LOCAL, Chat(message=str(hub.folder / "gate"), agentId="gated", sessionId="s1"))
    async with connect(hub, ACME) as ann:
        await commands.receive(ann.client, Subscribe(sessionId="s1"))
        state = await ann.until("state")
        assert (state["state"], state["active"], state["queue"]) == ("idle", [], [])
        assert set(hub.node.sessions) == {"s1", "acme/s1"}
    await eventually(lambda: set(hub.node.sessions) == {"s1"})
    (hub.folder / "gate").touch()
    await eventually(lambda: not hub.node.sessions)


async def test_a_session_id_cannot_name_another_tenant(hub: Hub) -> None:
    """Neither a session id nor the name of a tenant may have a slash."""
    await hub.start()
    await say(hub, ACME, "theirs")
    with pytest.raises(BadId):
        await commands.list_messages(hub.door, LOCAL, "acme/s1", PageRequest(9))
    for tenant in ("", "acme/sub", "a b"):
        with pytest.raises(ValueError, match="the tenant .* is not a valid id"):
            Principal(id="eve", name="Eve", role="member", tenant=tenant)
