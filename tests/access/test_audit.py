"""The audit: who did what to which session, from where, allowed or not, without any content."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.people import start_people
from support.waiting import eventually

from hub.access.principal import NOBODY, OPERATOR
from hub.access.records import AuditEntry
from hub.commands import audit as auditing
from hub.commands import table as commands
from hub.errors import HubError
from hub.messages import Chat
from hub.seams import Seams
from hub.storage.open_log import open_log

HERE = "127.0.0.1"


async def entries_of(hub: Hub, *actions: str, **filters: Any) -> list[tuple[Any, ...]]:
    """Return the entries of these actions, each as (name, action, target, reason)."""
    entries = await commands.read_audit(hub.door, OPERATOR, 1000, **filters)
    return [(entry.name, entry.action, entry.target, entry.reason) for entry in entries if entry.action in actions]


async def test_each_kind_of_use_case_that_changes_something_has_an_entry(hub: Hub) -> None:
    """With the person, the session, the address, and no content: also what the operator does."""
    hub.seams = Seams(now=lambda: 1_700_000_000_000)
    people = await start_people(hub, "ann")
    await people.add("root", role="admin")
    ann = await people.connect("ann")
    await people.chat(ann, "plain", "secret words", "s1")
    await people.request("ann", "POST", "/sessions/s1/invites", json={})
    await people.request("root", "POST", "/agents/plain/reload")
    await people.request("ann", "POST", "/sessions", json={"sessionId": "s2"})
    await people.request(
        "ann",
        "POST",
        "/chat/completions",
        json={"model": "plain", "messages": [{"role": "user", "content": "secret words"}]},
    )
    await people.request("ann", "DELETE", "/sessions/s1")
    await people.request("ann", "POST", "/sessions/clear", json={"sessionIds": ["s2", "s3"]})
    actions = (
        "create_key",
        "chat",
        "create_invite",
        "reload_agent",
        "create_session",
        "complete",
        "delete_session",
        "clear_sessions",
    )
    assert await entries_of(hub, *actions) == [
        ("operator", "create_key", people.ids["ann"], ""),
        ("operator", "create_key", people.ids["root"], ""),
        ("ann", "chat", "s1", ""),
        ("ann", "create_invite", "s1", ""),
        ("root", "reload_agent", "plain", ""),
        ("ann", "create_session", "s2", ""),
        ("ann", "complete", "plain", ""),
        ("ann", "delete_session", "s1", ""),
        ("ann", "clear_sessions", "s2", ""),
    ]
    entries = await hub.node.log.access.list_audit(None, 1000)
    (chat,) = [entry for entry in entries if entry.action == "chat"]
    assert (chat.principal, chat.tenant, chat.address, chat.ts) == (
        people.ids["ann"],
        "default",
        HERE,
        1_700_000_000_000,
    )
    assert {entry.address for entry in entries if entry.name == "operator"} == {"control"}
    text = str(entries)
    assert "secret" not in text and not [key for key in people.keys.values() if key.split("_")[2] in text]


async def test_a_session_is_read_once_in_a_minute(hub: Hub) -> None:
    """Each connection has an entry of its own. A group has one for its agent."""
    times = [1_700_000_000_000]
    hub.seams = Seams(now=lambda: times[-1])
    people = await start_people(hub, "ann")
    ann = await people.connect("ann")
    await people.chat(ann, "plain", "hello", "s1")
    for client in (ann, await people.connect("ann")):
        for _ in range(3):
            await client.send(type="subscribe", sessionId="s1")
            await client.until_type("subscribed")
    for _ in range(3):
        for path in ("/sessions/s1/messages", "/sessions/s1/events"):
            assert (await people.request("ann", "GET", path))[0] == 200
    reads = ("subscribe", "list_messages", "read_events", "get_session")
    expected = [("ann", "subscribe", "s1", "")] * 2
    expected += [("ann", "list_messages", "s1", ""), ("ann", "read_events", "s1", "")]
    assert await entries_of(hub, *reads) == expected
    times.append(times[0] + 60_000)
    await people.request("ann", "GET", "/sessions/s1/messages")
    await ann.send(type="subscribe", agentId="plain")
    await ann.until_type("subscribed")
    expected += [("ann", "list_messages", "s1", ""), ("ann", "subscribe", "plain", "")]
    assert await entries_of(hub, *reads) == expected


async def test_refusals_have_the_error_code(hub: Hub) -> None:
    """Of reads, too. A foreign and a missing session look alike here, too."""
    people = await start_people(hub, "ann", "bob")
    await people.chat(await people.connect("ann"), "plain", "hello", "s1")
    bob = await people.connect("bob")
    await people.send_chat(bob, "plain", "hello", "s1")
    for path in ("/sessions/s1", "/sessions/s9", "/audit"):
        await people.request("bob", "GET", path)
    await people.request("bob", "PUT", f"/quotas/{people.ids['bob']}", json={})
    assert await entries_of(hub, "chat", "get_session", "read_audit", "set_quota", subject_id=people.ids["bob"]) == [
        ("bob", "chat", "s1", "unknown_session"),
        ("bob", "get_session", "s1", "unknown_session"),
        ("bob", "get_session", "s9", "unknown_session"),
        ("bob", "read_audit", "", "denied"),
        ("bob", "set_quota", "", "denied"),
    ]
    entries = await commands.read_audit(hub.door, OPERATOR, 1000, people.ids["bob"])
    assert [entry.is_allowed for entry in entries] == [not entry.reason for entry in entries]


async def test_signing_in_has_an_entry_with_the_person_who_signed_in(hub: Hub) -> None:
    """By a frame or by a link; a request with a key has none of its own. A wrong key has one, without a name."""
    people = await start_people(hub, "ann")
    client = await hub.connect()
    await client.send(type="auth", token=people.keys["ann"], ref=1)
    await client.until_type("ok")
    await people.request("ann", "GET", "/me")
    link = await commands.invite_person(hub.door, OPERATOR, name="eve")
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            await http.post(f"{hub.url}/api/v1/sign-in", json={"token": link.partition("#")[2]})
        await http.get(f"{hub.url}/api/v1/sessions", headers={"Authorization": "Bearer hk_wrong"})
    assert await entries_of(hub, "auth", "use_link", "authenticate", "list_sessions") == [
        ("ann", "auth", "", ""),
        ("eve", "use_link", "", ""),
        ("", "use_link", "", "bad_link"),
        ("", "authenticate", "", "unauthenticated"),
        ("", "list_sessions", "", "unauthenticated"),
    ]
    (eve,) = [record for record in await commands.list_principals(hub.door, OPERATOR) if record.name == "eve"]
    assert await entries_of(hub, "invite_person") == [("operator", "invite_person", eve.id, "")]


async def test_of_many_refusals_ten_have_entries_and_one_has_the_number(hub: Hub) -> None:
    """Between two saves, which are a second apart. Strangers do not hide the refusals of those who signed in."""
    people = await start_people(hub, "ann")
    await hub.door.audit.save()
    before = len(await hub.node.log.access.list_audit(None, 1000))
    ann = await people.principal("ann")
    for _ in range(25):
        for principal in (NOBODY, ann):
            with pytest.raises(HubError):
                await commands.read_metrics(hub.door, principal)
    await hub.door.audit.save()
    entries = (await hub.node.log.access.list_audit(None, 1000))[before:]
    counts = [entry for entry in entries if entry.action == "more_refusals"]
    assert [(entry.target, entry.reason, entry.is_allowed) for entry in counts] == [("15", "rate_limited", False)] * 2
    names = [entry.name for entry in entries if entry.action == "read_metrics"]
    assert sorted(names) == [""] * 10 + ["ann"] * 10
    with pytest.raises(HubError):
        await commands.read_metrics(hub.door, NOBODY)
    assert (await entries_of(hub, "read_metrics"))[-1] == ("", "read_metrics", "", "unauthenticated")


async def test_the_audit_is_saved_each_second_and_at_the_end(hub: Hub) -> None:
    people = await start_people(hub, "ann")
    await people.chat(await people.connect("ann"), "plain", "hello", "s1")
    store = hub.node.log.access

    async def is_saved() -> bool:
        return any(entry.action == "chat" for entry in await store.list_audit(None, 1000))

    async with asyncio.timeout(20):
        while not await is_saved():
            await asyncio.sleep(0.01)
    await people.chat(await people.connect("ann"), "plain", "hello", "s2")
    await hub.stop()
    await hub.start()
    assert [target for _, _, target, _ in await entries_of(hub, "chat")] == ["s1", "s2"]


async def test_entries_wait_in_memory_while_the_log_cannot_be_written(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a limit: past it the newest ones are lost, and one entry has their number."""
    monkeypatch.setattr(auditing, "MAX_WAITING_ENTRIES", 5)
    await hub.start()
    store = hub.node.log.access
    other_log = open_log(f"sqlite:///{hub.folder}/other.db", hub.limits, Seams())
    await other_log.start(lambda key, events: None)
    await other_log.close()  # so it cannot be written
    audit = auditing.Audit(store=other_log.access, seams=Seams(), max_entries=100)
    for number in range(4):
        audit.note(OPERATOR, "chat", str(number))
    await audit.save()
    for number in range(4, 8):
        audit.note(OPERATOR, "chat", str(number))
    await audit.save()
    audit.store = store
    await audit.save()
    entries = await store.list_audit(None, 100)
    assert [(entry.action, entry.target) for entry in entries] == [
        *(("chat", str(number)) for number in range(5)),
        ("lost_entries", "3"),
    ]


