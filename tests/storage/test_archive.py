"""Copies of the SQLite log: in a backup, and before an update of its schema."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs
from support.documents import ROOT
from support.logs import Opener, chunk, file, open_logs

from hub.ids import Key
from hub.limits import MiB
from hub.storage.file_hold import hold_blobs, try_to_unlink
from hub.storage.log import LogInUse, LogUnusable
from hub.storage.records import Append
from hub.storage.sqlite.archive import SqliteArchive
from hub.storage.sqlite.event_rows import event_to_commit
from hub.storage.sqlite.migrations import MIGRATIONS

S = Key("s")
OLD_SCHEMAS = range(1, len(MIGRATIONS))
# The rows of an old log that has sign-in and files: the first schema of each table, its columns, and a row.
OLD_ROWS: dict[str, tuple[int, dict[str, Any]]] = {
    "files": (
        3,
        {"id": "f", "session": "s", "name": "a.txt", "type": "text/plain", "size": 1, "digest": "d", "created": 7},
    ),
    "principals": (
        10,
        {"id": "p_1", "name": "ann", "kind": "person", "role": "admin", "tenant": "default", "created": 7},
    ),
    "credentials": (
        10,
        {"id": "k", "principal": "p_1", "kind": "key", "digest": "d", "label": "", "agents": '["echo"]', "created": 7}
        | {"expires": 0, "revoked": 0, "used": 8},
    ),
    "grants": (10, {"session": "s", "principal": "p_1", "role": "owner"}),
    "invites": (
        10,
        {"id": "i", "session": "s", "role": "member", "digest": "d", "creator": "p_1", "created": 7}
        | {"expires": 9, "revoked": 0},
    ),
    "quotas": (10, {"subject": "p_1", "runs": 3, "messages": None, "tokens": 9, "stored_bytes": None}),
    "usage": (
        10,
        {"day": "2026-11-01", "tenant": "default", "principal": "p_1", "agent": "main", "messages": 1}
        | {"input_tokens": 2, "output_tokens": 3, "estimated": 0},
    ),
    "audit": (
        10,
        {"ts": 7, "tenant": "default", "principal": "p_1", "name": "ann", "action": "ask", "target": "s"}
        | {"address": "127.0.0.1", "is_allowed": 1, "reason": ""},
    ),
}


def old_rows(schema: int) -> dict[str, list[Any]]:
    """Return the rows that a log of a schema has, by a query that reads them."""
    return {
        f"SELECT {', '.join(row)} FROM {table}": [*row.values()]
        for table, (first_schema, row) in OLD_ROWS.items()
        if first_schema <= schema
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "hub.db"


@pytest.fixture
async def opener(path: Path) -> AsyncIterator[Opener]:
    async with open_logs(f"sqlite:///{path}") as start:
        yield start


def ignore(copied_bytes: int, all_bytes: int) -> None:
    pass


def make_old_log(path: Path, schema: int) -> None:
    """Make a log of an earlier version, with a session, three events, two messages, and OLD_ROWS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.create_function("as_loose", -1, event_to_commit)
        db.executescript(f"PRAGMA journal_mode = WAL; {';'.join(MIGRATIONS[:schema])}; PRAGMA user_version = {schema}")
        db.execute("INSERT INTO sessions (id, epoch, floor, created) VALUES ('s', 'old', 0, 7)")
        for seq in (1, 2, 3):
            row = ("s", seq, seq, "stream", "main", "r", "m2", seq, f"{seq},")
            if schema < 6:
                columns = "session, seq, ts, type, agent, run, message, offset, content"
                db.execute(f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            else:
                db.execute("INSERT INTO loose (size, events) VALUES (9, ?)", (event_to_commit(*row),))
        for id, seq, role in (("m1", 0, "user"), ("m2", 3, "assistant")):
            db.execute(
                "INSERT INTO messages (session, id, seq, ts, role, content) VALUES ('s', ?, ?, 9, ?, ?)",
                (id, seq, role, f"text of {id}"),
            )
        for table, (first_schema, values) in OLD_ROWS.items():
            if first_schema <= schema:
                places = ", ".join("?" * len(values))
                db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", [*values.values()])
        db.commit()


def read_rows(path: Path, queries: Iterable[str]) -> dict[str, list[Any]]:
    """Return the only row of each query."""
    with closing(sqlite3.connect(path)) as db:
        return {query: list(*db.execute(query)) for query in queries}


class OldData(NamedTuple):
    """What the log of make_old_log() has."""

    texts: list[str]
    events: str
    epoch: str


async def read_old_data(opener: Opener) -> OldData:
    opened = await opener()
    head = await opened.log.sessions.find(S)
    assert head is not None
    messages = await opened.log.sessions.read_last_messages(S, 9, MiB)
    events = "".join(getattr(event.body, "content") for event in await opened.everything("s"))
    await opened.log.close()
    return OldData([message.content for message in messages], events, head.epoch)


OLD_DATA = OldData(["text of m1", "text of m2"], "1,2,3,", "old")


# --- copies -----------------------------------------------------------------------------------------------------------


async def test_a_copy_has_one_state_of_a_log_that_is_written(opener: Opener, path: Path, tmp_path: Path) -> None:
    """What is committed during the copy is not in it. The copy is one private file."""
    opened = await opener()
    for number in range(300):
        await opened.put(Append(S, [chunk("x" * 20_000)]))
    await opened.log.files.add(file("f_1", digest="d1", size=5))
    reports: list[tuple[int, int]] = []

    def write_meanwhile(copied_bytes: int, all_bytes: int) -> None:
        reports.append((copied_bytes, all_bytes))
        with closing(sqlite3.connect(path)) as db:
            db.execute("INSERT INTO messages (session, id, seq, ts, role, content) VALUES ('s', 'm', 1, 1, 'user', '')")
            db.execute("DELETE FROM messages")
            db.execute("INSERT INTO sessions (id, epoch, floor, created) VALUES (?, '', 0, 0)", (f"t{len(reports)}",))
            db.commit()

    contents = SqliteArchive(path).copy(tmp_path / "copy", write_meanwhile)
    assert len(reports) > 1 and reports[-1][0] == reports[-1][1]
    wanted = {"sessions": 1, "messages": 0, "events": 300, "runs": 0, "files": 1, "principals": 0}
    assert (contents.schema, contents.counts, contents.blobs) == (len(MIGRATIONS), wanted, {"d1": 5})
    assert SqliteArchive(path).read_contents(tmp_path / "copy") == contents
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert [name for name in os.listdir(tmp_path) if name.startswith("copy")] == ["copy"]


async def test_events_count_wherever_they_are(opener: Opener, path: Path, tmp_path: Path) -> None:
    """Expired ones do not count, nor do those of a deleted session that are not purged yet."""
    opened = await opener()
    for key in (S, Key("t")):
        for number in range(40):
            await opened.put(Append(key, [chunk("a"), chunk("b")]))
    archive = SqliteArchive(path)
    assert archive.copy(tmp_path / "1", ignore).counts["events"] == 160
    await opened.log.events.expire(0, 2**60)  # moves all events to strips
    await opened.put(Append(S, [chunk("c")]))
    assert archive.copy(tmp_path / "2", ignore).counts["events"] == 161
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE sessions SET floor = 7 WHERE id = 's'")
        db.commit()
    await opened.log.sessions.delete(Key("t"))
    assert archive.copy(tmp_path / "3", ignore).counts["events"] == 81 - 7


async def test_the_lock_of_an_archive_is_that_of_the_log(opener: Opener, path: Path) -> None:
    await opener()
    with ExitStack() as undo, pytest.raises(LogInUse):
        SqliteArchive(path).take_lock(undo)


@pytest.mark.parametrize("schema", OLD_SCHEMAS)
async def test_a_copy_of_an_older_version_is_updated(opener: Opener, path: Path, tmp_path: Path, schema: int) -> None:
    """As a restore does it. Nothing is lost, and the session has a new epoch."""
    make_old_log(tmp_path / "old.db", schema)
    archive = SqliteArchive(tmp_path / "old.db")
    contents = archive.copy(tmp_path / "copy", ignore)
    assert contents.schema == schema and contents.counts["events"] == 3
    archive.renew(tmp_path / "copy", lambda: "new")
    assert archive.check(tmp_path / "copy", lambda digest: 1) == []
    path.parent.mkdir()
    shutil.move(tmp_path / "copy", path)
    assert await read_old_data(opener) == OLD_DATA._replace(epoch="new")
    assert not [name for name in os.listdir(path.parent) if name.endswith("bak")]


def test_a_file_that_is_no_log_of_this_version_is_not_copied(path: Path, tmp_path: Path) -> None:
    """Such as one of a newer version, an empty database, or no database."""
    path.parent.mkdir()
    archive = SqliteArchive(path)
    with pytest.raises(LogUnusable, match="there is no log"):
        archive.copy(tmp_path / "copy", ignore)
    for version, words in ((len(MIGRATIONS) + 1, "newer"), (0, "no log of Hubbub")):
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(LogUnusable, match=words):
            archive.copy(tmp_path / "copy", ignore)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(LogUnusable, match="hubbub check"):
        archive.copy(tmp_path / "copy", ignore)


def test_blobs_are_held_by_a_folder_lock(tmp_path: Path) -> None:
    """Two backups can hold them at the same time. A missing folder has none."""
    blob = tmp_path / "blob"
    blob.touch()
    with hold_blobs(tmp_path):
        with hold_blobs(tmp_path):
            assert not try_to_unlink(tmp_path, [blob])
        assert not try_to_unlink(tmp_path, [blob]) and blob.exists()
    with hold_blobs(tmp_path / "none"):
        assert try_to_unlink(tmp_path, [blob]) and not blob.exists()


# --- copies before an update of the schema ----------------------------------------------------------------------------


@pytest.mark.parametrize("schema", OLD_SCHEMAS)
async def test_a_copy_is_made_before_an_update(opener: Opener, path: Path, schema: int) -> None:
    """It is private, complete, and named in one line. A log of this version is not copied."""
    make_old_log(path, schema)
    with capture_logs() as lines:
        assert await read_old_data(opener) == OLD_DATA
    assert read_rows(path, old_rows(schema)) == old_rows(schema)
    copy = path.with_name(f"hub.db.schema{schema}.bak")
    (line,) = [line for line in lines if line["event"] == "log_upgrade"]
    assert (line["schema"], line["to"], line["copy"]) == (schema, len(MIGRATIONS), copy.name)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema,)
        assert db.execute("SELECT content FROM messages ORDER BY seq").fetchall() == [("text of m1",), ("text of m2",)]
    copy.rename(path)  # the way back to the earlier version
    assert await read_old_data(opener) == OLD_DATA
    copy.unlink()
    assert await read_old_data(opener) == OLD_DATA and not copy.exists()


