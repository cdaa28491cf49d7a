"""Quotas: a principal or a tenant that has used up a quota is refused, exactly at the limit."""

import asyncio
from typing import Any

import pytest
from support.hub import Hub
from support.people import People, start_people

from hub.access.principal import OPERATOR
from hub.access.quotas import ReachedQuota, Spending, find_reached_quota
from hub.access.records import Quota
from hub.commands import table as commands
from hub.ids import Key
from hub.messages import PageRequest
from hub.seams import Seams

DAY = 24 * 3600 * 1000
NOON = 20_000 * DAY + DAY // 2
MIDNIGHT = 20_001 * DAY
KIB = 1024


async def limit(people: People, subject: str, **limits: int | None) -> None:
    await commands.set_quota(people.hub.door, OPERATOR, people.ids.get(subject, subject), limits)


async def start_at_noon(hub: Hub, *names: str, **limits: int) -> People:
    hub.seams = Seams(now=lambda: NOON)
    return await start_people(hub, *names, **limits)


@pytest.mark.parametrize(
    ("spending", "expected"),
    [
        (Spending(runs=1, messages=2, tokens=3), None),
        (Spending(runs=2, messages=2, tokens=3), ReachedQuota("runs", 2, 2)),
        (Spending(runs=2, messages=2, tokens=4), ReachedQuota("tokens", 4, 4)),
        (Spending(runs=9, messages=3, tokens=9), ReachedQuota("messages", 3, 3)),
    ],
)
def test_a_quota_is_reached_when_the_sum_is_as_large(spending: Spending, expected: ReachedQuota | None) -> None:
    """A quota of the day comes first: to wait for a run would not help."""
    assert find_reached_quota(Quota(subject="p", runs=2, messages=3, tokens=4), spending) == expected
    assert find_reached_quota(Quota(subject="p"), spending) is None


async def test_a_message_past_the_quota_of_the_day_is_refused(hub: Hub) -> None:
    """With the limit, what was used, and the next midnight; over HTTP with 429. Others are not refused."""
    people = await start_at_noon(hub, "ann", "bob")
    await limit(people, "ann", messages=2)
    ann = await people.connect("ann")
    for _ in range(2):
        assert (await people.chat(ann, "plain", "hello", "s1"))["type"] == "run_finished"
    refusal = await people.send_chat(ann, "plain", "hello", "s1")
    expected = {"code": "quota_exceeded", "limit": 2, "used": 2, "renewsAt": MIDNIGHT}
    assert expected.items() <= refusal.items() and "retryAfterMs" not in refusal
    assert "2 of the 2 messages" in refusal["message"]
    for path in ("/sessions/s1/chat", "/sessions/s1/chat?wait=true"):
        status, body = await people.request("ann", "POST", path, json={"agentId": "plain", "message": "x"})
        assert status == 429 and expected.items() <= body.items()
    assert (await people.chat(await people.connect("bob"), "plain", "hello", "s2"))["type"] == "run_finished"


async def test_each_way_to_start_an_answer_is_refused(hub: Hub) -> None:
    """The commands that rewrite a session stop and remove nothing."""
    people = await start_at_noon(hub, "ann")
    ann = await people.connect("ann")
    message_id = (await people.send_chat(ann, "plain", "hello", "s1"))["messageId"]
    await ann.until_done()
    await limit(people, "ann", messages=1)
    commands_of_client: list[dict[str, Any]] = [
        {"type": "regenerate", "sessionId": "s1", "messageId": message_id},
        {"type": "edit", "sessionId": "s1", "messageId": message_id, "message": "new"},
        {"type": "chat", "agentId": "plain", "sessionId": "s1", "message": "x", "ifBusy": "rollback"},
    ]
    for number, fields in enumerate(commands_of_client):
        await ann.send(ref=number, **fields)
        assert (await ann.until_type("error"))["code"] == "quota_exceeded"
    body: dict[str, Any] = {"model": "plain", "messages": [{"role": "user", "content": "hello"}]}
    extras: list[dict[str, Any]] = [{}, {"sessionId": "s1"}, {"stream": True}, {"sessionId": "s1", "stream": True}]
    for extra in extras:
        status, answer = await people.request("ann", "POST", "/chat/completions", json=body | extra)
        assert (status, answer["error"]["code"], answer["error"]["type"]) == (
            429,
            "quota_exceeded",
            "insufficient_quota",
        )
    run: dict[str, Any] = {"threadId": "s1", "runId": "r", "messages": [{"id": "m", "role": "user", "content": "x"}]}
    run |= {"tools": [], "context": [], "state": {}, "forwardedProps": {}}
    status, answer = await people.request("ann", "POST", "/agents/plain/agui", json=run)
    assert (status, answer["code"]) == (429, "quota_exceeded")
    messages = await commands.list_messages(hub.door, OPERATOR, "s1", PageRequest(9))
    assert [message.content for message in messages.rows] == ["hello", "abcde"]


