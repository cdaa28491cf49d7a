"""A fork has its own copies of the files that its messages name."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.people import People, start_people
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.limits import KiB, MiB
from hub.messages import HistoryMessage
from hub.messages.parts import find_file_id, make_file_part
from hub.node.expiring import expire_files
from hub.storage.log import AppendCallback
from hub.storage.records import Append

FUTURE = 10**14
READER = """
from hub import AgentError, Run

async def reader(run: Run):
    for past in run.history:
        for part in past.parts:
            try:
                yield (await run.file(part)).decode()
            except AgentError as error:
                yield error.code
"""
KEEPER = """
from hub import Run

async def keeper(run: Run):
    yield "see /api/v1/files/" + await run.keep("made.txt", "text/plain", b"Badgers")
"""


async def begin(hub: Hub, **limits: Any) -> Client:
    hub.agent("reader.py", READER)
    hub.agent("keeper.py", KEEPER)
    await hub.start(**limits)
    return await hub.connect(extended=True)


async def call(hub: Hub, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """Send an HTTP request, and return the status and the body."""
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        async with http.request(method, path, **options) as response:
            text = await response.text()
            return response.status, await response.json() if text.startswith("{") else text


async def upload(hub: Hub, data: bytes = b"Otters", session: str = "s1") -> dict[str, Any]:
    """Return the part that names a new file."""
    path, headers = f"files?sessionId={session}&name=a.txt", {"Content-Type": "text/plain"}
    status, body = await call(hub, "POST", path, data=data, headers=headers)
    assert status == 201
    return make_file_part(body["fileId"], "text/plain", "a.txt")


async def say(client: Client, message: str, agent: str = "echo", session: str = "s1", **fields: Any) -> str:
    """Chat, and return the id of the answer."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=message, **fields)
    accepted = await client.until_type("accepted")
    end = await client.until(lambda f: f["type"] == "run_finished" and f["runId"] == accepted["runId"])
    return str(end["messageId"])


async def fork(client: Client, message_id: str, new_session: str = "f1") -> dict[str, Any]:
    """Fork s1, and return the answer."""
    ref = f"fork {len(client.frames)}"
    await client.send(type="fork", sessionId="s1", messageId=message_id, newSessionId=new_session, ref=ref)
    return await client.until(lambda f: f.get("ref") == ref)


async def read_history(hub: Hub, session: str = "f1") -> list[HistoryMessage]:
    return [*await hub.node.log.sessions.read_last_messages(Key(session), 100, MiB)]


async def list_ids(hub: Hub, session: str = "f1") -> list[str]:
    _, page = await call(hub, "GET", f"sessions/{session}/files")
    return [file["fileId"] for file in page["data"]]


def id_of_part(message: HistoryMessage) -> str:
    assert message.parts is not None
    return find_file_id(message.parts[0]) or ""


# --- what is copied ---------------------------------------------------------------------------------------------------


async def test_an_agent_of_a_fork_reads_the_files_of_its_history(hub: Hub) -> None:
    """The copy has an id of its own, which is in the history and in the event. The bytes are stored once."""
    client = await begin(hub)
    part = await upload(hub)
    await fork(client, await say(client, "see", parts=[part]))
    (new_id,) = await list_ids(hub)
    assert new_id != find_file_id(part) and await list_ids(hub, "s1") == [find_file_id(part)]
    assert (await read_history(hub))[0].parts == (make_file_part(new_id, "text/plain", "a.txt"),)
    await client.send(type="subscribe", sessionId="f1", afterSeq=0)
    event = await client.until(lambda f: f["type"] == "user_message" and f["sessionId"] == "f1")
    assert event["parts"] == [make_file_part(new_id, "text/plain", "a.txt")]
    await say(client, "read", "reader", "f1")
    assert (await read_history(hub))[-1].content == "Otters"
    assert len([path for path in (hub.folder / "data" / "files").iterdir() if len(path.name) == 64]) == 1


