"""Erasing a principal: its own sessions are deleted, and elsewhere its messages become `[erased]`."""

import asyncio
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.hub import Client, Hub
from support.people import People, start_people
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR
from hub.access.records import Quota
from hub.commands import table as commands
from hub.commands.complete import Conversation
from hub.commands.erasing import Erasure
from hub.errors import Draining, StorageUnavailable, Unauthenticated, UnknownPrincipal
from hub.ids import Key
from hub.messages import Author, Chat, ChatWithRequest, HistoryMessage, PageRequest, Request
from hub.storage.log import ERASED

ASKS = """
from hub import Run

async def asks(run: Run):
    await run.ask("What?")
    yield "thanks"
"""
SECRET = "my_own_secret"
S1, S2 = Key("s1"), Key("s2")


async def start_shared(hub: Hub, **limits: Any) -> tuple[People, Client, Client]:
    """Start a hub in which Bob owns the session s1, with Ann as a member. Return the people, and their clients."""
    people = await start_people(hub, "ann", "bob", **limits)
    bob = await people.connect("bob")
    await people.chat(bob, "echo", "begin", "s1")
    await commands.change_member(hub.door, OPERATOR, "s1", people.ids["ann"], "member")
    return people, await people.connect("ann"), bob


async def erase(hub: Hub, name: str = "ann") -> Erasure:
    async with asyncio.timeout(PATIENCE):
        return await commands.erase_principal(hub.door, OPERATOR, name)


async def read_history(hub: Hub, session: str = "s1") -> list[HistoryMessage]:
    page = await commands.list_messages(hub.door, OPERATOR, session, PageRequest(100))
    return [*page.rows]


def files_with(folder: Path, text: str) -> list[str]:
    """Return the files of the hub's data that contain a text."""
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    return [path.name for path in files if text.encode() in path.read_bytes()]


async def test_own_sessions_go_and_messages_elsewhere_become_erased(hub: Hub) -> None:
    """They keep their seq; the answers of agents stay, and the result names the sessions. No file has the text."""
    people, ann, _ = await start_shared(hub)
    await people.chat(ann, "plain", f"{SECRET} one", "s1", parts=[{"type": "text", "text": SECRET}])
    await people.chat(ann, "plain", f"{SECRET} two", "s2")
    before = await read_history(hub)
    result = await erase(hub)
    assert result == Erasure(principal=people.ids["ann"], deleted_sessions=[S2], other_sessions=[S1])
    expected = list(before)
    author = Author(people.ids["ann"], "")
    expected[2] = attrs.evolve(before[2], content=ERASED, parts=None, author=author)
    assert await read_history(hub) == expected and before[3].content == "abcde"
    assert await hub.node.log.sessions.find(S2) is None
    assert files_with(hub.folder, SECRET) == []


async def test_what_a_client_shared_goes_although_another_one_has_edited_the_message(hub: Hub) -> None:
    """The edit has the tools and the sampling of the old message, and not what its author's client shared."""
    people, ann, bob = await start_shared(hub)
    shared: dict[str, Any] = {"state": SECRET, "context": ({"value": SECRET},), "forwarded": {"token": SECRET}}
    request = Request(sampling={"seed": 3}, **shared)
    chat = ChatWithRequest(message="one", agentId="plain", sessionId="s1", request=request)
    outcome = await commands.ask(hub.door, await people.principal("ann"), chat)
    question = next(row for row in reversed(await read_history(hub)) if row.role == "user")
    await bob.send(type="edit", sessionId="s1", messageId=question.messageId, message="two", ref="edit")
    edit = await bob.until(lambda frame: frame.get("ref") == "edit")
    await bob.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == edit["runId"])
    assert await hub.node.log.sessions.find_request(S1, edit["messageId"]) == Request(sampling={"seed": 3})
    await erase(hub)
    assert outcome.stopReason == "end_turn" and files_with(hub.folder, SECRET) == []


