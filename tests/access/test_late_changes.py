"""Permissions that change while a command is on its way: what comes later is refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web
from support.hub import Client, Hub
from support.late import error_of, pause
from support.people import bearer
from support.waiting import PATIENCE, eventually

from hub.access.principal import NOBODY, OPERATOR
from hub.commands import table as commands
from hub.errors import BadLink, SessionDeleted, StorageUnavailable, UnknownSession
from hub.ids import Key
from hub.messages import PageRequest
from hub.seams import Seams

# Ignores its cancellation until the file exists that its message names: a rollback waits for that.
STUBBORN = """
    import asyncio, pathlib

    async def stubborn(message: str):
        yield "one "
        while not pathlib.Path(message).exists():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass
    """


@attrs.define
class House:
    """A hub with sign-in. The session s1 belongs to Ann; Bob is a member."""

    hub: Hub
    folder: Path
    keys: dict[str, str] = attrs.Factory(dict)
    ids: dict[str, str] = attrs.Factory(dict)

    async def add(self, name: str, **options: Any) -> None:
        new_key = await commands.create_key(self.hub.door, OPERATOR, name, **options)
        self.keys[name], self.ids[name] = new_key.key, new_key.principal.id

    async def give(self, name: str, role: Any) -> None:
        await commands.change_member(self.hub.door, OPERATOR, "s1", self.ids[name], role)

    async def revoke(self, name: str) -> None:
        await commands.revoke_credential(self.hub.door, OPERATOR, self.keys[name].split("_")[1])

    def bearer(self, name: str) -> dict[str, str]:
        return bearer(self.keys[name])

    async def connect(self, name: str) -> Client:
        return await self.hub.connect(extended=True, headers=self.bearer(name))

    async def texts(self, session: str = "s1") -> list[str]:
        """Return the messages of people in a session."""
        rows = (await commands.list_messages(self.hub.door, OPERATOR, session, PageRequest(99))).rows
        return [row.content for row in rows if row.role == "user"]

    @property
    def release(self) -> Path:
        """The file for which the agent waits."""
        return self.folder / "release"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    hub = Hub(tmp_path, options={"sign_in": True})
    hub.agent("stubborn.py", STUBBORN)
    await hub.start(grace_seconds=PATIENCE)
    house = House(hub, tmp_path)
    for name in ("ann", "bob", "eve"):
        await house.add(name)
    await commands.create_session(hub.door, await hub.door.directory.authenticate(house.keys["ann"]), "s1")
    await house.give("bob", "member")
    yield house
    house.release.touch()
    await hub.stop()


async def test_queued_commands_of_a_revoked_key_do_not_run(house: House) -> None:
    """Also after their client has disconnected: then no open client is left for the revocation to close."""
    bob = await house.connect("bob")
    await bob.send(type="chat", agentId="stubborn", sessionId="s1", message=str(house.release))
    await bob.until(lambda frame: frame.get("content") == "one ")
    await bob.send(type="chat", agentId="echo", sessionId="s1", message="waits", ifBusy="rollback")
    await bob.send(type="chat", agentId="echo", sessionId="s2", message="other")
    for number in range(3):
        await bob.send(type="chat", agentId="echo", sessionId="s1", message=f"queued {number}")
    await bob.until(lambda frame: frame["type"] == "accepted" and frame["sessionId"] == "s2")
    await bob.close()
    await eventually(lambda: not house.hub.door.clients.list_of(house.ids["bob"]))
    await house.revoke("bob")
    house.release.touch()
    await eventually(lambda: not house.hub.node.sessions)
    assert not [text for text in await house.texts() if text.startswith("queued")]


async def test_a_body_that_comes_after_the_revocation_is_refused(house: House) -> None:
    """The header of the request had a valid key."""
    body = b'{"sessionId":"late"}'
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.hub.port)
        head = f"Host: localhost\r\nAuthorization: Bearer {house.keys['bob']}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(f"POST /api/v1/sessions HTTP/1.1\r\n{head}".encode() + body[:5])
        await eventually(lambda: house.keys["bob"].split("_")[1] in house.hub.door.directory.uses)
        await house.revoke("bob")
        writer.write(body[5:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()
    with pytest.raises(UnknownSession):
        await commands.get_session(house.hub.door, OPERATOR, "late")


@pytest.mark.parametrize("path", ["/api/v1/sessions/s1/chat?wait=true", "/v1/chat/completions"])
@pytest.mark.parametrize("change, status", [("remove", 404), ("revoke", 401)])
async def test_a_request_that_waits_for_an_answer_does_not_get_it_any_more(
    house: House, path: str, change: str, status: int
) -> None:
    body: dict[str, Any] = {"agentId": "gated", "message": str(house.release)}
    if path.startswith("/v1"):
        body = {"model": "gated", "sessionId": "s1", "messages": [{"role": "user", "content": str(house.release)}]}
    async with aiohttp.ClientSession(house.hub.url, headers=house.bearer("bob")) as http:
        request = asyncio.create_task(http.post(path, json=body))
        await eventually(lambda: Key("s1") in house.hub.node.sessions)
        await eventually(lambda: bool(house.hub.node.sessions[Key("s1")].channel.active_runs))
        await (house.give("bob", None) if change == "remove" else house.revoke("bob"))
        house.release.touch()
        async with asyncio.timeout(PATIENCE), await request as response:
            assert (response.status, "two" in await response.text()) == (status, False)


async def test_a_member_who_is_removed_during_a_chat_is_not_subscribed(house: House) -> None:
    """The chat was on its way to the log."""
    bob, events = await house.connect("bob"), house.hub.node.log.events
    appends: list[tuple[Any, ...]] = []
    append = events.append
    events.append = lambda *args: appends.append(args)  # type: ignore[method-assign]
    await bob.send(type="chat", agentId="echo", sessionId="s1", message="hello", ref=1)
    await eventually(lambda: bool(appends))
    await house.give("bob", None)
    events.append = append  # type: ignore[method-assign]
    for args in appends:
        append(*args)
    assert (await bob.until(lambda frame: frame.get("ref") == 1))["code"] == "unknown_session"
    (client,) = house.hub.door.clients.list_of(house.ids["bob"])
    assert not client.connection.subscriptions


async def test_an_owner_who_is_removed_meanwhile_changes_no_member(house: House) -> None:
    """Bob's change waits for the end of the one that removes him."""
    door, access = house.hub.door, house.hub.node.log.access
    await house.give("bob", "owner")
    bob = await door.directory.authenticate(house.keys["bob"])
    with pause(access, "remove") as (called, released):
        removal = asyncio.create_task(house.give("bob", None))
        await called.wait()
        late = [
            asyncio.create_task(error_of(commands.change_member(door, bob, "s1", house.ids["eve"], "owner"))),
            asyncio.create_task(error_of(commands.create_invite(door, bob, "s1", "member"))),
        ]
        await eventually(lambda: len(house.hub.node.sessions[Key("s1")].grants_lock._waiters or ()) == len(late))
        released.set()
        await removal
    assert [type(error) for error in await asyncio.gather(*late)] == [UnknownSession, UnknownSession]
    assert house.ids["eve"] not in (await access.find_grants(Key("s1")) or {})
    assert not await access.list_invites(Key("s1"))