async def test_an_id_is_replaced_in_texts_parts_and_metadata(hub: Hub) -> None:
    """Also in an answer, and several times. Other words stay, and so do a file that no message names and other ids."""
    client = await begin(hub)
    part, unnamed, foreign = await upload(hub), await upload(hub), await upload(hub, session="s2")
    old_id = str(find_file_id(part))
    linked = {"type": "image", "source": {"type": "url", "value": f"/api/v1/files/{old_id}"}}
    metadata = {"files": [old_id, {"other": find_file_id(foreign)}], "n": 1.5, "none": None}
    await say(client, f'"ü\n{old_id}\n', parts=[linked, part], metadata=metadata)
    await fork(client, await say(client, "make", "keeper"))
    first, _, _, made = await read_history(hub)
    ids = {await read(hub, file_id): file_id for file_id in await list_ids(hub)}
    assert {*ids} == {"Otters", "Badgers"} and str(find_file_id(unnamed)) not in str(first)
    new_id = ids["Otters"]
    assert first.content == f'"ü\n{new_id}\n'
    assert first.parts == (
        {"type": "image", "source": {"type": "url", "value": f"/api/v1/files/{new_id}"}},
        make_file_part(new_id, "text/plain", "a.txt"),
    )
    assert first.metadata == {"files": [new_id, {"other": find_file_id(foreign)}], "n": 1.5, "none": None}
    assert made.content == f"see /api/v1/files/{ids['Badgers']}"
    assert old_id in (await read_history(hub, "s1"))[0].content


async def read(hub: Hub, file_id: str) -> str | int:
    """Return the text of a file, or the status of the refusal."""
    status, body = await call(hub, "GET", f"files/{file_id}")
    return str(body) if status == 200 else status


async def test_a_fork_and_its_source_are_deleted_independently(hub: Hub) -> None:
    """The files of one can be read after the deletion of the other. The bytes are deleted with the last file."""
    client = await begin(hub)
    part = await upload(hub)
    answer_id = await say(client, "see", parts=[part])
    for session in ("f1", "f2", "f3"):
        await fork(client, answer_id, session)
    (first,), (second,), (third,) = [await list_ids(hub, session) for session in ("f1", "f2", "f3")]
    assert (await call(hub, "DELETE", "sessions/f1"))[0] == 204
    assert [await read(hub, file_id) for file_id in (first, str(find_file_id(part)))] == [404, "Otters"]
    assert (await call(hub, "DELETE", "sessions/s1"))[0] == 204
    assert [await read(hub, file_id) for file_id in (str(find_file_id(part)), second)] == [404, "Otters"]
    assert (await call(hub, "DELETE", f"files/{second}"))[0] == 204
    assert [await read(hub, file_id) for file_id in (second, third)] == [404, "Otters"]
    assert (await call(hub, "DELETE", "sessions/f3"))[0] == 204
    assert [path.name for path in (hub.folder / "data" / "files").iterdir()] == ["log"]
    assert hub.node.files.quota._total == 0


async def test_a_deleted_file_is_as_unknown_in_the_fork_as_in_the_source(hub: Hub) -> None:
    """The part stays, and the fork has no file."""
    client = await begin(hub)
    part = await upload(hub)
    answer_id = await say(client, "see", parts=[part])
    await call(hub, "DELETE", f"files/{find_file_id(part)}")
    assert (await fork(client, answer_id))["type"] == "subscribed"
    assert (await read_history(hub))[0].parts == (part,) and await list_ids(hub) == []
    await say(client, "read", "reader", "f1")
    assert (await read_history(hub))[-1].content == "unknown_file"


async def test_the_file_of_a_fork_expires_when_no_message_of_the_fork_names_it(hub: Hub) -> None:
    """What the messages of the source name does not matter."""
    client = await begin(hub)
    part = await upload(hub)
    answer_id = await say(client, "see", parts=[part])
    await fork(client, answer_id)
    question_id = (await read_history(hub, "s1"))[0].messageId
    for session, left in (("s1", ["f1"]), ("f1", [])):
        await client.send(type="edit", sessionId=session, messageId=question_id, message="nothing")
        await client.until_done()
        assert await expire_files(hub.node, FUTURE) == 1
        assert [session for session in ("s1", "f1") if await list_ids(hub, session)] == left


