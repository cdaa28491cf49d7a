"""The check of a log names each damaged row, gap, run and file, also while a hub has the log open."""

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE

from hub.ids import Key
from hub.limits import Limits
from hub.messages import Author, Chunk, Event
from hub.seams import Seams
from hub.storage.log import LogUnusable
from hub.storage.records import Append, FileRecord, RunRecord
from hub.storage.sqlite.log import SqliteLog
from hub.storage.sqlite.migrations import MIGRATIONS

DIGEST = "d" * 64
S, T = Key("s"), Key("acme/t")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    """Two sessions with three strips each, a run and a file; not placed is a commit of each."""
    log = open_log(tmp_path)
    await log.start(lambda session, events: None)
    for key in (S, T):
        await log.sessions.make(key)
        for _ in range(3):
            await put(log, Append(key, [text(f"{number},") for number in range(4)]))
            await log.events.expire(0, 2**60)
    record = RunRecord("r", S, "main", "started", "m", "u", "hi", Author("local", "local"), 1)
    await put(log, Append(S, [text("late")], saved_runs=[record]))
    await put(log, Append(T, [text("late")]))
    await log.files.add(FileRecord(fileId="f_1", key=T, name="x.txt", type="text/plain", size=5, digest=DIGEST))
    yield log
    await log.close()


def open_log(folder: Path) -> SqliteLog:
    return SqliteLog(f"sqlite:///{folder}/hub.db", Limits(), Seams())


def text(content: str) -> Event:
    return Event("main", "r", Chunk("m", content, 0))


async def put(log: SqliteLog, append: Append) -> None:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    log.events.append(append, answer.set_result)
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await answer, int)


def blob_size(digest: str) -> int | None:
    return 5 if digest == DIGEST else None


async def lines(log: SqliteLog) -> list[str]:
    return [damage.to_line() for damage in await log.check(blob_size)]


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "hub.db", timeout=PATIENCE)) as db, db:
        assert db.execute(statement).rowcount == 1


async def test_a_sound_log_has_no_damage(log: SqliteLog, tmp_path: Path) -> None:
    """While a hub writes the log, and after the hub has closed it. The check does not change the file."""
    assert await lines(log) == []
    await log.close()
    before = (tmp_path / "hub.db").read_bytes()
    assert await lines(open_log(tmp_path)) == [] and (tmp_path / "hub.db").read_bytes() == before


async def test_dropped_events_are_no_gap(log: SqliteLog) -> None:
    """The events of a session may begin in the middle of a strip, or after the last one."""
    await log.events.expire(2**60, 2**60)
    await put(log, Append(T, [text("new")]))
    assert await lines(log) == []


async def test_a_deleted_session_is_no_damage(log: SqliteLog) -> None:
    """The check skips the strips that a deleted session left."""
    await log.sessions.delete(T)
    assert await lines(log) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE strips SET events = 'x' || events WHERE n = 2", r"strips row 2: session s, seq 5 to 8: .*malformed"),
        ("UPDATE strips SET events = '[7]' WHERE n = 2", r"strips row 2: session s, seq 5 to 8: Expected"),
        ("UPDATE strips SET events = CAST(x'FF' AS TEXT) WHERE n = 2", r"strips row 2: session s, seq 5 to 8: "),
        (
            """UPDATE strips SET events = replace(events, '"stream"', '"strm"') WHERE n = 2""",
            "strips row 2: session s, seq 5 to 8: .*has the unknown type",
        ),
        (
            "UPDATE strips SET events = '[]' WHERE n = 5",
            "strips row 5: session acme/t, seq 5 to 8: its events are not those of seq 5 to 8",
        ),
        ("DELETE FROM strips WHERE n = 2", "events: session s, seq 5 to 8: they are missing"),
        ("DELETE FROM strips WHERE n = 6", "events: session acme/t, seq 9 to 12: they are missing"),
        ("UPDATE runs SET record = '{}'", "run r: session s: the record of the run cannot be read: .*"),
        (
            f"UPDATE files SET digest = '{'e' * 64}'",
            f"file f_1: session acme/t: the blob {'e' * 64} is missing",
        ),
        ("UPDATE files SET size = 6", f"file f_1: session acme/t: the blob {DIGEST} has 5 bytes instead of 6"),
    ],
)
async def test_one_damage_is_named_once(log: SqliteLog, tmp_path: Path, statement: str, expected: str) -> None:
    """The check names its session and seqs, and names no other damage."""
    # Beside an open log, of which the writer would place what is loose: by now it lies still.
    change(tmp_path, statement)
    (line,) = await lines(log)
    assert re.match(expected, line), line


async def test_a_damaged_commit_is_named_with_its_sessions(log: SqliteLog, tmp_path: Path) -> None:
    """If no key can be read, only the row is named. The later events of these sessions are not reported as missing."""
    await log.close()
    torn = """INSERT INTO loose (n, size, events) VALUES (90, 9, '[["s",14,0,[[x]]],["acme/t",14,0,[]]]')"""
    change(tmp_path, torn)
    change(tmp_path, "INSERT INTO loose (n, size, events) VALUES (91, 9, 'nothing')")
    found = await lines(open_log(tmp_path))
    assert [line.partition(": JSON")[0].partition(": Expected")[0] for line in found] == [
        "loose row 90: session s, seq 14 and later",
        "loose row 90: session acme/t, seq 14 and later",
        "loose row 91",
    ]
    restarted = open_log(tmp_path)
    await restarted.start(lambda session, events: None)
    await restarted.close()
    found = await lines(open_log(tmp_path))
    assert found == [
        "damaged row 1: session s, seq 14 and later: the hub could not read these events, and set them aside",
        "damaged row 2: session acme/t, seq 14 and later: the hub could not read these events, and set them aside",
        "damaged row 3: the hub could not read these events, and set them aside",
    ]


async def test_damage_of_the_file_itself_is_named(log: SqliteLog, tmp_path: Path) -> None:
    """If SQLite cannot read one table, the check goes on with the others."""
    await log.close()
    with closing(sqlite3.connect(tmp_path / "hub.db")) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'strips'").fetchone()
    with open(tmp_path / "hub.db", "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    change(tmp_path, "UPDATE runs SET record = '{}'")
    found = [line.partition(": ")[0] for line in await lines(log)]
    assert {*found} == {"the log file", "table strips", "run r"}


async def test_a_log_that_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    """A missing log is not made; a log of another version is named."""
    with pytest.raises(LogUnusable, match="there is no log"):
        await lines(open_log(tmp_path))
    assert os.listdir(tmp_path) == []
    for version, words in ((len(MIGRATIONS) - 1, "older"), (len(MIGRATIONS) + 1, "newer")):
        with closing(sqlite3.connect(tmp_path / "hub.db")) as db:
            db.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(LogUnusable, match=words):
            await lines(open_log(tmp_path))
    (tmp_path / "hub.db").write_bytes(b"no database" * 100)
    with pytest.raises(LogUnusable, match="cannot be read as a log"):
        await lines(open_log(tmp_path))