async def test_an_admin_reads_the_audit_of_its_tenant(hub: Hub) -> None:
    """Filtered by a principal or a session; not what the operator did, which is in no tenant."""
    people = await start_people(hub, "ann", "bob")
    await people.add("root", role="admin")
    await people.add("boss", role="admin", tenant="acme")
    for name, session in (("ann", "s1"), ("bob", "s2"), ("boss", "s1")):
        await people.chat(await people.connect(name), "plain", "hello", session)

    async def read(name: str, query: str = "") -> list[tuple[str, str, str]]:
        status, body = await people.request(name, "GET", f"/audit{query}")
        assert status == 200
        return [(line["name"], line["action"], line["target"]) for line in body["data"]]

    assert await read("root", "?limit=2") == [("ann", "chat", "s1"), ("bob", "chat", "s2")]
    assert ("root", "read_audit", "") in await read("root")
    assert await read("root", f"?principal={people.ids['bob']}") == [("bob", "chat", "s2")]
    assert await read("root", "?target=s1") == [("ann", "chat", "s1")]
    assert await read("boss", "?target=s1") == [("boss", "chat", "s1")]
    assert (await people.request("ann", "GET", "/audit"))[0] == 403
    _, body = await people.request("root", "GET", "/audit?target=s1")
    assert body["data"][0] | {"ts": 0} == {
        "ts": 0,
        "principal": people.ids["ann"],
        "name": "ann",
        "action": "chat",
        "target": "s1",
        "address": HERE,
        "isAllowed": True,
        "reason": "",
    }