# --- space ------------------------------------------------------------------------------------------------------------


async def test_a_fork_whose_files_do_not_fit_makes_nothing(hub: Hub) -> None:
    """The copies count as uploads do. The error says how large they are, and what to do."""
    client = await begin(hub, files_bytes=30 * KiB)
    parts = [await upload(hub, b"x" * 6 * KiB), await upload(hub)]
    answer_id = await say(client, "see", parts=parts)
    assert (await fork(client, answer_id))["type"] == "subscribed"
    assert hub.node.files.quota._total == 2 * hub.node.files.quota.count_of(Key("f1")) == 20 * KiB
    assert (await upload(hub, b"x")) and hub.node.files.quota._total == 24 * KiB
    error = await fork(client, answer_id, "f2")
    text = "the files of the fork (10 KiB) do not fit: the files of this hub have at most 30 KiB in all "
    text += "(a fork at an earlier message may need fewer files)"
    assert (error["code"], error["message"], error["sessionId"]) == ("quota_exceeded", text, "f2")
    assert await hub.node.log.sessions.find(Key("f2")) is None and hub.node.files.quota._total == 24 * KiB
    assert (await call(hub, "DELETE", "sessions/f1"))[0] == 204
    assert (await fork(client, answer_id, "f2"))["type"] == "subscribed"


async def test_a_fork_without_files_needs_no_space(hub: Hub) -> None:
    """Also if the hub has more files already than it may have."""
    client = await begin(hub)
    await upload(hub, b"x" * 6 * KiB)
    answer_id = await say(client, "hello")
    await hub.stop()
    await hub.start(files_bytes=KiB)
    assert (await fork(await hub.connect(extended=True), answer_id))["type"] == "subscribed"


async def test_the_files_of_a_fork_count_for_its_owner(hub: Hub) -> None:
    """Not for the owner of the source. The error has the fields of a quota."""
    people, ann, bob = await start_shared(hub)
    answer_id = await say_with_file(people, ann)
    await commands.set_quota(hub.door, OPERATOR, people.ids["ann"], {"stored_bytes": 4 * KiB})
    await commands.set_quota(hub.door, OPERATOR, people.ids["bob"], {"stored_bytes": 6 * KiB})
    assert (await fork(bob, answer_id))["type"] == "subscribed"
    error = await fork(bob, answer_id, "f2")
    assert (error["code"], error["limit"], error["used"]) == ("quota_exceeded", 6 * KiB, 4 * KiB)
    assert error["message"].startswith("the files of the fork (4 KiB) do not fit: the files of your sessions have 4096")


# --- permissions ------------------------------------------------------------------------------------------------------


async def start_shared(hub: Hub) -> tuple[People, Client, Client]:
    """Start a hub in which Ann owns the session s1, and Bob is a viewer of it. Return the people, and their clients."""
    people = await start_people(hub, "ann", "bob", "cleo")
    ann = await people.connect("ann")
    await people.chat(ann, "echo", "begin", "s1")
    await commands.change_member(hub.door, OPERATOR, "s1", people.ids["bob"], "viewer")
    return people, ann, await people.connect("bob")


async def say_with_file(people: People, client: Client) -> str:
    """Send a message of Ann with a file to s1, and return the id of the answer."""
    path, headers = "/files?sessionId=s1&name=a.txt", {"Content-Type": "text/plain"}
    _, body = await people.request("ann", "POST", path, data=b"Otters", headers=headers)
    part = make_file_part(body["fileId"], "text/plain", "a.txt")
    return str((await people.chat(client, "echo", "see", "s1", parts=[part]))["messageId"])


async def test_a_member_of_only_the_fork_opens_only_the_file_of_the_fork(hub: Hub) -> None:
    """A viewer of the source may fork it. Nobody else opens the file of the fork, not even the owner of the source."""
    people, ann, bob = await start_shared(hub)
    assert (await fork(bob, await say_with_file(people, ann)))["type"] == "subscribed"
    old_id, new_id = [
        next(id_of_part(message) for message in await read_history(hub, session) if message.parts)
        for session in ("s1", "f1")
    ]
    assert (await people.request("cleo", "GET", f"/files/{new_id}"))[0] == 404
    await commands.change_member(hub.door, OPERATOR, "f1", people.ids["cleo"], "viewer")
    assert await people.request("cleo", "GET", f"/files/{new_id}") == (200, "Otters")
    assert (await people.request("cleo", "GET", f"/files/{old_id}"))[0] == 404
    assert (await people.request("ann", "GET", f"/files/{new_id}"))[0] == 404