async def test_a_grant_does_not_go_to_a_new_session_with_the_same_id(house: House) -> None:
    """Ann deletes her session while she makes Eve a member; then Bob begins a session with this id."""
    door, node = house.hub.door, house.hub.node
    ann, bob = [await door.directory.authenticate(house.keys[name]) for name in ("ann", "bob")]
    with pause(node.log.access, "save") as (called, released):
        first = asyncio.create_task(error_of(commands.change_member(door, ann, "s1", house.ids["bob"], "viewer")))
        await called.wait()
        late = asyncio.create_task(error_of(commands.change_member(door, ann, "s1", house.ids["eve"], "owner")))
        await eventually(lambda: bool(node.sessions[Key("s1")].grants_lock._waiters))
        await commands.delete_session(door, ann, "s1")
        await commands.create_session(door, bob, "s1")
        released.set()
        await asyncio.gather(first, late)
    assert isinstance(late.result(), SessionDeleted)
    assert house.ids["eve"] not in (await node.log.access.find_grants(Key("s1")) or {})


async def link_of(house: House, name: str) -> str:
    """Return the token of an invite that a principal makes."""
    principal = await house.hub.door.directory.authenticate(house.keys[name])
    invite = await commands.create_invite(house.hub.door, principal, "s1", "member")
    return str(invite.link).rpartition("#")[2]