async def test_what_the_hub_knows_of_the_principal_goes(hub: Hub) -> None:
    """Its keys, grants and quota. The audit and the usage keep its id, without the name."""
    people = await start_people(hub, "bob")
    await people.add("annamaria")
    ann_id = people.ids["annamaria"]
    await people.chat(await people.connect("annamaria"), "metered", "hello", "s1")
    await people.chat(await people.connect("bob"), "metered", "hello", "s2")
    await commands.change_member(hub.door, OPERATOR, "s2", ann_id, "viewer")
    await commands.set_quota(hub.door, OPERATOR, ann_id, {"runs": 5})
    await erase(hub, "annamaria")
    access = hub.node.log.access
    assert await access.find_principal(ann_id) is None and await access.find_quota(ann_id) is None
    assert not [*await access.list_credentials(ann_id), *await access.list_grants(ann_id)]
    assert ann_id not in [member.id for member in await commands.list_members(hub.door, OPERATOR, "s2")]
    (usage,) = await access.list_usage(None, "", "9999", ann_id)
    assert usage.messages == 1
    entries = await commands.read_audit(hub.door, OPERATOR, 1000, ann_id)
    assert [(entry.action, entry.name) for entry in entries] == [("chat", "")]
    assert (await people.request("annamaria", "GET", "/me"))[0] == 401
    assert files_with(hub.folder, "annamaria") == []


async def test_open_connections_of_the_principal_are_closed(hub: Hub) -> None:
    people, ann, bob = await start_shared(hub)
    await erase(hub)
    assert await ann.wait_closed() == 4503
    assert (await people.chat(bob, "plain", "later", "s1"))["type"] == "run_finished"


def shown(client: Client, session: str = "s1") -> list[str]:
    """Return the texts that a client shows after its frames: a reset replaces all of them."""
    texts: dict[str, str] = {}
    for frame in client.frames:
        if frame.get("sessionId") != session:
            continue
        if frame["type"] == "reset":
            texts = {message["messageId"]: message["content"] for message in frame["messages"]}
        elif frame["type"] == "user_message":
            texts[frame["messageId"]] = frame["content"]
        elif frame["type"] == "stream":
            texts[frame["messageId"]] = texts.get(frame["messageId"], "")[: frame["offset"]] + frame["content"]
    return [*texts.values()]


async def test_clients_start_anew_and_miss_nothing(hub: Hub) -> None:
    """Also in the middle of an answer to somebody else, which goes on. An old cursor is refused."""
    people, ann, bob = await start_shared(hub)
    viewer = await people.connect("bob", "?sessionId=s1&afterSeq=0")
    await people.chat(ann, "plain", SECRET, "s1")
    gate = hub.folder / "gate"
    await people.send_chat(bob, "gated", str(gate), "s1")
    for client in (bob, viewer):
        await client.find(lambda frame: frame["type"] == "stream" and frame["content"] == "one ")
        assert SECRET in shown(client)
    epoch = viewer.frames[-1]["epoch"]
    await erase(hub)
    for client in (bob, viewer):
        reset = await client.until_type("reset")
        assert reset["reason"] == "epoch_changed" and reset["epoch"] != epoch
    gate.touch()
    for client in (bob, viewer):
        end = await client.until_done()
        assert end["stopReason"] == "end_turn" and end["epoch"] != epoch
        assert shown(client) == ["begin", "begin ", ERASED, "abcde", str(gate), "one two"]
        seqs = [
            frame["seq"]
            for frame in client.frames[client.frames.index(await client.find(is_reset)) :]
            if "seq" in frame
        ]
        assert seqs == sorted(set(seqs)) and seqs[-1] == end["seq"]
    late = await people.connect("bob", f"?sessionId=s1&afterSeq=2&epoch={epoch}")
    assert (await late.until_type("reset"))["reason"] == "epoch_changed"
    again = await people.connect("bob", "?sessionId=s1&afterSeq=0")
    await again.find(lambda frame: frame.get("seq") == end["seq"])
    assert SECRET not in str(again.frames)


def is_reset(frame: dict[str, Any]) -> bool:
    return bool(frame["type"] == "reset")


async def test_a_stream_of_another_answer_loses_nothing(hub: Hub) -> None:
    """An agent streams before, while and after the erasure holds its session: every piece arrives once, in order."""
    hub.agent(
        "counts.py",
        """
        import asyncio, pathlib

        async def counts(message: str):
            number = 0
            while not pathlib.Path(message).exists() or number % 1000:
                yield f"{number} "
                number += 1
                await asyncio.sleep(0)
        """,
    )
    people, ann, bob = await start_shared(hub)
    await people.chat(ann, "plain", SECRET, "s1")
    await people.send_chat(bob, "counts", str(hub.folder / "gate"), "s1", ifBusy="parallel")
    await bob.find(lambda frame: frame["type"] == "stream" and frame["content"].endswith("9 "))
    await erase(hub)
    await bob.until_type("reset")
    (hub.folder / "gate").touch()
    assert (await bob.until_done())["stopReason"] == "end_turn"
    numbers = shown(bob)[-1].split()
    assert numbers == [str(number) for number in range(len(numbers))] and len(numbers) % 1000 == 0
    assert shown(bob)[2] == ERASED and (await read_history(hub))[-1].content == shown(bob)[-1]


