"""Erasing what a principal wrote in a session: first the contract, for all drivers, then the bytes in the files."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from msgspec.structs import replace
from support.logs import LOGS, OpenedLog, Opener, chunk, file, open_logs
from support.waiting import eventually

from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.limits import MiB
from hub.messages import (
    Author,
    Body,
    Event,
    HistoryMessage,
    InterruptResolved,
    MessageRemoved,
    Request,
    Tool,
    UserMessage,
    WholeMessage,
)
from hub.storage.log import ERASED
from hub.storage.records import Append, ChatRecord, ErasureResult, RunRecord
from hub.storage.sqlite import wal
from hub.storage.sqlite.log import SqliteLog
from hub.storage.sqlite.wal import PREALLOCATED_BYTES

S, T = Key("s"), Key("acme/t")
ANN, BOB = Author("p_ann", "Ann Secret"), Author("p_bob", "Bob")
NOTHING = ErasureResult(None, [])
PARTS = ({"type": "text", "text": "secret \0\U0001f600"},)
METADATA = {"where": {"is": ["secret"]}}
SECRET_REQUEST = Request(state={"my": "secret"}, tools=(Tool(name="secret"),))


@pytest.fixture(params=LOGS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    async with open_logs(request.param(tmp_path)) as opener:
        yield opener


@pytest.fixture
async def hub(opener: Opener) -> OpenedLog:
    return await opener()


def message(message_id: str, author: Author, content: str = "a secret", **fields: Any) -> Append:
    """Return a message of a user, with its event."""
    said: dict[str, Any] = {"messageId": message_id, "author": author, "content": content} | fields
    kept = HistoryMessage(role="user", agentId="main", runId=None, **said)
    return Append(S, [Event("main", None, UserMessage(clientMsgId="c", **said))], [(0, kept)])


def answer(message_id: str, text: str) -> Append:
    """Return a message of an agent, with its event."""
    kept = HistoryMessage(
        messageId=message_id, role="assistant", content=text, agentId="main", runId="r", author=None, userMessageId="u"
    )
    return Append(S, [Event("main", "r", WholeMessage(message_id, text))], [(0, kept)])


async def put_all(hub: OpenedLog, *appends: Append) -> None:
    for append in appends:
        await hub.put(append)


async def bodies(hub: OpenedLog, session: Key = S) -> list[Body]:
    return [event.body for event in await hub.everything(session)]


async def history(hub: OpenedLog) -> Sequence[HistoryMessage]:
    return await hub.log.sessions.read_last_messages(S, 99, MiB)


def erased(body: Body) -> Body:
    assert isinstance(body, UserMessage)
    return attrs.evolve(body, author=Author("p_ann", ""), content=ERASED, parts=None, metadata=None)


async def test_an_erased_message_keeps_only_its_place(opener: Opener) -> None:
    """In the history and in the events, also after a restart: no content, parts, metadata and name of the author.

    Its ids and its seq stay, and so do the messages of other users and of agents.
    """
    hub = await opener()
    await put_all(
        hub,
        message("u", ANN, parts=PARTS, metadata=METADATA),
        answer("a", "about p_ann and her secret"),
        message("v", BOB, "to p_ann", parts=PARTS, metadata=METADATA),
        message("w", ANN),
    )
    old_bodies, old_history = await bodies(hub), await history(hub)
    assert (await hub.log.sessions.erase_messages(S, "p_ann")).files == []
    for _ in range(2):
        new_bodies = [erased(old_bodies[0]), *old_bodies[1:3], erased(old_bodies[3])]
        assert await bodies(hub) == new_bodies
        assert [event.seq for event in await hub.everything("s")] == [1, 2, 3, 4]
        nothing: dict[str, Any] = {"author": Author("p_ann", ""), "content": ERASED, "parts": None, "metadata": None}
        first, *others, last = old_history
        assert await history(hub) == [attrs.evolve(first, **nothing), *others, attrs.evolve(last, **nothing)]
        await hub.log.close()
        hub = await opener()


async def test_the_requests_of_messages_are_erased(hub: OpenedLog) -> None:
    """Those of other users stay."""
    for message_id, author in (("u", ANN), ("v", BOB), ("w", ANN)):
        append = message(message_id, author)
        append.requests = {message_id: SECRET_REQUEST}
        await hub.put(append)
    await hub.log.sessions.erase_messages(S, "p_ann")
    found = [await hub.log.sessions.find_request(S, message_id) for message_id in ("u", "v", "w")]
    assert found == [None, SECRET_REQUEST, None]
    assert (await hub.log.sessions.erase_messages(S, "p_ann")) == NOTHING


async def test_replies_and_removed_messages_are_erased(hub: OpenedLog) -> None:
    """The payload of an answer to a question, and messages that are only events any more."""
    replies = [
        InterruptResolved("i1", "resolved", ANN, {"my": "secret"}),
        InterruptResolved("i2", "cancelled", ANN),
        InterruptResolved("i3", "resolved", BOB, "p_ann"),
        InterruptResolved("i4", "cancelled"),
    ]
    await put_all(
        hub,
        message("u", ANN),
        Append(S, [Event(None, None, MessageRemoved(("u",), "edited"))], removed_messages=["u"]),
        Append(S, [Event("main", "r", reply) for reply in replies]),
    )
    await hub.log.sessions.erase_messages(S, "p_ann")
    said, _, *found = await bodies(hub)
    nobody = Author("p_ann", "")
    assert isinstance(said, UserMessage) and (said.content, said.author) == (ERASED, nobody)
    assert found == [
        InterruptResolved("i1", "resolved", nobody, ERASED),
        InterruptResolved("i2", "cancelled", nobody),
        *replies[2:],
    ]


async def test_unfinished_runs_and_chats_are_erased(hub: OpenedLog) -> None:
    """A run still starts after a restart, with the erased message. The chats of others keep their digests."""
    mine = RunRecord("r1", S, "main", "queued", "m1", "u1", "secret", ANN, 0, parts=PARTS, metadata=METADATA)
    mine = replace(mine, request=SECRET_REQUEST, parentRunId="r0")
    other = RunRecord("r2", S, "main", "started", "m2", "u2", "p_ann", BOB, 0, 2, True, parts=PARTS, metadata=METADATA)
    far = replace(mine, runId="r3", key=T)
    chats = [
        ChatRecord(principal=id, clientMsgId="c", digest="digest", messageId="u1", runId="r1")
        for id in ("p_ann", "p_bob")
    ]
    await put_all(
        hub,
        Append(S, [chunk("x")], saved_runs=[mine, other], chats=[(0, chat) for chat in chats]),
        Append(T, [chunk("x")], saved_runs=[far]),
    )
    await hub.log.sessions.erase_messages(S, "p_ann")
    gone = replace(mine, message=ERASED, author=Author("p_ann", ""), parts=None, metadata=None, request=None)
    assert list(await hub.log.runs.list_unfinished_runs()) == [gone, other, far]
    found = [await hub.log.runs.find_chat(S, id, "c") for id in ("p_ann", "p_bob")]
    assert found == [attrs.evolve(chat, seq=1, digest=digest) for chat, digest in zip(chats, ("", "digest"))]


async def test_files_go_with_the_messages_that_name_them(hub: OpenedLog) -> None:
    """In parts, metadata or the text. Not those that another user names, too, nor those of other sessions."""
    await asyncio.gather(*map(hub.log.sessions.make, (S, T)))
    for n in range(8):
        await hub.log.files.add(file(f"f_{n}", T if n == 7 else S, digest=f"d{n}"))
    parts = ({"type": "image", "source": {"type": "url", "value": "/api/v1/files/f_1"}},)
    await put_all(
        hub,
        message("u", ANN, "look:\nf_0, f_5, f_7 and f_60", parts=parts, metadata={"old": ["f_2"]}),
        message("v", ANN, "f_3"),
        Append(S, [Event(None, None, MessageRemoved(("v",), "edited"))], removed_messages=["v"]),
        message("w", BOB, "and f_5, f_6"),
        answer("a", "I have read f_0"),
    )
    files = [await hub.log.files.find(f"f_{n}") for n in range(4)]
    found = (await hub.log.sessions.erase_messages(S, "p_ann")).files
    assert sorted(found, key=lambda one: one.fileId) == files
    assert [await hub.log.files.find(f"f_{n}") is None for n in range(8)] == [True] * 4 + [False] * 4
    assert sorted(await hub.log.files.find_used_digests([f"d{n}" for n in range(8)])) == ["d4", "d5", "d6", "d7"]


async def test_an_erasure_gives_the_session_a_new_epoch(hub: OpenedLog) -> None:
    """The seqs go on. Appends before and after it, without a wait, have the old and the new epoch."""
    await put_all(hub, message("u", ANN), message("v", BOB))
    old = await hub.log.sessions.find(S)
    result, far = await asyncio.gather(hub.log.sessions.erase_messages(S, "p_ann"), hub.put(Append(T, [chunk("x")])))
    new = await hub.log.sessions.find(S)
    assert old is not None and new is not None and old.epoch != new.epoch == result.epoch and far == 1
    assert new == attrs.evolve(old, epoch=new.epoch) == (await hub.log.sessions.make(S))[0]
    assert await hub.put(Append(S, [chunk("x")])) == 3
    assert {event.epoch for event in await hub.everything("s")} == {new.epoch}
    assert hub.notices[-2][1].epoch == new.epoch


async def test_nothing_to_erase_changes_nothing(hub: OpenedLog) -> None:
    """A second erasure, or that of a principal who only was spoken of, keeps the epoch."""
    await put_all(hub, message("u", ANN), message("v", BOB, "to p_eve"))
    assert await hub.log.sessions.erase_messages(Key("nobody"), "p_ann") == NOTHING
    assert await hub.log.sessions.find(Key("nobody")) is None
    await hub.log.sessions.erase_messages(S, "p_ann")
    head, everything = await hub.log.sessions.find(S), await hub.everything("s")
    for principal in ("p_ann", "p_eve", "p_an"):
        assert await hub.log.sessions.erase_messages(S, principal) == NOTHING
    assert await hub.log.sessions.find(S) == head and await hub.everything("s") == everything


async def test_several_principals_are_erased_at_once(hub: OpenedLog) -> None:
    """Calls that share a commit have the effect of calls one by one."""
    await put_all(hub, message("u", ANN), message("v", BOB), message("w", Author("p_eve", "Eve")))
    await asyncio.gather(*(hub.log.sessions.erase_messages(S, id) for id in ("p_ann", "p_bob")))
    assert [one.content for one in await history(hub)] == [ERASED, ERASED, "a secret"]
    head = await hub.log.sessions.find(S)
    assert head is not None and {event.epoch for event in await hub.everything("s")} == {head.epoch}


async def test_the_sessions_of_an_author_are_found(opener: Opener) -> None:
    """Also those that have only events, runs or chats of it; before and after the events are moved in the log."""
    hub = await opener()
    run = RunRecord("r", Key("run"), "main", "queued", "m", "u", "x", ANN, 0)
    chat = ChatRecord(principal="p_ann", clientMsgId="c", digest="d", messageId="u", runId="r")
    await put_all(
        hub,
        message("u", ANN),
        replace(message("v", ANN), key=T, messages=()),
        replace(message("w", BOB), key=Key("other")),
        Append(Key("run"), [], saved_runs=[run]),
        Append(Key("chat"), [chunk("x")], chats=[(0, chat)]),
        replace(message("x", ANN), key=Key("gone")),
    )
    await hub.log.sessions.delete(Key("gone"))
    for _ in range(2):
        assert list(await hub.log.sessions.list_keys_of_author("p_ann")) == ["acme/t", "chat", "run", "s"]
        assert list(await hub.log.sessions.list_keys_of_author("p_eve")) == []
        await hub.log.events.expire(0, 2**60)
    for key in (S, T):
        await hub.log.sessions.erase_messages(key, "p_ann")
    assert {*await hub.log.sessions.list_keys_of_author("p_ann")} >= {"chat", "run"}


# --- the bytes in the files -----------------------------------------------------------------------------------------


def find_text(folder: Path, text: bytes = b"secret") -> list[str]:
    """Return the names of the files of a folder that contain a text in any case."""
    return [path.name for path in sorted(folder.iterdir()) if text in path.read_bytes().lower()]


async def talk(hub: OpenedLog, seed: int) -> list[Body]:
    """Store messages of Ann and Bob, short and long, in turns with commits of other sessions. Return Bob's events."""
    random, kept = Random(seed), []
    for n in range(300):
        size = random.choice((1, 40, 600, 5000))
        words = f"{'secret ' * size}{n}"
        append = message(f"u{n}", ANN, words) if n % 3 else message(f"u{n}", BOB, f"{'public ' * size}{n}")
        if n % 3 == 0:
            kept.append(append.events[0].body)
        saved_runs = [RunRecord(f"r{n}", S, "main", "queued", "m", "u", words, ANN, 0)] if n % 3 == 1 else []
        await asyncio.gather(
            hub.put(replace(append, saved_runs=saved_runs, ended_runs=[f"r{n - 30}"])),
            hub.put(Append(T, [chunk("x" * random.randrange(3000))])),
        )
        if n % 70 == 69:
            await hub.log.events.expire(0, 2**60)
    return kept