async def test_the_links_of_a_removed_owner_are_dead(house: House) -> None:
    """The owner could come back with one. A dead link leaves no guest behind."""
    door = house.hub.door
    await house.give("bob", "owner")
    tokens = [await link_of(house, "bob"), await link_of(house, "ann")]
    await house.give("bob", None)
    bob = await door.directory.authenticate(house.keys["bob"])
    count = len(await commands.list_principals(door, OPERATOR))
    assert isinstance(await error_of(commands.use_link(door, bob, tokens[0])), BadLink)
    await commands.remove_principal(door, OPERATOR, "bob")
    assert isinstance(await error_of(commands.use_link(door, NOBODY, tokens[0])), BadLink)
    assert len(await commands.list_principals(door, OPERATOR)) == count - 1
    assert (await commands.use_link(door, NOBODY, tokens[1])).session_id == "s1"


async def test_nobody_joins_with_an_invite_after_it_was_revoked(house: House) -> None:
    """A revocation waits for those who are just joining. It is itself refused to an owner who is removed meanwhile."""
    door, node = house.hub.door, house.hub.node
    ann, eve = [await door.directory.authenticate(house.keys[name]) for name in ("ann", "eve")]
    invite = await commands.create_invite(door, ann, "s1", "member")
    with pause(node.log.access, "save") as (called, released):
        joining = asyncio.create_task(commands.use_link(door, eve, str(invite.link).rpartition("#")[2]))
        await called.wait()
        revocation = asyncio.create_task(commands.revoke_invite(door, ann, "s1", invite.inviteId))
        await eventually(lambda: bool(node.sessions[Key("s1")].grants_lock._waiters))
        assert not revocation.done()
        released.set()
        await asyncio.gather(joining, revocation)
    assert house.ids["eve"] in (await node.log.access.find_grants(Key("s1")) or {})
    assert await commands.list_invites(door, ann, "s1") == ()


async def test_the_invites_of_a_session_that_another_made_meanwhile_are_not_listed(house: House) -> None:
    """Ann's session is deleted while she reads its invites; then Bob begins one with the same id, and invites."""
    door = house.hub.door
    ann, bob = [await door.directory.authenticate(house.keys[name]) for name in ("ann", "bob")]
    with pause(house.hub.node.log.access, "list_invites") as (called, released):
        reading = asyncio.create_task(error_of(commands.list_invites(door, ann, "s1")))
        await called.wait()
        await commands.delete_session(door, ann, "s1")
        await commands.create_invite(door, bob, "s1", "member")
        released.set()
        assert isinstance(await reading, UnknownSession)


async def test_a_member_who_is_removed_during_a_deletion_deletes_no_file(house: House) -> None:
    """The file stays, and the error is that for a missing one."""
    door = house.hub.door
    bob = await door.directory.authenticate(house.keys["bob"])
    async with await commands.upload(door, bob, "s1", "notes.txt", "text/plain") as upload:
        await upload.write(b"x")
        file = await upload.save()
    calls, find = 0, house.hub.node.log.files.find

    async def find_and_remove(file_id: str) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # the permission was checked
            await house.give("bob", None)
        return await find(file_id)

    house.hub.node.log.files.find = find_and_remove  # type: ignore[method-assign]
    error = await error_of(commands.delete_file(door, bob, file.fileId))
    assert error is not None and error.code == "unknown_file" and await find(file.fileId) is not None