async def test_running_and_queued_answers_to_the_principal_are_cancelled(hub: Hub) -> None:
    """Those to others stay in the queue, and start."""
    people, ann, bob = await start_shared(hub)
    gate = hub.folder / "gate"
    running = await people.send_chat(ann, "gated", str(gate), "s1")
    queued = await people.send_chat(ann, "gated", SECRET, "s1")
    other = await people.send_chat(bob, "plain", "mine", "s1", ifBusy="enqueue")
    await erase(hub)
    ends = {frame["runId"]: frame["stopReason"] for frame in bob.frames if frame["type"] == "run_finished"}
    while not {running["runId"], queued["runId"], other["runId"]} <= ends.keys():
        end = await bob.until_done()
        ends[end["runId"]] = end["stopReason"]
    assert [ends[run["runId"]] for run in (running, queued, other)] == ["cancelled", "cancelled", "end_turn"]
    assert files_with(hub.folder, SECRET) == []


async def test_an_answer_to_a_regenerated_message_of_the_principal_is_cancelled(hub: Hub) -> None:
    """Its run has the old text, although another principal has asked for it."""
    people, ann, bob = await start_shared(hub)
    gate = str(hub.folder / "gate")
    accepted = await people.send_chat(ann, "gated", gate, "s1")
    Path(gate).touch()
    await ann.until_done()
    Path(gate).unlink()
    await bob.send(type="regenerate", sessionId="s1", messageId=accepted["messageId"], ref="again")
    await bob.find(lambda frame: frame.get("ref") == "again")
    await erase(hub)
    assert [run.record.message for run in hub.node.sessions[S1].active_runs.values()] == []
    assert files_with(hub.folder, gate) == []


async def test_answers_to_questions_are_erased(hub: Hub) -> None:
    hub.agent("asks.py", ASKS)
    people, ann, bob = await start_shared(hub)
    await people.send_chat(bob, "asks", "go", "s1")
    question = await bob.until_type("interrupt")
    fields = {"sessionId": "s1", "interruptId": question["id"], "status": "resolved", "payload": SECRET}
    await ann.send(type="resume", ref=7, **fields)
    await ann.find(lambda frame: frame.get("ref") == 7)
    await bob.until_done()
    assert (await erase(hub)).other_sessions == ["s1"]
    client = await people.connect("bob", "?sessionId=s1&afterSeq=0")
    resolution = await client.until_type("interrupt_resolved")
    assert resolution["payload"] == ERASED and files_with(hub.folder, SECRET) == []


async def test_files_of_the_messages_go(hub: Hub) -> None:
    """With their bytes, at once. Those of others stay, and uploads to the session go on."""
    people, ann, bob = await start_shared(hub)
    ids = {}
    for name, data in (("ann", SECRET), ("bob", "of Bob")):
        path = "/files?sessionId=s1"
        _, body = await people.request(name, "POST", path, data=data, headers={"Content-Type": "text/plain"})
        ids[name] = body["fileId"]
    await people.chat(ann, "plain", f"see {ids['ann']}", "s1")
    await people.chat(bob, "plain", f"see {ids['bob']}", "s1")
    await erase(hub)
    assert (await people.request("bob", "GET", f"/files/{ids['ann']}"))[0] == 404
    assert (await people.request("bob", "GET", f"/files/{ids['bob']}"))[0] == 200
    assert files_with(hub.folder, SECRET) == []


async def test_the_copies_of_files_in_forks_go_with_the_messages(hub: Hub) -> None:
    """Even if another person made the fork. A file that another person's message of the fork names stays."""
    people, ann, bob = await start_shared(hub)
    ids = []
    for data in (SECRET, "shared"):
        path, headers = "/files?sessionId=s1", {"Content-Type": "text/plain"}
        ids.append((await people.request("ann", "POST", path, data=data, headers=headers))[1]["fileId"])
    await people.chat(ann, "plain", f"see {ids[0]} and {ids[1]}", "s1")
    message_id = (await people.chat(bob, "plain", f"I see {ids[1]}", "s1"))["messageId"]
    await bob.send(type="fork", sessionId="s1", messageId=message_id, newSessionId="f1")
    await bob.until_type("subscribed")
    assert len((await people.request("bob", "GET", "/sessions/f1/files"))[1]["data"]) == 2
    result = await erase(hub)
    assert result.other_sessions == ["f1", "s1"] and files_with(hub.folder, SECRET) == []
    (file,) = (await people.request("bob", "GET", "/sessions/f1/files"))[1]["data"]
    assert await people.request("bob", "GET", f"/files/{file['fileId']}") == (200, "shared")