async def test_the_address_is_that_of_the_client_behind_a_trusted_proxy(hub: Hub) -> None:
    """On a socket, too, also after a later `auth`, and after a change of the role."""
    hub.options = {"trusted_proxies": (HERE,)}
    people = await start_people(hub, "ann")
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "http"}
    await people.request("ann", "POST", "/sessions", json={"sessionId": "s1"}, headers=headers)
    client = await hub.connect(headers=headers)
    await client.send(type="auth", token=people.keys["ann"])
    await commands.change_principal(hub.door, OPERATOR, name="ann", role="admin")
    await client.send(type="chat", agentId="plain", message="hello", sessionId="s1")
    await client.until_done()
    entries = await commands.read_audit(hub.door, OPERATOR, 1000, people.ids["ann"])
    assert {(entry.action, entry.address) for entry in entries} == {
        (action, "203.0.113.7") for action in ("create_session", "auth", "chat")
    }


async def test_nothing_is_written_while_sign_in_is_off(hub: Hub) -> None:
    await hub.start()
    await commands.chat(hub.door, OPERATOR, Chat(message="hello", agentId="echo", sessionId="s1"))
    await hub.door.audit.save()
    assert list(await hub.node.log.access.list_audit(None, 9)) == []


async def test_a_call_whose_client_left_has_an_entry(hub: Hub) -> None:
    """What it did may have happened."""
    people = await start_people(hub, "ann")
    gate = str(hub.folder / "gate")
    principal = await people.principal("ann")
    chat = Chat(message=gate, agentId="gated", sessionId="s1")
    task = asyncio.create_task(commands.ask(hub.door, principal, chat))
    await eventually(lambda: "s1" in hub.node.sessions and hub.node.sessions["s1"].active_runs)  # type: ignore[index]
    task.cancel()
    await asyncio.wait([task])
    assert await entries_of(hub, "ask") == [("ann", "ask", "s1", "")]


def test_an_entry_has_no_field_for_content() -> None:
    """Only these; a new field needs a second look."""
    assert {field.name for field in AuditEntry.__attrs_attrs__} == {
        *("ts", "tenant", "principal", "name", "action", "target", "address", "is_allowed", "reason")
    }