@pytest.mark.parametrize("seed", range(3))
async def test_no_file_contains_an_erased_text(hub: OpenedLog, tmp_path: Path, seed: int) -> None:
    """While the log is open, and after it was closed. The texts of others are complete."""
    kept = await talk(hub, seed)
    assert find_text(tmp_path) != []
    await hub.log.sessions.erase_messages(S, "p_ann")
    assert find_text(tmp_path) == []
    assert [body for body in await bodies(hub) if isinstance(body, UserMessage) and body.author == BOB] == kept
    assert len(await hub.everything("acme/t")) == 300
    await hub.log.close()
    assert find_text(tmp_path) == []


async def test_no_file_contains_a_deleted_session_after_a_thorough_purge(hub: OpenedLog, tmp_path: Path) -> None:
    """Also if it has nothing to purge, because an earlier purge was not thorough."""
    for purges in ([True], [False, True]):
        await talk(hub, 7)
        await hub.log.sessions.delete(S)
        assert find_text(tmp_path) != []
        for thoroughly in purges:
            await hub.log.events.purge(thoroughly)
        assert find_text(tmp_path) == []
        await hub.log.sessions.delete(T)


# --- SQLite only ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite_log(hub: OpenedLog) -> SqliteLog:
    assert isinstance(hub.log, SqliteLog)
    return hub.log