async def test_a_key_that_is_revoked_during_the_handshake_opens_no_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revocation finds no client to close: it is not there yet."""
    prepare = web.WebSocketResponse.prepare

    async def prepare_late(response: web.WebSocketResponse[Any], request: web.BaseRequest) -> Any:
        writer = await prepare(response, request)
        await house.revoke("bob")
        return writer

    monkeypatch.setattr(web.WebSocketResponse, "prepare", prepare_late)
    client = await house.hub.connect("?sessionId=s1", protocols=("hubbub.v1",), headers=house.bearer("bob"))
    assert await client.wait_closed() == 4503
    assert [frame.get("code") for frame in client.frames] == ["unauthenticated"]
    await eventually(lambda: not house.hub.door.clients.list_of(house.ids["bob"]))


async def test_a_key_that_is_revoked_before_its_stream_begins_opens_no_stream(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has begun already, so its only event is the error."""
    prepare = web.StreamResponse.prepare

    async def prepare_late(response: web.StreamResponse, request: web.BaseRequest) -> Any:
        writer = await prepare(response, request)
        await house.revoke("bob")
        return writer

    monkeypatch.setattr(web.StreamResponse, "prepare", prepare_late)
    path = "/api/v1/sessions/s1/events?afterSeq=0"
    headers = house.bearer("bob") | {"Accept": "text/event-stream"}
    async with aiohttp.ClientSession(house.hub.url, headers=headers) as http, http.get(path) as response:
        text = await response.text()
    assert text.count("data:") == 1 and "unauthenticated" in text
    await eventually(lambda: not house.hub.door.clients.list_of(house.ids["bob"]))


async def test_a_link_is_for_its_own_tenant(house: House) -> None:
    """A grant would be useless, and show the name to strangers."""
    door = house.hub.door
    await house.add("mallory", tenant="acme")
    mallory = await door.directory.authenticate(house.keys["mallory"])
    assert isinstance(await error_of(commands.use_link(door, mallory, await link_of(house, "ann"))), BadLink)
    assert house.ids["mallory"] not in (await house.hub.node.log.access.find_grants(Key("s1")) or {})


async def test_all_connections_are_closed_if_the_new_permissions_cannot_be_read(house: House) -> None:
    """Nobody knows what they may do now."""
    clients, access = [await house.connect("bob") for _ in range(3)], house.hub.node.log.access

    async def fail(credential_id: str) -> Any:
        raise StorageUnavailable("no")

    find, access.find_credential = access.find_credential, fail  # type: ignore[method-assign]
    with pytest.raises(StorageUnavailable):
        await commands.change_principal(house.hub.door, OPERATOR, "bob", role="observer")
    access.find_credential = find  # type: ignore[method-assign]
    assert [await client.wait_closed() for client in clients] == [4503] * 3


async def test_a_limited_key_takes_the_groups_of_other_agents(house: House) -> None:
    """The client renews its credential with a key that is limited to one agent."""
    bob = await house.connect("bob")
    await bob.send(type="subscribe", agentId="echo", ref=1)
    await bob.until(lambda frame: frame.get("ref") == 1)
    await house.add("bob", agents=["gated"])
    await bob.send(type="auth", token=house.keys["bob"], ref=2)
    await bob.until(lambda frame: frame.get("ref") == 2)
    (client,) = house.hub.door.clients.list_of(house.ids["bob"])
    assert not client.connection.groups