async def test_the_run_that_passes_the_quota_of_tokens_is_finished(hub: Hub) -> None:
    """Then the next message is refused. Estimated tokens count, and those of called agents."""
    people = await start_at_noon(hub, "ann")
    await limit(people, "ann", tokens=21)
    ann = await people.connect("ann")
    assert (await people.chat(ann, "caller", "metered", "s1"))["stopReason"] == "end_turn"  # 12 tokens, and 2 + 1
    assert (await people.chat(ann, "metered", "x", "s1"))["stopReason"] == "end_turn"
    refusal = await people.send_chat(ann, "metered", "x", "s1")
    assert (refusal["code"], refusal["limit"], refusal["used"]) == ("quota_exceeded", 21, 27)


async def test_the_last_message_is_given_once(hub: Hub) -> None:
    """Of many chats at the same moment, in many sessions, exactly as many are accepted as the quota has left."""
    people = await start_at_noon(hub, "ann")
    await limit(people, "ann", messages=5)
    clients = [await people.connect("ann") for _ in range(20)]
    calls = [people.send_chat(client, "plain", "hello", f"s{number}") for number, client in enumerate(clients)]
    body = {"model": "plain", "messages": [{"role": "user", "content": "hello"}]}
    requests = [people.request("ann", "POST", "/chat/completions", json=body) for _ in range(5)]
    answers, responses = await asyncio.gather(asyncio.gather(*calls), asyncio.gather(*requests))
    count = sum(answer["type"] == "accepted" for answer in answers) + sum(status == 200 for status, _ in responses)
    assert count == 5
    await hub.stop()
    assert hub.door.quotas._accounts[people.ids["ann"]].open_runs == 0
    people = People(await hub.start(), people.keys, people.ids)
    assert sum(entry["messages"] for entry in await people.usage("ann")) == 5
    assert (await people.send_chat(await people.connect("ann"), "plain", "x", "s1"))["used"] == 5


async def test_a_chat_that_is_not_admitted_gives_its_message_back(hub: Hub) -> None:
    people = await start_at_noon(hub, "ann", queued_runs=0)
    await limit(people, "ann", messages=2)
    ann, gate = await people.connect("ann"), hub.folder / "gate"
    await people.send_chat(ann, "gated", str(gate), "s1")
    for fields in ({}, {"ifBusy": "reject"}):
        assert (await people.send_chat(ann, "gated", "x", "s1", **fields))["code"] == "busy"
    gate.touch()
    await ann.until_done()
    assert (await people.chat(ann, "plain", "x", "s1"))["type"] == "run_finished"


async def test_a_repeated_chat_gets_its_first_answer_although_the_quota_is_reached(hub: Hub) -> None:
    """It takes no message: it was accepted before."""
    people = await start_at_noon(hub, "ann")
    await limit(people, "ann", messages=1)
    ann = await people.connect("ann")
    first = await people.send_chat(ann, "plain", "hello", "s1", clientMsgId="one")
    again = await people.send_chat(ann, "plain", "hello", "s1", clientMsgId="one")
    assert (first["status"], again["status"], again["runId"]) == ("started", "duplicate", first["runId"])
    assert (await people.send_chat(ann, "plain", "hello", "s1", clientMsgId="two"))["code"] == "quota_exceeded"