async def test_an_erasure_has_a_commit_of_its_own(hub: OpenedLog, sqlite_log: SqliteLog) -> None:
    """After an error in the commit, the epochs say whether it is in the file; so it has no other requests."""
    await put_all(hub, message("u", ANN))
    before = hub.log.commit_totals.commits
    await asyncio.gather(
        *(hub.put(Append(Key(f"t{n}"), [chunk("x")])) for n in range(9)), hub.log.sessions.erase_messages(S, "p_ann")
    )
    await hub.log.close()
    assert hub.log.commit_totals.commits > before + 1


async def test_the_emptied_wal_is_preallocated_again(
    hub: OpenedLog, sqlite_log: SqliteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the WAL had its full size before."""
    monkeypatch.setattr(wal, "MAX_WAL_BYTES", PREALLOCATED_BYTES + 1)
    for n in range(3):
        await hub.put(message(f"u{n}", ANN, "x" * PREALLOCATED_BYTES))
    await hub.log.sessions.erase_messages(S, "p_ann")
    assert (tmp_path / "hub.db-wal").stat().st_size == 0
    await put_all(hub, Append(S, [chunk("x")]), Append(S, [chunk("y")]))
    assert (tmp_path / "hub.db-wal").stat().st_size > PREALLOCATED_BYTES


async def test_a_reader_delays_the_end_of_the_old_text(hub: OpenedLog, sqlite_log: SqliteLog, tmp_path: Path) -> None:
    """While another process reads the log, the WAL may contain the text, and the log can be written."""
    await put_all(hub, message("u", ANN))
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM messages").fetchall()
        await hub.log.sessions.erase_messages(S, "p_ann")
        assert find_text(tmp_path) != []
        await hub.put(Append(S, [chunk("x")]))
    await eventually(lambda: find_text(tmp_path) == [])
    assert await hub.put(Append(S, [chunk("y")])) == 3


async def test_a_start_removes_text_that_was_erased_before_a_kill(
    hub: OpenedLog, sqlite_log: SqliteLog, tmp_path: Path
) -> None:
    """The hub may be killed after the commit of the erasure, before the WAL is emptied."""
    copy = tmp_path / "copy"
    await put_all(hub, message("u", ANN))
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM messages").fetchall()
        await hub.log.sessions.erase_messages(S, "p_ann")
        copy.mkdir()
        for name in ("hub.db", "hub.db-wal"):
            shutil.copy(tmp_path / name, copy / name)
    assert find_text(copy) != []
    async with open_logs(f"sqlite:///{copy}/hub.db") as start:
        restarted = await start()
        assert [one.content for one in await history(restarted)] == [ERASED]
        assert find_text(copy) == []


def change(folder: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / "hub.db", timeout=20)) as db, db:
        assert db.execute(statement, values).rowcount == 1


BROKEN_ID = """events = replace(events, 'p_ann', 'p_"nn')"""  # and so broken JSON
BROKEN_BODY = """events = replace(events, '\\"content', '\\"')"""


@pytest.mark.parametrize("statement", ["events = 'x' || events", BROKEN_ID, BROKEN_BODY])
async def test_damaged_events_refuse_an_erasure(
    hub: OpenedLog, sqlite_log: SqliteLog, tmp_path: Path, statement: str
) -> None:
    """They may have the text. Nothing is erased, but the session can be deleted. Other sessions are not affected."""
    await put_all(hub, message("u", ANN), replace(message("v", ANN), key=T))
    await hub.log.events.expire(0, 2**60)
    change(tmp_path, f"UPDATE strips SET {statement} WHERE session = (SELECT n FROM sessions WHERE id = 's')")
    with pytest.raises(StorageUnavailable, match="malformed"):
        await hub.log.sessions.erase_messages(S, "p_ann")
    assert [one.content for one in await history(hub)] == ["a secret"]
    await hub.log.sessions.erase_messages(T, "p_ann")
    assert [body.content for body in await bodies(hub, T) if isinstance(body, UserMessage)] == [ERASED]
    await hub.log.sessions.delete(S)
    await hub.log.events.purge()
    await hub.log.close()
    assert find_text(tmp_path) == []


async def test_damaged_records_of_the_session_are_erased(opener: Opener, tmp_path: Path) -> None:
    """Damaged events that were set aside, and damaged runs: nobody can read them."""
    hub = await opener()
    run = RunRecord("r", S, "main", "queued", "m", "u", "secret", ANN, 0)
    await put_all(hub, message("u", ANN), Append(S, [chunk("x")], saved_runs=[run]))
    await hub.log.events.expire(0, 2**60)
    await hub.log.close()
    change(tmp_path, """INSERT INTO loose (size, events) VALUES (9, '[["s",3,0,[["secret p_ann]]],["s",9,0,[]]]')""")
    change(tmp_path, "UPDATE runs SET record = 'x' || record")
    hub = await opener()
    assert find_text(tmp_path) != []
    await hub.log.sessions.erase_messages(S, "p_ann")
    assert find_text(tmp_path) == [] and list(await hub.log.runs.list_unfinished_runs()) == []