async def test_a_ticket_ends_with_its_key(tmp_path: Path) -> None:
    """The hour of an event ticket does not prolong it."""
    now = [1_800_000_000_000]
    hub = await Hub(tmp_path, options={"sign_in": True}, seams=Seams(now=lambda: now[0])).start()
    new_key = await commands.create_key(hub.door, OPERATOR, "ann", days=1 / 48)
    ann = await hub.door.directory.authenticate(new_key.key)
    await commands.create_session(hub.door, ann, "s1")
    ticket = await commands.make_ticket(hub.door, ann, None, "s1")
    statuses = []
    async with aiohttp.ClientSession(hub.url) as http:
        for minutes in (0, 40):
            now[0] += minutes * 60_000
            async with http.get(f"/api/v1/sessions/s1/events?ticket={ticket}") as response:
                statuses.append(response.status)
    assert statuses == [200, 401]
    await hub.stop()


@pytest.mark.parametrize(
    "fields", [{"message": "waits"}, {"message": "waits", "ifBusy": "rollback"}, {"messageId": ""}]
)
async def test_a_member_who_is_removed_while_a_command_waits_writes_nothing(
    house: House, fields: dict[str, str]
) -> None:
    """A chat waits for an edit, and a rollback or a regeneration for the agent that it stops."""
    bob, ann = await house.connect("bob"), await house.connect("ann")
    await ann.send(type="chat", agentId="stubborn", sessionId="s1", message=str(house.release))
    message_id = (await ann.until_type("accepted"))["messageId"]
    await ann.until(lambda frame: frame.get("content") == "one ")
    waits_for_edit = fields.keys() == {"message"}
    if waits_for_edit:
        await ann.send(type="edit", sessionId="s1", messageId=message_id, message="edited", agentId="echo")
        await eventually(lambda: house.hub.node.sessions[Key("s1")].schedule.lock.locked())
    kind = "regenerate" if "messageId" in fields else "chat"
    fields = {name: value or message_id for name, value in fields.items()}
    await bob.send(type=kind, sessionId="s1", agentId="echo", **fields, ref=1)
    await eventually(lambda: house.hub.node.sessions[Key("s1")].use_count == 1 + waits_for_edit)
    await eventually(lambda: house.hub.node.sessions[Key("s1")].schedule.lock.locked())
    await house.give("bob", None)
    house.release.touch()
    assert (await bob.until(lambda frame: frame.get("ref") == 1))["code"] == "unknown_session"
    await eventually(lambda: house.hub.node.sessions[Key("s1")].is_idle)
    rows = (await commands.list_messages(house.hub.door, OPERATOR, "s1", PageRequest(9))).rows
    assert "waits" not in [row.content for row in rows]
    assert [row.agentId for row in rows if row.role == "assistant"] == (["echo"] if waits_for_edit else ["stubborn"])


async def test_a_member_who_becomes_a_viewer_gets_the_answers_to_its_queued_commands(house: House) -> None:
    """Its cancel also applies to the chat that it overtook, and is then refused. The next command is answered."""
    bob, events = await house.connect("bob"), house.hub.node.log.events
    await bob.send(type="chat", agentId="gated", sessionId="s1", message=str(house.release))
    await bob.until(lambda frame: frame.get("content") == "one ")
    appends: list[tuple[Any, ...]] = []
    append = events.append
    events.append = lambda *args: appends.append(args)  # type: ignore[method-assign]
    await bob.send(type="chat", agentId="echo", sessionId="s1", message="hello", ifBusy="parallel", ref=1)
    await eventually(lambda: bool(appends))
    await bob.send(type="cancel", sessionId="s1", ref=2)
    await bob.send(type="chat", agentId="echo", sessionId="s1", message="more", ref=3)
    await bob.until(lambda frame: frame.get("ref") == 2)
    await house.give("bob", "viewer")
    events.append = append  # type: ignore[method-assign]
    for args in appends:
        append(*args)
    assert (await bob.until(lambda frame: frame.get("ref") == 1))["type"] == "accepted"
    assert (await bob.until(lambda frame: frame.get("ref") == 3))["code"] == "denied"