async def test_the_quota_of_runs_counts_running_and_queued_answers(hub: Hub) -> None:
    """The refusal says when to try again, and not when it renews. The end of a run frees its place."""
    people = await start_at_noon(hub, "ann")
    await limit(people, "ann", runs=2)
    ann, gate = await people.connect("ann"), hub.folder / "gate"
    for _ in range(2):
        await people.send_chat(ann, "gated", str(gate), "s1")
    refusal = await people.send_chat(ann, "plain", "x", "s2")
    assert (refusal["code"], refusal["limit"], refusal["used"]) == ("quota_exceeded", 2, 2)
    assert refusal["retryAfterMs"] == 1000 and "renewsAt" not in refusal
    gate.touch()
    await ann.until_done()
    assert (await people.send_chat(ann, "plain", "x", "s2"))["type"] == "accepted"


async def test_a_quota_of_the_tenant_counts_all_its_principals(hub: Hub) -> None:
    people = await start_at_noon(hub, "ann", "bob")
    await people.add("boss", tenant="acme")
    await limit(people, "default", messages=2)
    for name in ("ann", "bob"):
        assert (await people.chat(await people.connect(name), "plain", "x", name))["type"] == "run_finished"
    for name in ("ann", "bob"):
        refusal = await people.send_chat(await people.connect(name), "plain", "x", name)
        assert (refusal["code"], refusal["used"]) == ("quota_exceeded", 2) and "tenant default" in refusal["message"]
    assert (await people.chat(await people.connect("boss"), "plain", "x", "s1"))["type"] == "run_finished"


async def test_a_quota_renews_at_midnight(hub: Hub) -> None:
    times = [NOON]
    hub.seams = Seams(now=lambda: times[-1])
    people = await start_people(hub, "ann")
    await limit(people, "ann", messages=1)
    ann, gate = await people.connect("ann"), hub.folder / "gate"
    await people.chat(ann, "plain", "x", "s1")
    times.append(MIDNIGHT - 1)
    assert (await people.send_chat(ann, "plain", "x", "s1"))["renewsAt"] == MIDNIGHT
    times.append(MIDNIGHT)
    await people.send_chat(ann, "gated", str(gate), "s1")
    times.append(MIDNIGHT + DAY)
    assert (await people.send_chat(ann, "plain", "x", "s2"))["used"] == 1, "the run goes on, and ends on this day"
    gate.touch()
    await ann.until_done()
    assert (await people.send_chat(ann, "plain", "x", "s2"))["used"] == 1


async def test_the_sums_are_the_same_after_a_restart(hub: Hub) -> None:
    """Runs of the earlier process that have not ended count, too."""
    people = await start_at_noon(hub, "ann")
    await limit(people, "ann", messages=3)
    ann, gate = await people.connect("ann"), hub.folder / "gate"
    await people.chat(ann, "plain", "x", "s1")
    for _ in range(2):
        await people.send_chat(ann, "gated", str(gate), "s1")
    await hub.stop()
    people = People(await hub.start(), people.keys, people.ids)
    ann = await people.connect("ann")
    assert (await people.send_chat(ann, "plain", "x", "s2"))["used"] == 3
    gate.touch()
    await hub.node.sessions[Key("s1")].wait_until_idle()
    assert (await people.send_chat(ann, "plain", "x", "s2"))["used"] == 3
    assert sum(entry["messages"] for entry in await people.usage("ann")) == 3


async def test_a_new_quota_applies_to_the_next_message(hub: Hub) -> None:
    """Without a restart. It can be lifted, too, and limits that are not named stay."""
    people = await start_at_noon(hub, "ann")
    ann = await people.connect("ann")
    await people.chat(ann, "plain", "x", "s1")
    await limit(people, "ann", messages=1, runs=7)
    assert (await people.send_chat(ann, "plain", "x", "s1"))["code"] == "quota_exceeded"
    await limit(people, "ann", messages=None)
    assert (await people.chat(ann, "plain", "x", "s1"))["type"] == "run_finished"
    state = await commands.read_quota(hub.door, OPERATOR, "ann")
    assert state.quota == Quota(subject=people.ids["ann"], runs=7) and state.spending.messages == 2


