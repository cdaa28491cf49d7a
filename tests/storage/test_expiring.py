"""The contract of a log, for all drivers: old messages and files are deleted, and the sums stay right."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.logs import LOGS, OpenedLog, Opener, chunk, file, open_logs

from hub.ids import Key
from hub.limits import KiB
from hub.messages import Author, HistoryMessage, PageRequest, Request
from hub.storage.log import EVERYONE
from hub.storage.records import Append, RunRecord, SessionQuery
from hub.storage.sqlite import expiring

S, T = Key("s"), Key("acme/t")
FUTURE = 10**14


@pytest.fixture(params=LOGS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    async with open_logs(request.param(tmp_path)) as opener:
        yield opener


@pytest.fixture
async def log(opener: Opener) -> OpenedLog:
    return await opener()


def make_message(message_id: str, content: str = "x", **fields: Any) -> HistoryMessage:
    fields = {"author": None, "agentId": None, "runId": None, "role": "user"} | fields
    return HistoryMessage(messageId=message_id, content=content, **fields)


def make_run(key: Key, question: str) -> RunRecord:
    return RunRecord("r", key, "main", "started", "m", question, "x", Author("ann", "Ann"), 0)


async def say(log: OpenedLog, key: Key, *messages: HistoryMessage, **fields: Any) -> None:
    await log.put(Append(key, [chunk("x")], messages=[(0, message) for message in messages], **fields))


async def read(log: OpenedLog, key: Key) -> Sequence[HistoryMessage]:
    return (await log.log.sessions.list_messages(key, PageRequest(999))).rows


async def read_ids(log: OpenedLog, key: Key) -> list[str]:
    return [message.messageId for message in await read(log, key)]


async def find_time(log: OpenedLog, key: Key, message_id: str) -> int:
    return next(message.ts for message in await read(log, key) if message.messageId == message_id)


def age(path: Path, key: Key, *message_ids: str, ts: int = 1000) -> None:
    """Make messages old, as plain SQL."""
    with closing(sqlite3.connect(path)) as db:
        for message_id in message_ids:
            db.execute("UPDATE messages SET ts = ? WHERE session = ? AND id = ?", (ts, key, message_id))
        db.commit()


# --- messages by age --------------------------------------------------------------------------------------------------


async def test_messages_expire_by_their_age(log: OpenedLog, tmp_path: Path) -> None:
    """In all sessions, up to the time and not at it. The sums of the sessions stay right."""
    for key in (S, T):
        await say(log, key, make_message("m1"), make_message("m2", parts=({"type": "text"},)))
    for key in (S, T):
        await say(log, key, make_message("m3", metadata={"a": "ö"}))
    age(tmp_path / "hub.db", S, "m1", "m2", ts=999)
    age(tmp_path / "hub.db", T, "m1", ts=999)
    age(tmp_path / "hub.db", T, "m2", ts=1000)
    expiry = await log.log.sessions.expire_messages(1000, None)
    assert (expiry.keys, expiry.before) == ({S, T}, 1000)
    assert [await read_ids(log, key) for key in (S, T)] == [["m3"], ["m2", "m3"]]
    await check_sums(log, tmp_path)
    assert (await log.log.sessions.expire_messages(1000, None)).keys == set()


async def check_sums(log: OpenedLog, folder: Path) -> None:
    """Assert that each session has the number, the last time and the size of its messages, and the lists show them."""
    with closing(sqlite3.connect(folder / "hub.db")) as db:
        sums = """
            SELECT s.id, count(m.n), coalesce(sum(
                length(CAST(content AS BLOB)) + coalesce(length(CAST(parts AS BLOB)), 0)
                + coalesce(length(CAST(m.metadata AS BLOB)), 0)
                + coalesce(length(CAST(m.request AS BLOB)), 0)), 0)
            FROM sessions s LEFT JOIN messages m ON m.session = s.id GROUP BY s.id ORDER BY s.id"""
        stored = db.execute("SELECT id, messages, message_bytes FROM sessions ORDER BY id").fetchall()
        assert stored == db.execute(sums).fetchall()
    for prefix in ("", "acme/"):
        rows = (await log.log.sessions.list(SessionQuery(prefix=prefix, readers=EVERYONE), PageRequest(9))).rows
        for row in rows:
            messages = await read(log, row.key)
            assert (row.messages, row.ts) == (len(messages), messages[-1].ts if messages else 0)


async def test_a_message_from_the_future_does_not_keep_others(log: OpenedLog, tmp_path: Path) -> None:
    """The clock was wrong when the message was written. The message itself stays."""
    await say(log, S, make_message("m1"), make_message("m2"), make_message("m3"))
    age(tmp_path / "hub.db", S, "m1", ts=2**50)
    age(tmp_path / "hub.db", S, "m2")
    await log.log.sessions.expire_messages(1001, None)
    assert await read_ids(log, S) == ["m1", "m3"]


async def test_all_messages_of_a_session_may_expire(log: OpenedLog, tmp_path: Path) -> None:
    """The session stays, and goes on with the next seq."""
    await say(log, S, make_message("m1"), make_message("m2"))
    await log.log.sessions.expire_messages(FUTURE, None)
    assert await read_ids(log, S) == []
    await check_sums(log, tmp_path)
    await say(log, S, make_message("m3"))
    assert await read_ids(log, S) == ["m3"] and [event.seq for event in await log.everything("s")] == [1, 2]
    await check_sums(log, tmp_path)


async def test_a_question_stays_as_long_as_its_answer(log: OpenedLog, tmp_path: Path) -> None:
    """An agent does not see an answer without its question."""
    await say(log, S, make_message("q0"), make_message("a0", userMessageId="q0"))
    await say(log, S, make_message("q1"), make_message("a1", userMessageId="q1"))
    age(tmp_path / "hub.db", S, "q0", "a0", "q1")
    await log.log.sessions.expire_messages(1001, None)
    assert await read_ids(log, S) == ["q1", "a1"]
    age(tmp_path / "hub.db", S, "a1")
    await log.log.sessions.expire_messages(1001, None)
    assert await read_ids(log, S) == []


async def test_the_messages_of_a_session_with_an_unfinished_run_stay(log: OpenedLog) -> None:
    """The run may wait for a reply of a person for long."""
    for key in (S, T):
        await say(log, key, make_message("m1"))
    await say(log, S, saved_runs=[make_run(S, "m1")])
    assert (await log.log.sessions.expire_messages(FUTURE, 0)).keys == {T}
    assert await read_ids(log, S) == ["m1"]
    await say(log, S, ended_runs=["r"])
    assert (await log.log.sessions.expire_messages(FUTURE, None)).keys == {S}


@pytest.mark.parametrize(("rows", "size"), [(3, 10**9), (500, 3 * KiB)])
async def test_messages_expire_in_commits_of_limited_size(
    log: OpenedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, size: int
) -> None:
    """By the number and by the bytes of the messages. Messages that stay are no obstacle."""
    monkeypatch.setattr(expiring, "DROPPED_ROWS", rows)
    monkeypatch.setattr(expiring, "DROPPED_BYTES", size)
    await say(log, T, *(make_message(f"t{number}") for number in range(7)), saved_runs=[make_run(T, "t0")])
    await say(log, S, *(make_message(f"m{number}", "x" * KiB) for number in range(10)))
    commits = log.log.commit_totals.commits
    await log.log.sessions.expire_messages(FUTURE, None)
    assert log.log.commit_totals.commits - commits >= 4
    assert await read_ids(log, S) == [] and len(await read_ids(log, T)) == 7
    await check_sums(log, tmp_path)


# --- messages by size -------------------------------------------------------------------------------------------------


async def test_the_oldest_messages_expire_by_size(log: OpenedLog, tmp_path: Path) -> None:
    """Of all sessions together, by their commits. Parts and metadata count."""
    for number in range(4):
        await say(log, S, make_message(f"s{number}", "ö" * 50))
        await say(log, T, make_message(f"t{number}", "x" * 90, metadata={"a": "b"}))  # 99 bytes
    assert (await log.log.sessions.expire_messages(0, 796)).keys == set()
    last_time = await find_time(log, T, "t0")
    expiry = await log.log.sessions.expire_messages(0, 795)
    assert expiry.keys == {S} and expiry.before <= last_time + 1
    assert await read_ids(log, S) == ["s1", "s2", "s3"] and await read_ids(log, T) == ["t0", "t1", "t2", "t3"]
    expiry = await log.log.sessions.expire_messages(0, 400)
    assert await read_ids(log, S) == ["s2", "s3"] and await read_ids(log, T) == ["t2", "t3"]
    await check_sums(log, tmp_path)
    await log.log.sessions.expire_messages(0, 0)
    assert await read_ids(log, S) == await read_ids(log, T) == []


async def test_the_size_of_messages_follows_all_changes(log: OpenedLog, tmp_path: Path) -> None:
    """New, removed and erased messages, and deleted sessions."""
    ann = Author("ann", "Ann")
    parts = ({"type": "text", "text": "a\0b"},)
    await say(log, S, make_message("m1", "long enough", author=ann, parts=parts, metadata={"a": 1}), make_message("m2"))
    await check_sums(log, tmp_path)
    await say(log, S, make_message("m4", author=ann), requests={"m4": Request(state="x" * 500)})
    await check_sums(log, tmp_path)
    with closing(sqlite3.connect(tmp_path / "hub.db")) as db:
        assert db.execute("SELECT message_bytes FROM sessions").fetchone()[0] > 500
    await say(log, S, make_message("m3"), removed_messages=["m2"])
    await check_sums(log, tmp_path)
    await log.log.sessions.erase_messages(S, "ann")
    await check_sums(log, tmp_path)
    await say(log, T, make_message("m1", "x" * 1000))
    await log.log.sessions.delete(T)
    with closing(sqlite3.connect(tmp_path / "hub.db")) as db:
        assert db.execute("SELECT sum(message_bytes) FROM sessions").fetchone()[0] < 100


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_sessions_without_messages_and_files_are_unused(log: OpenedLog) -> None:
    """If nothing was written since the given time, an event or the creation."""
    sessions = log.log.sessions
    head, _ = await sessions.make(S)
    await say(log, T, make_message("m1"))
    assert await sessions.list_idle_sessions(FUTURE) == [head] and await sessions.list_idle_sessions(1000) == []
    await log.log.events.expire(0, 2**60)
    await sessions.expire_messages(FUTURE, None)
    unused = {head.key: head for head in await sessions.list_idle_sessions(FUTURE)}
    assert unused.keys() == {S, T} and unused[T] == await sessions.find(T) and unused[T].seq == 1
    time = (await log.everything("acme/t"))[0].ts
    assert [head.key for head in await sessions.list_idle_sessions(time)] in ([], [S])
    await log.log.files.add(file("f_1", session="s"))
    await say(log, T, saved_runs=[make_run(T, "m1")])
    assert await sessions.list_idle_sessions(FUTURE) == []
    await log.log.events.expire(FUTURE, 2**60)
    await say(log, T, ended_runs=["r"])
    assert [head.key for head in await sessions.list_idle_sessions(FUTURE)] == [T]


# --- files ------------------------------------------------------------------------------------------------------------


async def expire_files(log: OpenedLog, before: int = FUTURE) -> list[str]:
    """Return the ids of the expired files."""
    ids: list[str] = []
    after: str | None = ""
    while after is not None:
        records, after = await log.log.files.expire_files(before, after)
        ids += [record.fileId for record in records]
    return sorted(ids)


async def test_files_expire_unless_a_message_names_them(log: OpenedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its text, its parts or its metadata; a message of the same session."""
    monkeypatch.setattr(expiring, "DROPPED_ROWS", 2)
    await say(log, S, make_message("m1", "see f_1"), make_message("m2", parts=({"id": "f_2"},)))
    await say(log, S, make_message("m3", metadata={"a": ["f_3"]}))
    await say(log, T, make_message("m1", "see f_4"))
    for number in range(8):
        await log.log.files.add(file(f"f_{number}"))
    record = await log.log.files.find("f_0")
    assert record is not None and await expire_files(log, before=record.created) == []
    assert await expire_files(log) == ["f_0", "f_4", "f_5", "f_6", "f_7"]
    assert await log.log.files.find("f_0") is None and await log.log.files.find("f_1") is not None
    await log.log.sessions.expire_messages(FUTURE, None)
    assert await expire_files(log) == ["f_1", "f_2", "f_3"]


async def test_the_files_of_a_session_with_an_unfinished_run_stay(log: OpenedLog) -> None:
    await say(log, S, saved_runs=[make_run(S, "m1")])
    await log.log.files.add(file("f_1"))
    assert await expire_files(log) == []
    await say(log, S, ended_runs=["r"])
    assert await expire_files(log) == ["f_1"]


async def test_a_file_that_is_named_after_the_search_stays(log: OpenedLog, tmp_path: Path) -> None:
    """The commit that deletes files looks at the messages since the search."""
    await say(log, S, make_message("m1"))
    await log.log.files.add(file("f_1"))
    with closing(sqlite3.connect(tmp_path / "hub.db")) as db:
        page = expiring.find_old_files(db, FUTURE, "")
        await say(log, S, make_message("m2", "see f_1"))
        drop = expiring.FileDrop(ids=["f_1"], before=FUTURE, last_message=page.last_message)
        assert [tuple(item) for item in page.files] == [("f_1", 0)]
        assert expiring.drop_files(db, drop) == []
        assert len(expiring.drop_files(db, attrs.evolve(drop, last_message=2))) == 1