async def test_a_session_with_another_owner_stays(hub: Hub) -> None:
    people, ann, _ = await start_shared(hub)
    await people.chat(ann, "plain", SECRET, "s2")
    await commands.change_member(hub.door, OPERATOR, "s2", people.ids["bob"], "owner")
    result = await erase(hub)
    assert (result.deleted_sessions, result.other_sessions) == ([], ["s2"])
    assert [message.content for message in await read_history(hub, "s2")] == [ERASED, "abcde"]
    assert (await people.request("bob", "GET", "/sessions/s2/messages"))[0] == 200


async def test_the_text_of_deleted_sessions_is_in_no_file(hub: Hub) -> None:
    """Also if nothing is erased elsewhere."""
    people = await start_people(hub, "ann")
    await people.chat(await people.connect("ann"), "plain", SECRET, "s1")
    assert (await erase(hub)).deleted_sessions == ["s1"]
    assert files_with(hub.folder, SECRET) == []


async def test_a_chat_that_waits_for_its_session_is_refused(hub: Hub) -> None:
    """It was accepted at the door, and has a place in the quota, but no message yet."""
    people, ann, bob = await start_shared(hub)
    async with hub.node.loader.use(S1) as session:
        async with session.schedule.lock:
            await ann.send(type="chat", agentId="plain", sessionId="s1", message=SECRET)
            account = hub.door.quotas._accounts
            await eventually(lambda: people.ids["ann"] in account and account[people.ids["ann"]].open_runs)
            await erase(hub)
        await eventually(lambda: not account[people.ids["ann"]].open_runs)
    await people.chat(bob, "plain", "later", "s1")
    assert [message.content for message in await read_history(hub)] == ["begin", "begin ", "later", "abcde"]
    assert files_with(hub.folder, SECRET) == []


async def test_a_command_that_passed_the_door_before_the_erasure_makes_nothing(hub: Hub) -> None:
    people, _, _ = await start_shared(hub)
    ann = await people.principal("ann")
    upload = await commands.upload(hub.door, ann, "s1", "x.txt", "text/plain")
    await erase(hub)
    chat = Chat(message=SECRET, agentId="plain", sessionId="s9")
    calls = [commands.chat(hub.door, ann, chat), commands.create_session(hub.door, ann, "s9")]
    calls += [commands.relabel(hub.door, ann, "s9", {"title": SECRET})]
    for call in calls:
        with pytest.raises(Unauthenticated):
            await call
    with pytest.raises(Unauthenticated):
        async with await commands.complete(hub.door, ann, "plain", Conversation(run_id="r_1", message=SECRET)):
            pass
    with pytest.raises(Unauthenticated):
        async with upload as writer:
            await writer.write(SECRET.encode())
            await writer.save()
    assert await hub.node.log.sessions.find(Key("s9")) is None and files_with(hub.folder, SECRET) == []


async def test_a_fork_that_has_read_the_messages_copies_erased_ones(hub: Hub) -> None:
    """Without their files."""
    people, ann, bob = await start_shared(hub)
    path, headers = "/files?sessionId=s1", {"Content-Type": "text/plain"}
    _, body = await people.request("ann", "POST", path, data=SECRET, headers=headers)
    message_id = (await people.chat(ann, "plain", f"{SECRET} {body['fileId']}", "s1"))["messageId"]
    async with hub.node.loader.use(Key("copy")) as session:
        async with session.schedule.lock:
            await bob.send(type="fork", sessionId="s1", messageId=message_id, newSessionId="copy")
            await eventually(lambda: session.use_count == 2)
            await erase(hub)
        await bob.until_type("subscribed")
    assert [message.content for message in await read_history(hub, "copy")] == ["begin", "begin ", ERASED, "abcde"]
    assert files_with(hub.folder, SECRET) == []


