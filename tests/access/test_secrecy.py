"""What a principal can learn and reach beyond its permissions: foreign sessions, other agents, broadcasts."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.late import error_of, pause
from support.people import bearer
from support.tools import HELPER, REQUEST, result, send_results
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR, Principal
from hub.access.tickets import MAX_OWN_TICKETS
from hub.commands import table as commands
from hub.commands.intake import build_error
from hub.errors import Denied, UnknownAgent, UnknownSession
from hub.ids import Key
from hub.messages import Chat, ChatWithRequest, PageRequest

ASKER = """
    async def asker(run):
        reply = await run.ask("why?")
        yield str(reply.payload)
    """


@pytest.fixture(autouse=True)
def own_agents(hub: Hub) -> None:
    hub.agent("asker.py", ASKER)


async def enter(hub: Hub, name: str, **options: Any) -> Principal:
    return await hub.door.directory.authenticate(await hub.key(name, **options))


async def begin(hub: Hub, principal: Principal, session: str, agent: str = "echo", message: str = "secret") -> None:
    await commands.chat(hub.door, principal, Chat(message=message, agentId=agent, sessionId=session))


async def give(hub: Hub, principal: Principal, session: str, role: Any) -> None:
    await commands.change_member(hub.door, OPERATOR, session, principal.id, role)


async def test_a_foreign_session_in_memory_costs_the_same_work_as_a_missing_one(signed: Hub) -> None:
    """Else the time of the answer would tell that the session is in use. So does a read of the log for each."""
    ann, bob, access = await enter(signed, "ann"), await enter(signed, "bob"), signed.node.log.access
    await begin(signed, ann, "s1", "gated", "/never")
    await eventually(lambda: bool(signed.node.sessions[Key("s1")].channel.active_runs))
    reads, find_grants = [], access.find_grants

    async def count(key: Key) -> Any:
        reads.append(key)
        return await find_grants(key)

    access.find_grants = count  # type: ignore[method-assign]
    errors = [await error_of(commands.get_session(signed.door, bob, session)) for session in ("s1", "s2")]
    assert reads == ["s1", "s2"] and [type(error) for error in errors] == [UnknownSession] * 2
    await commands.get_session(signed.door, ann, "s1")
    assert reads == ["s1", "s2"]  # a member waits for no read


async def test_a_guest_cannot_tell_a_missing_session_from_a_foreign_one(signed: Hub) -> None:
    """Not even by a chat, which would make the session: a guest can make none."""
    guest = await enter(signed, "guest", role="guest")
    errors = []
    for _ in range(2):
        chat = Chat(message="x", agentId="echo", sessionId="s1")
        errors.append(await error_of(commands.chat(signed.door, guest, chat)))
        await begin(signed, await enter(signed, "ann"), "s1")
    assert isinstance(errors[0], UnknownSession) and errors[1] is not None
    assert build_error(errors[0]) == build_error(errors[1])
    own = Chat(message="x", agentId="echo")
    assert isinstance(await error_of(commands.chat(signed.door, guest, own)), Denied)


@pytest.mark.parametrize("access", ["private", "team"])
async def test_only_admins_write_in_the_session_of_broadcasts(tmp_path: Path, access: str) -> None:
    """A member could otherwise begin it, and send answers of the agent to everybody as if they were broadcasts."""
    hub = await Hub(tmp_path, options={"sign_in": True, "session_access": access}).start()
    member, admin = await enter(hub, "member"), await enter(hub, "admin", role="admin")
    chat = Chat(message="win a prize", agentId="echo", sessionId="agent:echo")
    assert isinstance(await error_of(commands.chat(hub.door, member, chat)), Denied)
    assert isinstance(await error_of(commands.create_session(hub.door, member, "agent:echo")), Denied)
    await commands.broadcast(hub.door, admin, "echo", "news")
    refusal = await error_of(commands.chat(hub.door, member, chat))
    assert isinstance(refusal, Denied) and refusal.message == (
        "only admins may do this in the session of an agent's broadcasts (action: write), and you have the role "
        "member: ask an admin"
    )
    rows = (await commands.list_messages(hub.door, member, "agent:echo", PageRequest(9))).rows
    assert [row.content for row in rows] == ["news"]
    await hub.stop()


@pytest.mark.parametrize("name", ["list_messages", "read_events", "get_session"])
async def test_a_reader_does_not_get_a_session_that_another_made_meanwhile(signed: Hub, name: str) -> None:
    """Ann's session is deleted while she reads it; then Bob begins one with the same id."""
    ann, bob, log = await enter(signed, "ann"), await enter(signed, "bob"), signed.node.log
    await commands.create_session(signed.door, ann, "s1")
    arguments: dict[str, tuple[Any, ...]] = {"list_messages": (PageRequest(9),), "read_events": (0,), "get_session": ()}
    with pause(log.sessions, "find") as (called, released):
        reading = asyncio.create_task(error_of(commands.USE_CASES[name](signed.door, ann, "s1", *arguments[name])))
        await called.wait()
        await log.sessions.delete(Key("s1"))
        await log.sessions.make(Key("s1"), bob.id)
        released.set()
        assert isinstance(await reading, UnknownSession)