async def upload(people: People, name: str, session: str, size: int) -> tuple[int, Any]:
    headers = {"Content-Type": "text/plain"}
    return await people.request(name, "POST", f"/files?sessionId={session}", data=b"x" * size, headers=headers)


async def test_stored_bytes_count_for_the_owners_of_the_session(hub: Hub) -> None:
    """A member who uploads uses the space of the owner. The files of others do not count."""
    people = await start_at_noon(hub, "ann", "bob")
    await limit(people, "ann", stored_bytes=20 * KIB)
    assert (await upload(people, "bob", "s9", 50 * KIB))[0] == 201
    assert (await upload(people, "ann", "s1", 12 * KIB))[0] == 201
    await commands.change_member(hub.door, OPERATOR, "s1", people.ids["bob"], "member")
    for name in ("ann", "bob"):
        status, body = await upload(people, name, "s1", 8 * KIB + 1)
        assert (status, body["code"], body["limit"], body["used"]) == (429, "quota_exceeded", 20 * KIB, 12 * KIB)
        assert "renewsAt" not in body
    assert (await upload(people, "ann", "s2", 8 * KIB + 1))[0] == 429
    assert (await upload(people, "ann", "s2", 8 * KIB))[0] == 201
    await commands.delete_session(hub.door, OPERATOR, "s1")
    assert (await upload(people, "ann", "s3", 12 * KIB))[0] == 201


async def test_two_uploads_at_once_do_not_pass_the_quota(hub: Hub) -> None:
    people = await start_at_noon(hub, "ann", "bob")
    await limit(people, "default", stored_bytes=500 * KIB)
    calls = [upload(people, name, f"s-{name}-{number}", 100 * KIB) for name in ("ann", "bob") for number in range(4)]
    statuses = [status for status, _ in await asyncio.gather(*calls)]
    assert statuses.count(201) <= 5 and {*statuses} == {201, 429}
    assert await hub.node.files.store.sum_bytes_by_session(1) and hub.node.files.quota._total <= 500 * KIB
    state = await commands.read_quota(hub.door, OPERATOR, "default")
    assert state.stored_bytes == statuses.count(201) * 100 * KIB


async def test_admins_manage_the_quotas_of_their_tenant_over_http(hub: Hub) -> None:
    """Members do not, and the quota of the tenant itself is the operator's."""
    people = await start_at_noon(hub, "ann")
    await people.add("root", role="admin")
    await people.add("boss", role="admin", tenant="acme")
    path = f"/quotas/{people.ids['ann']}"
    quota = {"runs": None, "messages": 5, "tokens": 0, "storedBytes": None}
    status, body = await people.request("root", "PUT", path, json={"messages": 5, "tokens": 0})
    assert status == 200 and quota.items() <= body.items()
    await people.chat(await people.connect("root"), "metered", "x", "s1")
    status, body = await people.request("root", "GET", f"/quotas/{people.ids['root']}")
    assert body["used"] == {"runs": 0, "messages": 1, "tokens": 12, "storedBytes": 0}
    status, body = await people.request("root", "GET", path)
    assert status == 200 and quota.items() <= body.items() and body["subject"] == people.ids["ann"]
    assert (await people.send_chat(await people.connect("ann"), "plain", "x", "s2"))["limit"] == 0
    for name, method, target, expected in (
        ("ann", "GET", path, "denied"),
        ("ann", "PUT", path, "denied"),
        ("boss", "GET", path, "unknown_principal"),
        ("boss", "GET", "/quotas/default", "unknown_principal"),
        ("root", "GET", "/quotas/p_none", "unknown_principal"),
        ("root", "PUT", "/quotas/default", "denied"),
        ("root", "PUT", "/quotas/ann", "unknown_principal"),
    ):
        status, body = await people.request(name, method, target, **({"json": {}} if method == "PUT" else {}))
        assert body["code"] == expected, (name, method, target)
    assert (await people.request("root", "GET", "/quotas/default"))[1]["used"]["messages"] == 1
    assert (await people.request("root", "PUT", path, json={"messages": -1}))[0] == 400