async def test_a_page_that_was_read_before_the_erasure_is_not_sent_after_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it cached. The client's cursor is where the new subscription begins, so only the epoch tells."""
    people, ann, bob = await start_shared(hub)
    running = await people.send_chat(bob, "gated", str(hub.folder / "gate"), "s1")
    await people.send_chat(ann, "plain", SECRET, "s1")
    await bob.find(lambda frame: frame["type"] == "user_message" and frame["content"] == SECRET)
    start = next(f["seq"] for f in bob.frames if f["type"] == "run_started" and f["runId"] == running["runId"])
    read, is_read, may_return = hub.node.log.events.read, asyncio.Event(), asyncio.Event()

    async def read_slowly(*arguments: Any) -> Any:
        page = await read(*arguments)
        is_read.set()
        await may_return.wait()
        return page

    hub.node.pages.evict_session(S1)  # Ann's client has read the same page
    monkeypatch.setattr(hub.node.log.events, "read", read_slowly)
    late = await people.connect("bob", f"?sessionId=s1&afterSeq={start - 1}")
    await asyncio.wait_for(is_read.wait(), PATIENCE)
    monkeypatch.undo()
    await erase(hub)
    may_return.set()
    await late.until_type("reset")
    (hub.folder / "gate").touch()
    await late.until_done()
    assert SECRET not in str(late.frames)
    assert SECRET not in str([page.events for page in hub.node.pages._pages.values()])


async def test_what_is_on_its_way_to_the_log_is_erased(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply in a session in which the principal has written nothing else."""
    hub.agent("asks.py", ASKS)
    people, ann, bob = await start_shared(hub)
    await people.send_chat(bob, "asks", "go", "s1")
    question = await bob.until_type("interrupt")
    appends: list[Any] = []
    append = hub.node.log.events.append
    monkeypatch.setattr(hub.node.log.events, "append", lambda *arguments: appends.append(arguments))
    fields = {"sessionId": "s1", "interruptId": question["id"], "status": "resolved", "payload": SECRET}
    await ann.send(type="resume", **fields)
    await eventually(lambda: appends)
    monkeypatch.undo()
    task = asyncio.create_task(erase(hub))
    await eventually(lambda: hub.node.sessions[S1].outbox._hold is not None or task.done())
    for arguments in appends:
        append(*arguments)
    assert (await task).other_sessions == ["s1"]
    await bob.until_done()
    assert files_with(hub.folder, SECRET) == []


async def test_an_erasure_can_be_repeated(hub: Hub) -> None:
    """By the id also after it has succeeded, and after the principal was only removed; not by an unknown name."""
    people, ann, _ = await start_shared(hub)
    await people.chat(ann, "plain", SECRET, "s1")
    await commands.remove_principal(hub.door, OPERATOR, "ann")
    for _ in range(2):
        result = await erase(hub, people.ids["ann"])
        assert (result.deleted_sessions, result.other_sessions) == ([], ["s1"])
    assert files_with(hub.folder, SECRET) == []
    head = await hub.node.log.sessions.find(S1)
    await erase(hub, people.ids["ann"])
    assert await hub.node.log.sessions.find(S1) == head
    for name in ("ann", "nobody"):
        with pytest.raises(UnknownPrincipal):
            await erase(hub, name)


async def test_a_failed_erasure_leaves_the_principal_and_can_be_repeated(hub: Hub) -> None:
    """One session cannot be erased now: the others are, and the principal cannot sign in any more."""
    people, ann, _ = await start_shared(hub)
    for session_id in ("s1", "s2"):
        await people.chat(ann, "plain", SECRET, session_id)
    await commands.change_member(hub.door, OPERATOR, "s2", people.ids["bob"], "owner")
    async with hub.node.loader.use(S1) as session:
        session.outbox.close()
        with pytest.raises(StorageUnavailable):
            await erase(hub)
    assert (await people.request("ann", "GET", "/me"))[0] == 401
    assert [message.content for message in await read_history(hub, "s2")][0] == ERASED
    assert (await read_history(hub))[2].content == SECRET
    await hub.stop()
    await hub.start()
    assert (await erase(hub)).other_sessions == ["s1", "s2"]
    assert files_with(hub.folder, SECRET) == []


async def test_the_quota_of_an_erased_principal_is_gone_with_its_account(hub: Hub) -> None:
    people, _, _ = await start_shared(hub)
    await erase(hub)
    await hub.stop()
    await hub.start()
    assert (await hub.door.quotas.load(people.ids["ann"], "default")).quota == Quota(subject=people.ids["ann"])


async def test_a_hub_that_goes_down_starts_no_erasure(hub: Hub) -> None:
    await start_shared(hub)
    hub.door.drain()
    with pytest.raises(Draining):
        await erase(hub)