async def test_the_newest_two_copies_stay(opener: Opener, path: Path) -> None:
    """Other files stay, too."""
    for schema in (1, 2, 3, 4):
        make_old_log(path, schema)
        await read_old_data(opener)
        for name in ("hub.db", "hub.db-wal", "hub.db-shm"):
            path.with_name(name).unlink(missing_ok=True)
        path.with_name("hub.db.schema.bak").touch()
    copies = sorted(name for name in os.listdir(path.parent) if name.endswith("bak"))
    assert copies == ["hub.db.schema.bak", "hub.db.schema3.bak", "hub.db.schema4.bak"]


async def test_without_a_copy_there_is_no_update(opener: Opener, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start ends with one line that says what to do, and the log is as it was."""
    make_old_log(path, 9)
    part = path.with_name("hub.db.schema9.bak.part")
    (part / "x").mkdir(parents=True)
    with pytest.raises(LogUnusable, match="was not updated.*hub.db.schema9.bak.*then start the hub again"):
        await opener()
    shutil.rmtree(part)
    usage = shutil.disk_usage(path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=16 * MiB))
    with pytest.raises(LogUnusable, match="needs 17 MiB.*16 MiB free: free space"):
        await opener()
    assert not [name for name in os.listdir(path.parent) if "bak" in name]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (9,)
    monkeypatch.undo()
    assert await read_old_data(opener) == OLD_DATA


async def test_a_full_disk_prevents_the_update(path: Path) -> None:
    """No part of the copy is left."""
    make_old_log(path, 9)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE messages SET content = hex(randomblob(200000))")
        db.commit()
    start = """
import asyncio, resource, sys
from hub.limits import Limits
from hub.seams import Seams
from hub.storage.log import LogUnusable
from hub.storage.open_log import open_log
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    asyncio.run(open_log(f"sqlite:///{sys.argv[1]}", Limits(), Seams()).start(print))
except LogUnusable as error:
    print(error)
"""
    output = run_script(start, path)
    assert "was not updated" in output and output.count("\n") == 1, output
    assert not [name for name in os.listdir(path.parent) if "bak" in name]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (9,)


def run_script(script: str, *arguments: object) -> str:
    child = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


# Opens a copy of the log again and again. Each time a fork of this process is killed at a later statement of the start;
# then another fork starts the log in the same folder. Prints what each of them reads.
KILL_AT_EACH_STATEMENT = """
import asyncio, json, os, shutil, signal, sqlite3, sys
from pathlib import Path
from hub.ids import Key
from hub.limits import Limits, MiB
from hub.observe.logging import log_to_stderr
from hub.seams import Seams
from hub.storage.open_log import open_log
from hub.storage.sqlite import database

log_to_stderr()
connect = database.connect_database
source, folder, queries = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])