# --- races ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_source", [True, False])
async def test_a_file_that_is_deleted_during_the_fork_makes_it_fail(hub: Hub, has_source: bool) -> None:
    """Alone or with its session: nothing is made, and no space is used. The next try finds what is left."""
    client = await begin(hub)
    part = await upload(hub)
    answer_id = await say(client, "see", parts=[part, await upload(hub, b"Badgers")])
    await hub.node.log.sessions.make(Key("f1"))
    async with hub.node.loader.use(Key("f1")) as session:
        async with session.schedule.lock:
            forking = asyncio.create_task(fork(client, answer_id))
            await eventually(lambda: bool(session.schedule.lock._waiters))
            path = f"files/{find_file_id(part)}" if has_source else "sessions/s1"
            assert (await call(hub, "DELETE", path))[0] == 204
        error = await asyncio.wait_for(forking, PATIENCE)
    assert error["code"] == "storage_unavailable" and "try again" in error["message"]
    assert await read_history(hub) == [] and await list_ids(hub) == []
    assert hub.node.files.quota._total == (4 * KiB if has_source else 0)
    again = await fork(client, answer_id)
    if has_source:
        assert id_of_part((await read_history(hub))[0]) == find_file_id(part) and len(await list_ids(hub)) == 1
    else:
        assert again["code"] == "unknown_session"


async def test_the_second_of_two_forks_copies_no_file(hub: Hub) -> None:
    """Into the same new session."""
    client = await begin(hub)
    other = await hub.connect(extended=True)
    answer_id = await say(client, "see", parts=[await upload(hub)])
    answers = await asyncio.gather(fork(client, answer_id), fork(other, answer_id))
    assert sorted(answer.get("code", "") for answer in answers) == ["", "session_exists"]
    assert len(await list_ids(hub)) == 1 and hub.node.files.quota.count_of(Key("f1")) == 4 * KiB


async def test_two_forks_at_once_do_not_use_the_same_space(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused while the commit of the first waits: the log does not know its owner yet."""
    people, ann, bob = await start_shared(hub)
    answer_id = await say_with_file(people, ann)
    await commands.set_quota(hub.door, OPERATOR, people.ids["bob"], {"stored_bytes": 6 * KiB})
    log, waiting = hub.node.log.events, list[tuple[Append, AppendCallback]]()
    original = log.append
    monkeypatch.setattr(log, "append", lambda append, done: waiting.append((append, done)))
    first = asyncio.create_task(fork(bob, answer_id))
    await eventually(lambda: bool(waiting))
    second = asyncio.create_task(fork(await people.connect("bob"), answer_id, "f2"))
    await eventually(lambda: second.done() or len(waiting) == 2)
    monkeypatch.setattr(log, "append", original)
    for append, done in waiting:
        log.append(append, done)
    answers = await asyncio.wait_for(asyncio.gather(first, second), PATIENCE)
    assert [answer.get("code", "") for answer in answers] == ["", "quota_exceeded"]


async def test_a_fork_that_the_log_refuses_uses_no_space(hub: Hub) -> None:
    client = await begin(hub)
    answer_id = await say(client, "see", parts=[await upload(hub)])
    log = hub.node.log.events
    original = log.append

    def failing(append: Append, done: AppendCallback) -> None:
        asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))

    log.append = failing  # type: ignore[method-assign]
    assert (await fork(client, answer_id))["code"] == "storage_unavailable"
    log.append = original  # type: ignore[method-assign]
    assert hub.node.files.quota._total == 4 * KiB and await list_ids(hub, "s1")
    assert (await fork(client, answer_id))["type"] == "subscribed" and len(await list_ids(hub)) == 1
