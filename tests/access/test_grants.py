"""Grants: what a role in a session allows, as the grants are now, also on open connections."""

import asyncio
import threading
from collections.abc import AsyncIterator
from operator import itemgetter
from pathlib import Path

import attrs
import pytest
from support.hub import Client, Hub
from support.waiting import eventually

from hub.access.permissions import Action, describe_refusal
from hub.access.principal import OPERATOR, Principal
from hub.access.records import TenantRole
from hub.commands import table as commands
from hub.commands.enforcing import recheck_session
from hub.errors import LastOwner
from hub.ids import Key
from hub.messages import PageRequest
from hub.storage.sqlite.log import SqliteLog
from hub.storage.sqlite.threads import READER_THREADS


@attrs.define
class People:
    """A hub with sign-in, with the keys and ids of Ann, who owns the session s1, and of Bob."""

    hub: Hub
    keys: dict[str, str]
    ids: dict[str, str]

    async def connect(self, name: str, query: str = "") -> Client:
        return await self.hub.connect(query, extended=True, headers={"Authorization": f"Bearer {self.keys[name]}"})


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    hub = await Hub(tmp_path, options={"sign_in": True}).start()
    keys, ids = {}, {}
    for name in ("ann", "bob"):
        new_key = await commands.create_key(hub.door, OPERATOR, name)
        keys[name], ids[name] = new_key.key, new_key.principal.id
    people = People(hub, keys, ids)
    ann = await people.connect("ann")
    await ann.send(type="chat", agentId="echo", sessionId="s1", message="secret")
    await ann.until_done()
    yield people
    await hub.stop()


async def give(people: People, name: str, role: str | None) -> None:
    await commands.change_member(people.hub.door, OPERATOR, "s1", people.ids[name], role)  # type: ignore[arg-type]


async def test_the_sender_of_the_first_message_owns_the_session(people: People) -> None:
    """The next one finds a session that looks missing."""
    (owner,) = await commands.list_members(people.hub.door, OPERATOR, "s1")
    assert (owner.id, owner.role) == (people.ids["ann"], "owner")
    bob = await people.connect("bob")
    for number, session in enumerate(("s1", "s2")):
        await bob.send(type="subscribe", sessionId=session, ref=number)
    # Commands for different sessions may be answered in any order.
    foreign, missing = sorted([await bob.next() for _ in range(2)], key=itemgetter("ref"))
    assert foreign["code"] == "unknown_session"
    assert {**foreign, "ref": 1} == {**missing, "message": foreign["message"], "sessionId": "s1"}
    assert missing["message"].replace("s2", "s1") == foreign["message"]
    await bob.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    assert (await bob.next())["code"] == "unknown_session"


@pytest.mark.parametrize(
    ("role", "action", "words"),
    [
        ("guest", "create", "needs the role member in the hub (action: create), and you have the role guest"),
        ("observer", "write", "needs the role member in the hub (action: write), and you have the role observer"),
        ("member", "administer", "needs the role admin in the hub (action: administer), and you have the role member"),
        ("admin", "operate", "only the operator may do this: use the command line on the hub's machine"),
    ],
)
def test_a_refusal_of_the_hub_names_the_role_that_is_needed(role: TenantRole, action: Action, words: str) -> None:
    assert words in describe_refusal(Principal(id="p_1", name="ann", role=role), action, "viewer")


async def test_a_viewer_reads_and_does_not_write(people: People) -> None:
    """The refusal names the role that is needed and who can give it."""
    await give(people, "bob", "viewer")
    bob = await people.connect("bob")
    await bob.send(type="subscribe", sessionId="s1", history=9)
    assert (await bob.next())["history"][0]["content"] == "secret"
    await bob.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    refusal = await bob.until_type("error")
    assert refusal["code"] == "denied" and "member" in refusal["message"] and "owner" in refusal["message"]
    await give(people, "bob", "member")
    await bob.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    await bob.until_done()


async def test_a_client_learns_its_role_and_each_change_of_it(people: People) -> None:
    """The answer to `subscribe` has the role, and a notice follows each change: to a grant, and to the principal."""
    await give(people, "bob", "member")
    bob, ann = await people.connect("bob"), await people.connect("ann")
    for client, role in ((bob, "member"), (ann, "owner")):
        await client.send(type="subscribe", sessionId="s1")
        assert (await client.until_type("subscribed"))["role"] == role
    await give(people, "bob", "viewer")
    assert await bob.until_type("role") == {"type": "role", "sessionId": "s1", "role": "viewer"}
    await commands.change_principal(people.hub.door, OPERATOR, "bob", role="admin")
    assert (await bob.until_type("role"))["role"] == "owner"
    await ann.send(type="ping")
    await ann.until_type("pong")
    assert not [frame for frame in ann.frames if frame["type"] == "role"]