def connect_until(last):
    count = 0
    def trace(statement):
        nonlocal count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
    def open_traced(path):
        db = connect(path)
        db.set_trace_callback(trace)
        return db
    return open_traced

async def read(path):
    log = open_log(f"sqlite:///{path}", Limits(), Seams())
    await log.start(lambda *_: None)
    head = await log.sessions.find(Key("s"))
    messages = await log.sessions.read_last_messages(Key("s"), 9, MiB)
    events = await log.events.read(Key("s"), 0, 99)
    await log.close()
    return [[m.content for m in messages], "".join(e.body.content for e in events), head.epoch]

def run_fork(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]

async def start_only(path):
    log = open_log(f"sqlite:///{path}", Limits(), Seams())
    await log.start(lambda *_: None)
    os._exit(0)

number = 0
is_killed = True
while is_killed:
    number += 1
    place = folder / str(number)
    shutil.copytree(source, place)
    def start():
        database.connect_database = connect_until(number)
        asyncio.run(start_only(place / "hub.db"))
    status = run_fork(start)
    is_killed = os.WIFSIGNALED(status)
    assert is_killed or status == 0, status
    def read_again():
        data = asyncio.run(read(place / "hub.db"))
        db = sqlite3.connect(place / "hub.db")
        rows = {query: list(*db.execute(query)) for query in queries}
        copies = sorted(name for name in os.listdir(place) if "bak" in name)
        print(json.dumps([is_killed, data, rows, copies]), flush=True)
    assert run_fork(read_again) == 0
    shutil.rmtree(place)
"""


# 10 is the schema of sign-in, before backups and the retention of messages.
@pytest.mark.parametrize("schema", [1, 10])
def test_a_start_that_is_killed_at_any_statement_of_an_update_is_repeated(tmp_path: Path, schema: int) -> None:
    """Each time, nothing is lost, and the copy of the old schema is complete."""
    make_old_log(tmp_path / "old" / "hub.db", schema)
    queries = json.dumps([*old_rows(schema)])
    output = run_script(KILL_AT_EACH_STATEMENT, tmp_path / "old", tmp_path, queries)
    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) > len(";".join(MIGRATIONS[schema:]).split(";"))
    assert [is_killed for is_killed, *_ in lines] == [True] * (len(lines) - 1) + [False]
    for _, data, tables, copies in lines:
        assert (OldData(*data), tables) == (OLD_DATA, old_rows(schema))
        assert copies == [f"hub.db.schema{schema}.bak"]