@pytest.mark.parametrize("is_cleared", [False, True])
async def test_a_session_that_another_made_meanwhile_is_not_deleted(signed: Hub, is_cleared: bool) -> None:
    ann, bob, log = await enter(signed, "ann"), await enter(signed, "bob"), signed.node.log
    await commands.create_session(signed.door, ann, "s1")
    with pause(log.sessions, "find") as (called, released):
        if is_cleared:
            deletion = asyncio.create_task(error_of(commands.clear_sessions(signed.door, ann, ["s1"])))
        else:
            deletion = asyncio.create_task(error_of(commands.delete_session(signed.door, ann, "s1")))
        await called.wait()
        await log.sessions.delete(Key("s1"))
        await log.sessions.make(Key("s1"), bob.id)
        released.set()
        assert isinstance(await deletion, type(None) if is_cleared else UnknownSession)
    assert await log.access.find_grants(Key("s1")) == {bob.id: "owner"}


async def test_a_limited_key_answers_no_question_of_another_agent(signed: Hub) -> None:
    """The reply would reach the agent. Another credential of the same session can reply."""
    ann = await enter(signed, "ann")
    limited = await hub_client(signed, await signed.key("ann", agents=["echo"]))
    await limited.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    await limited.until_type("run_finished")
    await begin(signed, ann, "s1", "asker")
    question = (await limited.until_type("interrupt"))["id"]
    reply = {"type": "resume", "sessionId": "s1", "interruptId": question, "status": "resolved", "payload": "x"}
    await limited.send(**reply, ref=1)
    answer = await limited.until(lambda frame: frame.get("ref") == 1)
    assert (answer["type"], answer["code"]) == ("error", "unknown_agent")
    full = await hub_client(signed, await signed.key("ann"))
    await full.send(**reply, ref=2)
    assert (await full.until(lambda frame: frame.get("ref") == 2))["type"] == "ok"


async def test_a_limited_key_answers_no_tool_call_of_another_agent(signed: Hub) -> None:
    """The result would reach the agent. A key with that agent needs no default agent, and no `agentId`."""
    signed.agent("helper.py", HELPER)
    await signed.node.agents.reload("helper")
    ann = await enter(signed, "ann")
    chat = ChatWithRequest(message="c1", agentId="helper", sessionId="s1", request=REQUEST)
    assert (await commands.ask(signed.door, ann, chat)).stopReason == "tool_calls"
    limited = await hub_client(signed, await signed.key("ann", agents=["echo"]))
    for code in ("1 / 0", HELPER):  # a broken agent looks like a missing one
        signed.agent("helper.py", code)
        await signed.node.agents.reload("helper")
        answer = await send_results(limited, result("c1"))
        assert answer["code"] == "unknown_agent" and answer["message"].endswith("there are: echo")
    allowed = await hub_client(signed, await signed.key("ann", agents=["helper"]))
    assert (await send_results(allowed, result("c1")))["type"] == "accepted"


async def hub_client(hub: Hub, key: str) -> Client:
    return await hub.connect(extended=True, headers=bearer(key))


@pytest.mark.parametrize("kind", ["edit", "regenerate"])
async def test_a_limited_key_does_not_learn_that_another_agent_is_broken(signed: Hub, kind: str) -> None:
    """A rewrite without an agent would go to the agent of the old answer."""
    signed.agent("frail.py", "def frail(message: str):\n    return message")
    await signed.node.agents.reload("frail")
    ann = await enter(signed, "ann")
    await begin(signed, ann, "s1", "frail")
    await eventually(lambda: not signed.node.sessions)
    message_id = (await commands.list_messages(signed.door, ann, "s1", PageRequest(9))).rows[0].messageId
    signed.agent("frail.py", "1 / 0")
    await signed.node.agents.reload("frail")
    client = await hub_client(signed, await signed.key("ann", agents=["echo"]))
    fields = {"message": "x"} if kind == "edit" else {}
    await client.send(type=kind, sessionId="s1", messageId=message_id, **fields)
    error = await client.until_type("error")
    assert error["code"] == UnknownAgent.code and error["message"].endswith("there are: echo")


async def test_a_revoked_key_ends_an_answer_outside_a_session(signed: Hub, tmp_path: Path) -> None:
    """It could stream for an hour."""
    key = await signed.key("ann")
    body = {"model": "gated", "stream": True, "messages": [{"role": "user", "content": str(tmp_path / "never")}]}
    async with aiohttp.ClientSession(signed.url, headers=bearer(key)) as http:
        async with asyncio.timeout(PATIENCE), http.post("/v1/chat/completions", json=body) as response:
            while b"one" not in await response.content.readline():
                pass
            await commands.revoke_credential(signed.door, OPERATOR, key.split("_")[1])
            assert b"cancelled" in await response.read()


async def test_a_stranger_sends_no_large_body(tmp_path: Path) -> None:
    """And no slow one: both would hold memory and connections."""
    hub = await Hub(tmp_path, options={"sign_in": True}).start(auth_frame_bytes=100, auth_seconds=0.2)
    head = "POST /api/v1/sessions/s1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    for size, data, status in ((101, b"x" * 101, 401), (2**22, b"", 401), (50, b"x", 408)):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
            writer.write((head % size).encode() + data)
            assert (await reader.readline()).split()[1] == str(status).encode()
            writer.transport.abort()
    await hub.stop()


async def test_one_principal_does_not_push_out_the_tickets_of_others(signed: Hub) -> None:
    ann, guest = await enter(signed, "ann"), await enter(signed, "guest", role="guest")
    tickets = [await commands.make_ticket(signed.door, principal, None) for principal in (ann, guest)]
    for _ in range(MAX_OWN_TICKETS):
        last = await commands.make_ticket(signed.door, guest, None)
    redeem = signed.door.tickets.redeem
    assert [redeem(ticket, None, None) for ticket in (*tickets, last)] == [ann, None, guest]