async def test_a_removed_member_hears_nothing_more(people: People) -> None:
    """The subscription ends with `unknown_session`; the connection stays."""
    await give(people, "bob", "member")
    bob, ann = await people.connect("bob"), await people.connect("ann")
    await bob.send(type="subscribe", sessionId="s1")
    await bob.until_type("subscribed")
    await give(people, "bob", None)
    assert (await bob.until_type("error"))["code"] == "unknown_session"
    await ann.send(type="chat", agentId="echo", sessionId="s1", message="more")
    await ann.until_done()
    await bob.send(type="ping")
    assert [frame["type"] for frame in bob.frames[bob.frames.index(await bob.until_type("pong")) - 1 :]][-1] == "pong"
    assert "more" not in str(bob.frames)


async def test_a_group_hears_only_the_sessions_that_its_client_may_read(people: People) -> None:
    """It is asked again at the start of each run."""
    bob, ann = await people.connect("bob"), await people.connect("ann")
    await bob.send(type="subscribe", agentId="echo")
    await bob.until_type("subscribed")
    await ann.send(type="chat", agentId="echo", sessionId="s1", message="first")
    await ann.until_done()
    await give(people, "bob", "viewer")
    await ann.send(type="chat", agentId="echo", sessionId="s1", message="second")
    await bob.until_done()
    assert bob.text() == "second "


async def test_the_last_owner_cannot_be_removed(people: People) -> None:
    with pytest.raises(LastOwner):
        await give(people, "ann", "member")
    await give(people, "bob", "owner")
    await give(people, "ann", None)


async def test_a_new_role_reaches_open_connections(people: People) -> None:
    """A member who becomes an observer can read all sessions, and write in none."""
    bob = await people.connect("bob")
    await commands.change_principal(people.hub.door, OPERATOR, "bob", role="observer")
    await bob.send(type="subscribe", sessionId="s1")
    await bob.until_type("subscribed")
    await bob.send(type="chat", agentId="echo", sessionId="s3", message="hello")
    assert (await bob.until_type("error"))["code"] == "denied"


async def test_the_list_has_the_sessions_that_one_may_read(people: People) -> None:
    hub = people.hub.door
    bob = await hub.directory.authenticate(people.keys["bob"])
    assert isinstance(bob, Principal)
    assert (await commands.list_sessions(hub, bob, PageRequest(9))).rows == []
    await give(people, "bob", "viewer")
    assert [row.sessionId for row in (await commands.list_sessions(hub, bob, PageRequest(9))).rows] == ["s1"]


async def test_the_grants_are_there_after_a_restart(people: People) -> None:
    await give(people, "bob", "viewer")
    await people.hub.stop()
    await people.hub.start()
    members = await commands.list_members(people.hub.door, OPERATOR, "s1")
    assert [(member.name, member.role) for member in members] == [("ann", "owner"), ("bob", "viewer")]


async def test_two_first_messages_make_one_owner(people: People) -> None:
    """The other sender gets `unknown_session`, in each of many races, and its message is in no session."""
    ann, bob = await people.connect("ann"), await people.connect("bob")
    for number in range(50):
        session = f"race{number}"
        for client, text in ((ann, "ann's"), (bob, "bob's")):
            await client.send(type="chat", agentId="echo", sessionId=session, message=text, ref=session)
        answers = [await client.until(lambda frame: frame.get("ref") == session) for client in (ann, bob)]
        assert sorted(answer["type"] for answer in answers) == ["accepted", "error"]
        winner = ("ann", "bob")[[answer["type"] for answer in answers].index("accepted")]
        (member,) = await commands.list_members(people.hub.door, OPERATOR, session)
        assert (member.name, member.role) == (winner, "owner")
        rows = (await commands.list_messages(people.hub.door, OPERATOR, session, PageRequest(9))).rows
        assert {row.author.id for row in rows if row.author is not None} <= {people.ids[winner]}


async def test_a_late_subscription_of_a_removed_member_does_not_come_back(people: People) -> None:
    """The grants are checked again after the last await of a subscription, here the read of the history."""
    await give(people, "bob", "viewer")
    bob, node = await people.connect("bob"), people.hub.node
    log, gate = node.log, threading.Event()
    assert isinstance(log, SqliteLog)
    readers = log._threads._readers.executor
    blocked = [asyncio.get_running_loop().run_in_executor(readers, gate.wait, 60) for _ in range(READER_THREADS)]
    await bob.send(type="subscribe", sessionId="s1", history=9, ref=1)
    await eventually(lambda: node.sessions.get(Key("s1")) is not None and node.sessions[Key("s1")].use_count == 1)
    node.sessions[Key("s1")].grants.pop(people.ids["bob"])
    recheck_session(people.hub.door, Key("s1"))
    gate.set()
    await asyncio.gather(*blocked)
    assert (await bob.until(lambda frame: frame.get("ref") == 1))["code"] == "unknown_session"
    (client,) = people.hub.door.clients.list_of(people.ids["bob"])
    assert not client.connection.subscriptions
