"""The properties of the SQLite log only: one file, one process, shared commits, and plain SQL."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from hub.access.records import Grant
from hub.errors import LogDamaged, StorageUnavailable
from hub.ids import Key
from hub.limits import Limits, MiB
from hub.messages import Author, Chunk, Event, HistoryMessage, RunStarted, UserMessage
from hub.seams import Seams
from hub.storage.log import LogUnusable
from hub.storage.records import Append, FileRecord, Head, RunRecord
from hub.storage.sqlite import database, pacing
from hub.storage.sqlite import writer as sqlite_writer
from hub.storage.sqlite.database import connect_database
from hub.storage.sqlite.event_reading import STRIPS_BEFORE
from hub.storage.sqlite.event_rows import event_to_commit
from hub.storage.sqlite.log import SqliteLog
from hub.storage.sqlite.migrations import MIGRATIONS
from hub.storage.sqlite.pacing import CommitPacer
from hub.storage.sqlite.sessions import GRANTED_SESSION_LISTS, SESSION_LISTS
from hub.storage.sqlite.threads import READER_THREADS
from hub.storage.sqlite.wal import PREALLOCATED_BYTES, WalPreallocator

Listener = Callable[[str, Sequence[Event]], None]
Opener = Callable[..., Awaitable[SqliteLog]]


def queued(key: Key) -> RunRecord:
    """Return the record of a run that waits."""
    return RunRecord("r", key, "main", "queued", "m", "u", "h", Author("ann", "Ann"), 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "hub.db"


@pytest.fixture
def stays_loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events go from `loose` to `strips` only in expire() and close(), and not after a pause of the test."""
    monkeypatch.setattr(sqlite_writer, "LOOSE_SECONDS", 1000.0)


@pytest.fixture
async def opener(path: Path) -> AsyncIterator[Opener]:
    opened: list[SqliteLog] = []

    async def start(listener: Listener = lambda session, events: None) -> SqliteLog:
        log = SqliteLog(f"sqlite:///{path}", Limits(), Seams())
        opened.append(log)
        await log.start(listener)
        return log

    yield start
    for log in opened:
        await log.close()


def text(content: str, offset: int = 0) -> Event:
    return Event("main", "r", Chunk("m", content, offset))


async def put(log: SqliteLog, append: Append) -> int:
    answer: asyncio.Future[int | Exception] = asyncio.get_running_loop().create_future()
    log.events.append(append, answer.set_result)
    async with asyncio.timeout(30):
        result = await answer
    if isinstance(result, Exception):
        raise result
    return result


async def content(log: SqliteLog, session: str) -> str:
    events: list[Event] = []
    while page := await log.events.read(Key(session), len(events), 10**9):
        events += page
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return "".join(event.body.content for event in events if isinstance(event.body, Chunk))


async def test_events_are_on_disk_before_they_are_announced(opener: Opener, path: Path) -> None:
    """When the listener is called, another connection to the file finds the events."""
    found = []

    def listener(session: str, events: Sequence[Event]) -> None:
        row = (session, events[0].seq)
        found.append(other.execute("SELECT content FROM events WHERE (session, seq) = (?, ?)", row).fetchone())

    log = await opener(listener)
    await log.sessions.make(Key("s"))
    other = sqlite3.connect(path)
    for i in range(20):
        await put(log, Append(Key("s"), [text(f"word {i}")]))
    other.close()
    assert found == [(f"word {i}",) for i in range(20)]


async def test_durability_is_full(opener: Opener, path: Path) -> None:
    """The file is in WAL mode, and each commit is synced. A reader's connection cannot write."""
    log = await opener()
    await log.sessions.make(Key("s"))
    assert log._threads.writer.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert log._threads.writer.db.execute("PRAGMA synchronous").fetchone() == (2,)
    await log.sessions.find(Key("s"))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        next(iter(log._threads._event_readers._connections)).execute("DELETE FROM sessions")


async def test_sessions_share_commits(opener: Opener) -> None:
    """Concurrent appends of many sessions need few transactions, and reading needs none."""
    log = await opener()
    sessions = [f"s{i}" for i in range(300)]
    await asyncio.gather(*map(log.sessions.make, map(Key, sessions)))
    before = log.commit_totals.commits
    assert before < 100
    await asyncio.gather(*(put(log, Append(Key(session), [text("x")])) for session in sessions))
    assert 0 < log.commit_totals.commits - before < 100
    before = log.commit_totals.commits
    await asyncio.gather(*map(log.sessions.make, map(Key, sessions)))
    assert log.commit_totals.commits == before


class Clock:
    """The clock of the writer. A sleep moves it on at once."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.mark.parametrize(("sessions", "most"), [(1, 1000), (1000, 220)])
def test_commits_of_several_sessions_are_spaced_apart(
    monkeypatch: pytest.MonkeyPatch, sessions: int, most: int
) -> None:
    """1,000 appends come a millisecond apart: after a first burst there are 200 commits a second.

    The commits of a single session are not delayed.
    """
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    pacer = CommitPacer()
    commits = 0
    for number in range(1000):
        if number and clock.now < 100.0 + number / 1000:
            clock.now = 100.0 + number / 1000
        if clock.now <= 100.0 + number / 1000:  # the commit before has ended: this append begins the next one
            pacer.wait(Key(f"s{number % sessions}"), has_more=False)
            commits += 1
    assert 0.9 * most <= commits <= most
    assert bool(clock.slept) is (sessions > 1)


async def test_expiry_does_not_block_the_writer(opener: Opener) -> None:
    """Many events are dropped in several transactions; between them others can write."""
    log = await opener()
    await log.sessions.make(Key("s"))
    for _ in range(3):
        await put(log, Append(Key("s"), [text("x") for _ in range(3000)]))
    before = log.commit_totals.commits
    assert await log.events.expire(2**60, 10**9) == {"s": 9000}
    assert log.commit_totals.commits - before == 5


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 511, 512, 513, 1030])
async def test_any_number_of_rows_is_written_once(opener: Opener, rows: int) -> None:
    """Statements insert rounded numbers of rows; the padding leaves no row."""
    log = await opener()
    await log.sessions.make(Key("s"))
    assert await put(log, Append(Key("s"), [text(f"{i},") for i in range(rows)])) == 1
    assert await put(log, Append(Key("s"), [text("end")])) == rows + 1
    assert await content(log, "s") == "".join(f"{i}," for i in range(rows)) + "end"


async def test_a_commit_for_many_sessions_fills_few_pages(stays_loose: None, opener: Opener, path: Path) -> None:
    """The events of 200 sessions in one commit are in one row: the file grows by a few pages."""
    log = await opener()
    sessions = [f"s{number}" for number in range(200)]
    await asyncio.gather(*map(log.sessions.make, map(Key, sessions)))
    await asyncio.gather(*(put(log, Append(Key(session), [text("x" * 4000)])) for session in sessions))
    await log.events.expire(0, 10**9)  # drops no event, and moves all to strips: each session has its own page
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint")  # the next writes are counted from 0
        db.execute("BEGIN IMMEDIATE")  # the writer waits with its first, and the others come meanwhile
        appends = [asyncio.create_task(put(log, Append(Key(session), [text("x" * 50)]))) for session in sessions]
        await asyncio.sleep(0)
        db.execute("ROLLBACK")
        await asyncio.gather(*appends)
        _, pages, _ = db.execute("PRAGMA wal_checkpoint").fetchone()
    assert 0 < pages < 20


async def test_a_commit_rarely_grows_the_wal(opener: Opener, path: Path) -> None:
    """The WAL is preallocated: an fsync after the file grew costs twice as much."""
    log, sizes = await opener(), set()
    await log.sessions.make(Key("s"))
    for _ in range(200):
        await put(log, Append(Key("s"), [text("x")]))
        sizes.add(path.with_name(f"{path.name}-wal").stat().st_size)
    assert max(sizes) > 200 * 4096 and len(sizes) < 20


async def test_the_wal_is_preallocated_only_without_other_writers(path: Path) -> None:
    """Preallocation does not wait for a lock, because commits wait for it."""
    path.parent.mkdir()
    wal = path.with_name(f"{path.name}-wal")
    with closing(connect_database(path)) as other, closing(connect_database(path)) as db:
        for statement in ("PRAGMA journal_mode = WAL", "CREATE TABLE notes (text TEXT)", "BEGIN IMMEDIATE"):
            other.execute(statement)
        db.execute("PRAGMA busy_timeout = 60000")
        size = wal.stat().st_size
        async with asyncio.timeout(20):
            await asyncio.to_thread(WalPreallocator(path).extend, db)
        assert wal.stat().st_size == size
        other.execute("ROLLBACK")
        WalPreallocator(path).extend(db)
        assert wal.stat().st_size == size + PREALLOCATED_BYTES
        assert db.execute("SELECT count(*) FROM notes").fetchone() == (0,)


async def test_a_failed_preallocation_loses_no_commit(opener: Opener, path: Path) -> None:
    """If SQLite does not end the transaction of the preallocation, the next commit must not become part of it."""
    log = await opener()
    refused: list[Any] = []

    def allowed(action: int, what: str | None, *_: object) -> int:
        if what == "ROLLBACK" and not refused:
            refused.append(action)
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    await log.sessions.make(Key("s"))
    log._threads.writer.db.set_authorizer(allowed)
    said = 0
    async with asyncio.timeout(30):
        while not refused:
            said = await put(log, Append(Key("s"), [text("x" * 3000)]))
    for _ in range(2):
        assert await put(log, Append(Key("s"), [text("y")])) == said + 1
        said += 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT max(seq) FROM events").fetchone() == (said,)


async def test_preallocation_does_not_overwrite_another_process(opener: Opener, path: Path) -> None:
    """The file may be open in a tool: its commits between two commits of the hub stay."""
    log = await opener()
    await log.sessions.make(Key("s"))

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as db:
            db.execute("CREATE TABLE notes (n INTEGER PRIMARY KEY, text TEXT)")
            for number in range(300):
                db.execute("INSERT INTO notes VALUES (?, ?)", (number, "x" * 3000))

    other = asyncio.create_task(asyncio.to_thread(write))
    said = 0
    while not other.done() or said < 300:
        await put(log, Append(Key("s"), [text("x" * 3000)]))
        said += 1
    await other
    assert len(await content(log, "s")) == said * 3000
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*), sum(length(text)) FROM notes").fetchone() == (300, 300 * 3000)


@pytest.mark.parametrize("placed", [0, 1, 700, 1000])
async def test_loose_events_are_found(opener: Opener, placed: int) -> None:
    """Pages, heads and messages are the same wherever `strips` end and `loose` begins."""
    log = await opener()
    await asyncio.gather(log.sessions.make(Key("s")), log.sessions.make(Key("t")))
    entries = [Event("main", "r", RunStarted("m")), *(text(f"{number},") for number in range(999))]
    await put(log, Append(Key("s"), entries[:placed] or entries[:1]))
    if placed:
        await log.events.expire(0, 2**60)  # moves all events to strips, and drops none
    await put(log, Append(Key("t"), [text("other")]))
    if rest := entries[max(placed, 1) :]:
        await put(log, Append(Key("s"), rest))
    said = "".join(f"{number}," for number in range(999))
    head = await log.sessions.find(Key("s"))
    assert await content(log, "s") == said and head is not None and head.seq == 1000
    assert [event.seq for event in await log.events.read(Key("s"), 990, 995)] == [991, 992, 993, 994, 995]
    assert await log.events.find_message_before(Key("s"), "r", 1001) == ("m", said)
    await log.close()
    log = await opener()
    assert await content(log, "s") == said and (await log.sessions.make(Key("s")))[0].seq == 1000


async def test_a_page_of_loose_events_is_limited_in_bytes(opener: Opener) -> None:
    """Events in `loose` are read by pages, too."""
    log = await opener()
    await log.sessions.make(Key("s"))
    await put(log, Append(Key("s"), [text("x" * 30_000) for _ in range(30)]))
    first = await log.events.read(Key("s"), 0, 30)
    assert [event.seq for event in first] == list(range(1, 10))  # the event that passes 256 KiB is the last one
    assert len(await log.events.read(Key("s"), 9, 30)) == 9


async def test_seqs_go_on_after_all_events_were_dropped(opener: Opener) -> None:
    """Later events are found, in `loose` and in `strips`."""
    log = await opener()
    await log.sessions.make(Key("s"))
    await put(log, Append(Key("s"), [text("old") for _ in range(50)]))
    assert await log.events.expire(2**60, 2**60) == {"s": 50}
    await put(log, Append(Key("s"), [text("new")]))
    assert [event.seq for event in await log.events.read(Key("s"), 50, 99)] == [51]
    assert await log.events.expire(0, 2**60) == {}
    assert [event.seq for event in await log.events.read(Key("s"), 50, 99)] == [51]


async def test_a_file_of_the_first_schema_is_migrated(opener: Opener, path: Path) -> None:
    """All data of an earlier release is there, and its sessions go on."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1; INSERT INTO sessions VALUES ('s', 'e', 2, 0)")
    row = ("stream", "main", "r", "m", 0)
    db.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [("s", seq, seq, *row, f"{seq},") for seq in range(3, 9)],
    )
    db.commit()
    db.close()
    log = await opener()
    assert await log.sessions.find(Key("s")) == Head(Key("s"), "e", 8, 2)
    assert await put(log, Append(Key("s"), [text("9,")])) == 9
    events = await log.events.read(Key("s"), 0, 99)
    events = [*events, *await log.events.read(Key("s"), events[-1].seq, 99)]
    assert [(event.seq, cast(Chunk, event.body).content) for event in events] == [
        (seq, f"{seq},") for seq in range(3, 10)
    ]


async def test_single_events_are_migrated_to_strips(opener: Opener, path: Path) -> None:
    """With and without an entry in the index, of a deleted session, and with any text."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(f"{''.join(MIGRATIONS[:5])}; PRAGMA user_version = 5")
    sessions = [("s", "new", 0), ("t", "e", 2), (" 3", "old", 0)]
    db.executemany("INSERT INTO sessions (id, epoch, floor, created) VALUES (?, ?, ?, 0)", sessions)
    words = ["a\0b", '\u2028 "quoted" \\', "你好 🎉", ""]
    events: list[tuple[Any, ...]]
    events = [("s", seq, seq, "stream", "main", "r", "m", seq, words[seq % 4]) for seq in range(1, 700)]
    events[4:4] = [("t", 3, 5, "run_started", "main", "r", "m", None, '{"messageId":"m","attempt":2}')]
    events[9:9] = [("s", 1, 9, "stream", "main", "r", "m", 0, "of the one before")]
    db.executemany(
        "INSERT INTO events (session, seq, ts, type, agent, run, message, offset, content) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        events,
    )
    db.execute("INSERT INTO places VALUES (3, 1, 10)")
    db.execute(
        "INSERT INTO places SELECT s.n, seq, e.n FROM events e JOIN sessions s ON s.id = session "
        "WHERE e.n < 300 AND e.n <> 10"
    )
    db.execute("UPDATE placed SET upto = 299")
    db.commit()
    db.close()
    log = await opener()
    assert await log.sessions.find(Key("s")) == Head(Key("s"), "new", 699, 0) and await log.sessions.find(
        Key("t")
    ) == Head(Key("t"), "e", 3, 2)
    assert await content(log, "s") == "".join(words[seq % 4] for seq in range(1, 700))
    (event,) = await log.events.read(Key("t"), 0, 9)
    assert event == Event("main", "r", RunStarted("m", 2), "t", "e", 3, 5)
    assert await put(log, Append(Key("s"), [text("x")])) == 700
    assert (await log.events.read(Key("s"), 699, 700))[0].ts > 699
    assert await log.events.expire(100, 2**60) == {"s": 99, "t": 3}
    assert [event.seq for event in await log.events.read(Key("s"), 0, 101)] == [100, 101]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM sessions").fetchone() == (2,)


async def test_a_strip_keeps_to_its_limits(opener: Opener, path: Path) -> None:
    """It ends by its events or by its bytes. A page can begin in the middle of a strip."""
    log = await opener()
    await asyncio.gather(log.sessions.make(Key("s")), log.sessions.make(Key("t")))
    await put(log, Append(Key("s"), [text(f"{number},", number) for number in range(1000)]))
    await put(log, Append(Key("t"), [text("x" * 30_000) for _ in range(7)]))
    await log.events.expire(0, 2**60)
    with closing(sqlite3.connect(path)) as db:
        strips = "SELECT t.seq, upto FROM strips t JOIN sessions s ON s.n = session WHERE id = ? ORDER BY upto"
        assert db.execute(strips, ("s",)).fetchall() == [(1, 256), (257, 512), (513, 768), (769, 1000)]
        assert db.execute(strips, ("t",)).fetchall() == [(1, 3), (4, 6), (7, 7)]
        assert db.execute("SELECT count(*) FROM loose").fetchone() == (0,)
    for after, upto, rows in ((0, 1, 9), (255, 258, 9), (256, 10**9, 2), (999, 10**9, 5), (300, 900, 400)):
        page = await log.events.read(Key("s"), after, upto, rows)
        assert [event.seq for event in page] == list(range(after + 1, min(after + rows, upto, 1000) + 1))


async def test_a_large_commit_goes_to_strips_at_once(opener: Opener, path: Path) -> None:
    """It is written once. Earlier events in `loose` come before it."""
    log = await opener()
    await asyncio.gather(log.sessions.make(Key("s")), log.sessions.make(Key("t")))
    said = ["a", "b" * 40_000, "c", "d" * 1_000_000, "e"]
    for words in said:
        await asyncio.gather(put(log, Append(Key("s"), [text(words)])), put(log, Append(Key("t"), [text("t")])))
    assert await content(log, "s") == "".join(said) and await content(log, "t") == "ttttt"
    with closing(sqlite3.connect(path)) as db:
        (loose,) = db.execute("SELECT coalesce(sum(length(events)), 0) FROM loose").fetchone()
        assert loose < 1000  # 0 if the test is so slow that the writer has moved the last events, too
        assert db.execute("SELECT sum(length(events)) FROM strips").fetchone()[0] > 1_040_000
    await log.close()
    log = await opener()
    assert await content(log, "s") == "".join(said)


async def test_loose_events_are_limited(opener: Opener, path: Path) -> None:
    """Fewer events may be in `loose` if they are long, but not large enough for `strips`."""
    log = await opener()
    await log.sessions.make(Key("s"))
    with closing(sqlite3.connect(path)) as db:
        for _ in range(200):
            await put(log, Append(Key("s"), [text("x" * 15_000)]))
            assert db.execute("SELECT coalesce(sum(size), 0) FROM loose").fetchone()[0] < 1_100_000
    assert await content(log, "s") == "x" * 3_000_000


async def test_records_alone_write_no_events(opener: Opener, path: Path) -> None:
    """Not even if all events before them are in strips."""
    log = await opener()
    await asyncio.gather(log.sessions.make(Key("s")), log.sessions.make(Key("t")))
    await put(log, Append(Key("s"), [text("x")]))
    await log.events.expire(0, 2**60)
    for session in "st":
        await put(log, Append(Key(session), [], saved_runs=[queued(Key(session))]))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM loose").fetchone() == (0,)
    assert await put(log, Append(Key("t"), [text("y")], ended_runs=["r"])) == 1
    assert await put(log, Append(Key("s"), [text("z")], ended_runs=["r"])) == 2
    assert await log.events.expire(2**60, 2**60) == {"s": 2, "t": 1}


@pytest.mark.parametrize(("back", "stamp"), [(60_000, 100_000), (60_001, 39_999)])
async def test_a_clock_that_is_set_back(path: Path, back: int, stamp: int) -> None:
    """After a step back of up to a minute the log's time waits; after a larger step it follows the clock."""
    now = 100_000
    log = SqliteLog(f"sqlite:///{path}", Limits(), Seams(now=lambda: now))
    await log.start(lambda session, events: None)
    try:
        await put(log, Append(Key("s"), [text("a")]))
        now -= back
        await put(log, Append(Key("s"), [text("b")]))
        assert [event.ts for event in await log.events.read(Key("s"), 0, 9)] == [100_000, stamp]
    finally:
        await log.close()


async def test_events_expire_before_the_first_young_one(
    opener: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the clock was set back, and a strip has old and young events. Dropped events are not read any more."""
    log = await opener()
    await log.sessions.make(Key("s"))
    await put(
        log, Append(Key("s"), [Event("main", "r", RunStarted("m")), *(text(f"{number},") for number in range(9))])
    )
    await log.close()
    with closing(sqlite3.connect(path)) as db, db:
        (events,) = db.execute("SELECT events FROM strips").fetchone()
        lines = json.loads(events)
        for line, ts in zip(lines, (1, 2, 3, 4, 10_000, 6, 7, 8, 9, 10), strict=True):
            line[1] = ts
        db.execute("UPDATE strips SET ts = 10000, events = ?", (json.dumps(lines),))
    log = await opener()
    assert await log.events.expire(5000, 2**60) == {"s": 4}
    assert [event.seq for event in await log.events.read(Key("s"), 0, 99)] == [5, 6, 7, 8, 9, 10]
    assert await log.events.find_message_before(Key("s"), "r", 11) == ("m", "3,4,5,6,7,8,")


def test_reading_backwards_uses_the_index(path: Path) -> None:
    """The number of later strips does not matter."""
    path.parent.mkdir()
    with closing(connect_database(path)) as db:
        db.create_function("as_loose", -1, event_to_commit)
        db.executescript("".join(MIGRATIONS))
        plan = db.execute(f"EXPLAIN QUERY PLAN {STRIPS_BEFORE}", {"session": "s", "seq": 9}).fetchall()
    assert any("strips_of_sessions (session=? AND upto<?)" in line[-1] for line in plan), plan


@pytest.mark.parametrize("placed", [False, True])
async def test_events_are_plain_sql(opener: Opener, path: Path, placed: bool) -> None:
    """A view shows single events from both tables, without those that were dropped."""
    log = await opener()
    await asyncio.gather(log.sessions.make(Key("s")), log.sessions.make(Key("t")))
    await put(
        log,
        Append(Key("s"), [text("old"), text("x" * 9)], saved_runs=[queued(Key("s"))]),
    )
    if placed:
        assert await log.events.expire(2**60, 0) == {"s": 1}
    await put(log, Append(Key("t"), [Event("main", "r", RunStarted("m"))]))
    with closing(sqlite3.connect(path)) as db:
        shown = db.execute("SELECT session, seq, type, message, content FROM events ORDER BY session, seq").fetchall()
    kept = [("s", 1, "stream", "m", "old"), ("s", 2, "stream", "m", "x" * 9)]
    assert shown == [*kept[placed:], ("t", 1, "run_started", "m", '{"attempt":1,"messageId":"m","parentRunId":null}')]


@pytest.mark.parametrize(
    ("where", "what", "by"),
    [
        ("loose", '"x"', '""x"'),
        ("loose", '"x"', b"\xff"),
        ("strips", '"x"', '""x"'),
        ("strips", '"x"', b"\xff"),
        ("strips", '"stream"', '"strm"'),
        ("strips", '"stream"', "7"),
    ],
)
async def test_damage_in_the_text_of_events_is_named(
    stays_loose: None, opener: Opener, path: Path, where: str, what: str, by: str | bytes
) -> None:
    """It affects only the sessions with events in that row, also after a restart and after a failed commit."""
    log = await opener()
    await asyncio.gather(*map(log.sessions.make, map(Key, "stuv")))
    await put(log, Append(Key("s"), [text("x")]))
    if where == "strips":
        await log.events.expire(0, 2**60)
    with closing(sqlite3.connect(path, timeout=20)) as db, db:
        damage = f"UPDATE {where} SET events = CAST(replace(CAST(events AS BLOB), ?, ?) AS TEXT)"
        assert db.execute(damage, (what, by)).rowcount == 1
    said = 0
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="cannot be read now.*(malformed|unknown type)"):
            await log.events.read(Key("s"), 0, 9)
        if by != '"strm"':  # which this check skips
            with pytest.raises(StorageUnavailable, match="cannot be read now.*malformed"):
                await asyncio.wait_for(log.events.find_message_before(Key("s"), "r", 2), 20)
        for words in ("y", "z" * 40_000):
            said += 1
            for session in "tuv":
                assert await put(log, Append(Key(session), [text(words)])) == said
            await log.events.expire(0, 2**60)
        with pytest.raises(StorageUnavailable, match="cannot store this"):
            await put(log, Append(Key("t"), [text("y" + chr(0xD800))]))  # then all heads are read again
        assert [head.seq for head, _ in await asyncio.gather(*map(log.sessions.make, map(Key, "tuv")))] == [said] * 3
        await log.close()
        log = await opener()
    if where == "loose":
        with pytest.raises(StorageUnavailable, match="latest events of session s are damaged"):
            await log.sessions.make(Key("s"))
    assert await content(log, "t") == ("y" + "z" * 40_000) * 2


@pytest.mark.parametrize(
    ("old", "new"),
    [('"t",3,', '"t",3x'), ("t1", "\xff"), ('"t1"]]]', '"t1"'), ('"stream"', "7}"), ('["t"', '[t"')],
)
async def test_a_damaged_part_is_set_aside(opener: Opener, path: Path, old: str, new: str) -> None:
    """Other sessions of its row stay complete, also after a restart; `loose` is moved, and the view can be read."""
    log = await opener()
    for session in ("s", "t", "u"):
        await put(log, Append(Key(session), [text(f"{session}0"), text(f"{session}0")]))
    await log.events.expire(0, 2**60)
    row = "[" + ",".join(
        json.dumps([session, 3, 0, [[3, 0, "stream", "main", "r", "m", 1, f"{session}1"]]], separators=(",", ":"))
        for session in ("s", "t", "u")
    )
    damaged = row.encode() + b"]"
    begin = damaged.index(b'["t"')
    damaged = damaged[:begin] + damaged[begin:].replace(old.encode(), new.encode("latin-1"), 1)
    await log.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO loose (size, events) VALUES (9, CAST(? AS TEXT))", (damaged,))
    for word in ("2", "3"):
        log = await opener()
        for session in ("s", "u"):
            await put(log, Append(Key(session), [text(word)]))
            assert (await content(log, session)).startswith(f"{session}0{session}0{session}1")
        if old != '["t"':  # else whose it is cannot be read
            assert [event.seq for event in await log.events.read(Key("t"), 0, 2)] == [1, 2]
            with pytest.raises(LogDamaged):
                await log.events.read(Key("t"), 2, 3)
            with pytest.raises(StorageUnavailable):
                await put(log, Append(Key("t"), [text("x")]))
            with pytest.raises(LogDamaged):
                await log.sessions.find(Key("t"))
        await log.events.expire(0, 2**60)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM loose").fetchone() == (0,)
            assert db.execute("SELECT count(*) FROM damaged").fetchone()[0] > 0
            assert db.execute("SELECT count(*) FROM events WHERE session = 'u'").fetchone() == (2 + int(word),)
        await log.close()
    log = await opener()
    await log.sessions.delete(Key("t"))
    assert await log.sessions.find(Key("t")) is None and await put(log, Append(Key("t"), [text("new")])) == 1
    assert await content(log, "t") == "new"


async def test_a_session_goes_on_after_a_damaged_part(stays_loose: None, opener: Opener, path: Path) -> None:
    """If its head is known: a reader gets all events before the damage, or all events after it."""
    log = await opener()
    await put(log, Append(Key("s"), [text("a"), text("b")]))
    await put(log, Append(Key("s"), [text("c")]))
    with closing(sqlite3.connect(path, timeout=20)) as db, db:
        damage = "UPDATE loose SET events = replace(events, ?, ?)"
        assert db.execute(damage, ('"c"', '"c')).rowcount
    assert await put(log, Append(Key("s"), [text("d"), Event("main", "r", RunStarted("m2"))])) == 4
    await log.events.expire(0, 2**60)
    for _ in range(2):
        assert [event.seq for event in await log.events.read(Key("s"), 0, 5)] == [1, 2]
        with pytest.raises(LogDamaged, match="the events 3 to 3 of session s are missing"):
            await log.events.read(Key("s"), 2, 5)
        assert [event.seq for event in await log.events.read(Key("s"), 3, 5)] == [4, 5]
        with pytest.raises(LogDamaged, match="the events 3 to 3 of session s are missing"):  # not a part of the text
            await log.events.find_message_before(Key("s"), "r", 5)
        head = await log.sessions.find(Key("s"))
        assert head is not None and head.seq == 5
        await log.close()
        log = await opener()


async def test_a_deleted_session_is_purged_in_several_commits(opener: Opener, path: Path) -> None:
    """One commit deletes it. Its events are dropped in several, between which others write; then no row is left."""
    log = await opener()
    await log.sessions.make(Key("s"))
    for _ in range(3):
        await put(log, Append(Key("s"), [text("x") for _ in range(3000)]))
    before = log.commit_totals.commits
    await log.sessions.delete(Key("s"))
    assert log.commit_totals.commits - before == 1 and await log.sessions.find(Key("s")) is None
    await log.sessions.make(Key("s"))  # whose number in `strips` must not be the old one's
    await put(log, Append(Key("s"), [text("new")]))
    before = log.commit_totals.commits
    await log.events.purge()
    assert log.commit_totals.commits - before == 5
    assert await content(log, "s") == "new"
    await log.sessions.delete(Key("s"))
    await log.events.purge()
    await log.close()
    with sqlite3.connect(path) as db:
        left = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    db.close()
    assert left == dict.fromkeys(TABLES, 0)


async def test_deleted_data_is_not_in_the_file(opener: Opener, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if SQLite was built to leave the bytes in free pages."""

    def connect_as_built(path: Path) -> sqlite3.Connection:
        db = connect_database(path)
        db.execute("PRAGMA secure_delete = OFF")
        return db

    monkeypatch.setattr(database, "connect_database", connect_as_built)
    log = await opener()
    message = HistoryMessage(
        messageId="m", role="assistant", content="secret" * 1000, agentId="main", runId="r", author=None
    )
    for session in ("s", "t"):
        await put(log, Append(Key(session), [text("secret" * 1000)], [(0, message)]))
    for session in ("s", "t"):
        await log.sessions.delete(Key(session))
    await log.events.purge()
    await log.close()
    assert path.stat().st_size > 0 and b"secret" not in path.read_bytes()


async def test_retention_purges_a_session_deleted_before_a_kill(opener: Opener, path: Path) -> None:
    """The hub needs no other record of it."""
    log = await opener()
    await log.sessions.make(Key("s"))
    await put(log, Append(Key("s"), [text("secret") for _ in range(3000)]))
    await log.sessions.delete(Key("s"))
    await log.close()
    log = await opener()
    assert await log.events.expire(0, 2**60) == {}
    await log.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (0,)
    db.close()


TABLES = ("sessions", "events", "loose", "strips", "messages", "runs", "chats")


async def test_data_of_an_earlier_release_is_read(opener: Opener, path: Path) -> None:
    """An answer belongs to the last message before it; a run has no parts and no metadata."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(f"{''.join(MIGRATIONS[:2])}; PRAGMA user_version = 2")
    db.execute("INSERT INTO sessions (id, epoch, floor, created) VALUES ('s', 'e', 0, 0)")
    said = [("u1", 1, "user"), ("u2", 2, "user"), ("a1", 5, "assistant"), ("a2", 5, "assistant"), ("u3", 6, "user")]
    db.executemany(
        "INSERT INTO messages (session, id, seq, ts, role, content) VALUES ('s', ?, ?, 0, ?, 'x')",
        [*said, ("a0", 0, "assistant")],
    )
    old: dict[str, Any] = {"runId": "r", "sessionId": "s", "agentId": "main", "state": "queued", "messageId": "m"}
    old |= {"userMessageId": "u3", "message": "x", "author": {"id": "ann", "name": "Ann"}, "after": 0}
    db.execute("INSERT INTO runs (session, id, after, record) VALUES ('s', 'r', 0, ?)", (json.dumps(old),))
    db.commit()
    db.close()
    log = await opener()
    messages = await log.sessions.read_last_messages(Key("s"), 9, MiB)
    assert {(m.stopReason, m.error) for m in messages} == {(None, None)}  # unknown in that release
    answers = {m.messageId: m.userMessageId for m in messages}
    assert answers == {"a0": None, "u1": None, "u2": None, "a1": "u2", "a2": "u2", "u3": None}
    assert await log.runs.list_unfinished_runs() == [
        RunRecord("r", Key("s"), "main", "queued", "m", "u3", "x", Author("ann", "Ann"), 0, parts=None, metadata=None)
    ]


async def test_a_file_of_schema_9_gets_the_tables_of_access(opener: Opener, path: Path) -> None:
    """Its sessions stay, and have no grants. A start that is killed in the middle of the migration is repeated."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.create_function("as_loose", -1, event_to_commit)
        db.executescript(f"{''.join(MIGRATIONS[:9])}; PRAGMA user_version = 9")
        db.execute("INSERT INTO sessions (id, epoch, floor, created) VALUES ('s', 'e', 0, 0)")
        db.execute(
            """INSERT INTO loose (size, events) VALUES (9, '[["s",1,5,[[1,5,"stream","main","r","m",0,"x"]]]]')"""
        )
        db.commit()
        count = len(MIGRATIONS[9].split(";"))
    for statements in range(1, count):
        with closing(sqlite3.connect(path)) as db:  # closed in a transaction, as by a kill
            db.executescript(f"BEGIN IMMEDIATE; {';'.join(MIGRATIONS[9].split(';')[:statements])}")
    log = await opener()
    assert await log.sessions.find(Key("s")) == Head(Key("s"), "e", 1, 0) and await content(log, "s") == "x"
    assert await log.access.find_grants(Key("s")) == {}
    await log.access.save(Grant(Key("s"), "p_1", "owner"))
    await put(log, Append(Key("s"), [text("y")], owner="p_2"))
    assert await log.access.find_grants(Key("s")) == {"p_1": "owner"}


async def test_history_is_plain_sql(opener: Opener, path: Path) -> None:
    """A person with the sqlite3 shell can read the conversation."""
    log = await opener()
    await log.sessions.make(Key("s"))
    ann = Author("ann", "Ann")
    messages = [
        HistoryMessage(messageId="u", role="user", content="hi", agentId="main", runId=None, author=ann),
        HistoryMessage(messageId="m", role="assistant", content="hello", agentId="main", runId="r", author=None),
    ]
    await put(log, Append(Key("s"), [text("hello")], [(0, message) for message in messages]))
    await log.close()
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT role, author_name, agent, content FROM messages WHERE session = 's'").fetchall()
    db.close()
    assert rows == [("user", "Ann", "main", "hi"), ("assistant", None, "main", "hello")]


async def test_a_busy_loop_does_not_starve_the_writer(opener: Opener) -> None:
    """A loop that never rests, with iterations of 2 ms, still gets its commits.

    With Python's own switch interval one commit waited for 14 s on a loaded machine, so the test checks the interval.
    """
    sys.setswitchinterval(0.005)
    log = await opener()
    assert sys.getswitchinterval() < 0.001
    await log.sessions.make(Key("s"))
    loop, busy = asyncio.get_running_loop(), True

    def turn() -> None:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        if busy:
            loop.call_soon(turn)

    turn()
    try:
        for i in range(20):
            await put(log, Append(Key("s"), [text("x", i)]))
    finally:
        busy = False
    assert await content(log, "s") == "x" * 20


# --- one process ----------------------------------------------------------------------------------------------------


async def test_a_second_process_is_refused(opener: Opener, path: Path) -> None:
    """The error names the first process, and says what to do. After the first has ended, the second may start."""
    log = await opener()
    with pytest.raises(LogUnusable, match=rf"in use by another hub \(pid {os.getpid()}\): stop it, or .*--data"):
        await opener()
    await log.close()
    await opener()


async def test_a_child_does_not_inherit_the_lock(opener: Opener) -> None:
    """A child process that outlives the hub leaves the file unlocked, even if it inherits descriptors."""
    log = await opener()
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        await log.close()
        await opener()
    finally:
        child.kill()
        child.wait()


async def test_a_newer_schema_is_refused(opener: Opener, path: Path) -> None:
    """The file of a later release is not changed; the error says so."""
    await (await opener()).close()
    with sqlite3.connect(path) as db:
        (known,) = db.execute("PRAGMA user_version").fetchone()
        db.execute("PRAGMA user_version = 999")
    with pytest.raises(LogUnusable, match="newer Hubbub"):
        await opener()
    db.execute(f"PRAGMA user_version = {known}")
    db.close()
    await opener()


async def test_a_file_that_is_no_database_is_refused(opener: Opener, path: Path) -> None:
    """The error names the file, which is not changed."""
    path.parent.mkdir()
    path.write_bytes(b"this is not a database " * 500)
    with pytest.raises(LogUnusable, match="not a database.*restore a backup"):
        await opener()
    assert path.read_bytes() == b"this is not a database " * 500


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file with the name of the folder is one clear line."""
    (tmp_path / "data").write_text("in the way")
    log = SqliteLog(f"sqlite:///{tmp_path}/data/hub.db", Limits(), Seams())
    with pytest.raises(LogUnusable, match="cannot be made, because a file is in its place"):
        await log.start(lambda session, events: None)
    await log.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://hub.db", "sqlite:///:memory:"])
def test_a_url_needs_a_file(url: str) -> None:
    """Two slashes, an empty path and `:memory:` are refused; the error shows the right form."""
    with pytest.raises(LogUnusable, match="sqlite:///relative/hub.db"):
        SqliteLog(url, Limits(), Seams())


async def test_three_slashes_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in SQLAlchemy, three slashes begin in the current folder."""
    monkeypatch.chdir(tmp_path)
    log = SqliteLog("sqlite:///here/hub.db", Limits(), Seams())
    await log.start(lambda session, events: None)
    await log.close()
    assert (tmp_path / "here" / "hub.db").exists()


async def test_slow_lists_do_not_delay_events(opener: Opener) -> None:
    """Events have reader threads of their own: a page is read while all other readers are busy."""
    log = await opener()
    await log.sessions.make(Key("s"))
    await put(log, Append(Key("s"), [text("x")]))
    go, busy = threading.Event(), threading.Semaphore(0)

    def hold(db: sqlite3.Connection) -> None:
        busy.release()
        assert go.wait(30)

    lists = [asyncio.create_task(log._threads.read(hold)) for _ in range(READER_THREADS + 1)]
    try:
        for _ in range(READER_THREADS):
            await asyncio.to_thread(busy.acquire)
        async with asyncio.timeout(30):
            assert len(await log.events.read(Key("s"), 0, 1)) == 1
            assert await log.sessions.find(Key("s")) is not None
    finally:
        go.set()
        await asyncio.gather(*lists)


def many_sessions(path: Path, count: int) -> None:
    """Put so many sessions into a log of this schema, two messages in each, of the agents main and other in turn."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            """
            WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
            INSERT INTO sessions (id, epoch, floor, created) SELECT 's' || n, 'e', 0, n FROM number""",
            (count,),
        )
        for seq in (1, 2):
            db.execute(
                """
                INSERT INTO messages (session, id, seq, ts, role, agent, author_name, content)
                SELECT id, 'm' || ?1, ?1, n, 'assistant', iif(n % 2, 'main', 'other'), '', 'x' FROM sessions""",
                (seq,),
            )


def steps_and_plan(path: Path, statement: str, values: dict[str, Any]) -> tuple[int, str]:
    """Return how many steps of its machine SQLite takes for a statement, and its plan."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with closing(sqlite3.connect(path)) as db:
        plan = " / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values))
        db.set_progress_handler(count, 1)
        assert len(json.loads(db.execute(statement, values).fetchone()[0])) == 31
    return steps, plan


async def test_a_list_of_30_costs_the_same_at_100_000_sessions_as_at_1_000(tmp_path: Path) -> None:
    """It reads the rows of the page, and one more; at the beginning and in the middle of the list."""
    counted: list[list[int]] = []
    for count in (1_000, 100_000):
        path = tmp_path / f"{count}.db"
        log = SqliteLog(f"sqlite:///{path}", Limits(), Seams())
        await log.start(lambda session, events: None)
        await log.close()
        many_sessions(path, count)
        counted.append([])
        for order, ts in (("desc", 10**15), ("desc", count // 2), ("asc", 0), ("asc", count // 2)):
            values = {"prefix": "", "readers": '["*"]', "agent": None, "since": 0, "until": 10**15, "limit": 31}
            steps, plan = steps_and_plan(path, SESSION_LISTS[order], values | {"ts": ts, "id": "s"})
            counted[-1].append(steps)
            assert "SEARCH s USING INDEX sessions_by_time" in plan and "B-TREE" not in plan, plan
            assert "SCAN s " not in plan and not plan.endswith("SCAN s"), plan
    few, many = counted
    assert few == many and max(many) < 31 * 50


async def test_a_readers_list_costs_the_same_with_any_number_of_foreign_sessions(tmp_path: Path) -> None:
    """It reads the sessions of the reader's grants, and no others."""
    counted: list[list[int]] = []
    for count in (1_000, 50_000):
        path = tmp_path / f"{count}.db"
        log = SqliteLog(f"sqlite:///{path}", Limits(), Seams())
        await log.start(lambda session, events: None)
        await log.close()
        many_sessions(path, count)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("INSERT INTO grants SELECT id, 'p_' || n % 7, 'owner' FROM sessions WHERE n > 50")
            db.execute("INSERT INTO grants SELECT id, 'p_ann', 'viewer' FROM sessions WHERE n <= 40")
        counted.append([])
        for order, ts in (("desc", 10**15), ("asc", 0)):
            values = {"prefix": "", "readers": '["p_ann"]', "agent": None, "since": 0, "until": 10**15, "limit": 31}
            steps, plan = steps_and_plan(path, GRANTED_SESSION_LISTS[order], values | {"ts": ts, "id": "s"})
            counted[-1].append(steps)
            assert "SEARCH grants USING" in plan and "SCAN s" not in plan.replace("SCAN session", ""), plan
    few, many = counted
    assert few == many and max(many) < 40 * 100


async def test_start_reads_little(opener: Opener, path: Path) -> None:
    """Start does not read a large file: damage in the middle of its events affects only their readers."""
    log = await opener()
    await asyncio.gather(*map(log.sessions.make, map(Key, ("a", "b"))))
    for _ in range(20):
        await put(log, Append(Key("a"), [text("x" * 100) for _ in range(1000)]))
    await put(log, Append(Key("b"), [text("fine")]))
    await log.close()
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 40960)
    log = await opener()
    assert await content(log, "b") == "fine"
    assert await put(log, Append(Key("b"), [text("!")])) == 2
    with pytest.raises(StorageUnavailable, match="malformed"):
        await content(log, "a")
    assert await content(log, "b") == "fine!"


# --- trouble --------------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, resource, sys
from pathlib import Path
from hub.limits import Limits
from hub.seams import Seams
from hub.storage.records import Append
from hub.storage.sqlite.log import SqliteLog
from hub.messages import Chunk, Event

async def put(log, session, content):
    answer = asyncio.get_running_loop().create_future()
    log.events.append(Append(session, [Event("main", "r", Chunk("m", content, 0))]), answer.set_result)
    return await answer
"""

APPENDS = CHILD + """
async def talk(log, session):
    for n in range(10**6):
        await put(log, session, f"{session}-{n} ")

async def main(url):
    def listener(session, events):
        for event in events:
            print(session, event.seq, event.body.content.strip(), flush=True)
    log = SqliteLog(url, Limits(), Seams())
    await log.start(listener)
    for session in "abcde":
        await log.sessions.make(session)
    await asyncio.gather(*(talk(log, session) for session in "abcde"))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("seed", range(4))
async def test_kill_9_loses_no_announced_event(opener: Opener, path: Path, seed: int) -> None:
    """All events that the listener of a killed process got are in the file, dense, and the file opens again."""
    command = [sys.executable, "-c", APPENDS, f"sqlite:///{path}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    heard = [child.stdout.readline().split() for _ in range(random.Random(seed).randint(50, 1500))]
    child.send_signal(signal.SIGKILL)
    heard += [line.split() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    log = await opener()
    for session in "abcde":
        words = (await content(log, session)).split()
        assert words == [f"{session}-{n}" for n in range(len(words))]
        mine = [(int(seq), word) for name, seq, word in heard if name == session]
        assert mine == list(enumerate(words[: len(mine)], 1)) and mine
        assert await put(log, Append(Key(session), [text("next")])) == len(words) + 1


FULL = CHILD + """
async def main(url):
    heard = []
    log = SqliteLog(url, Limits(), Seams())
    await log.start(lambda session, events: heard.extend((session, event.seq) for event in events))
    for session in "ab":
        await log.sessions.make(session)
    wal, refused, kept = Path(url.removeprefix("sqlite:///") + "-wal"), 0, {"a": 0, "b": 0}
    for room in range(0, 30000, 500):
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + room, resource.RLIM_INFINITY))
        failed = []
        while not failed:
            answers = [await put(log, "a", f"{kept['a']} "), await put(log, "b", f"{kept['b']} " + "x" * room)]
            failed = [session for session, answer in zip("ab", answers) if isinstance(answer, Exception)]
            for session, answer in zip("ab", answers):
                if isinstance(answer, Exception):
                    assert type(answer).__name__ == "StorageUnavailable" and "free space" in str(answer), answer
                else:
                    kept[session] += 1
                    assert answer == kept[session]
        refused += len(failed)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for session in failed:
            answer = await put(log, session, f"{kept[session]} ")
            kept[session] += 1
            assert answer == kept[session], answer
    await log.close()
    assert sorted(heard) == [(s, n) for s in "ab" for n in range(1, kept[s] + 1)]
    print(refused, kept["a"], kept["b"])

asyncio.run(main(sys.argv[1]))
"""


async def test_a_full_disk_refuses_and_recovers(opener: Opener, path: Path) -> None:
    """Where the file cannot grow, at any byte of the write, the append is refused and nothing of it kept; when there
    is room, the same append lands with the number it would have had."""
    child = subprocess.run(
        [sys.executable, "-c", FULL, f"sqlite:///{path}"], capture_output=True, text=True, timeout=90
    )
    assert child.returncode == 0, child.stdout + child.stderr
    refused, *kept = map(int, child.stdout.splitlines()[-1].split())
    assert refused >= 60
    log = await opener()
    for session, count in zip("ab", kept):
        words = (await content(log, session)).replace("x", "").split()
        assert words == [str(n) for n in range(count)]


class Doubtful(sqlite3.Connection):
    """A connection whose disk reports some errors; with *after*, the data was written before the error."""

    errors = 0
    after = True
    marks: tuple[str, ...] = ()
    dead = False

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if self.dead:
            raise sqlite3.OperationalError("disk I/O error")
        hit = Doubtful.errors > 0 and statement.startswith(Doubtful.marks)
        if hit:
            Doubtful.errors -= 1
        if hit and not Doubtful.after:
            raise sqlite3.OperationalError("disk I/O error")
        cursor = super().execute(statement, *values)
        if hit:
            self.dead = True
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


@pytest.fixture
def doubtful(monkeypatch: pytest.MonkeyPatch) -> type[Doubtful]:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Doubtful, **options))
    monkeypatch.setattr(Doubtful, "errors", 0)
    return Doubtful


@pytest.mark.parametrize("saved", [False, True])
async def test_a_commit_that_is_in_the_file_despite_an_error_counts(
    opener: Opener, doubtful: type[Doubtful], saved: bool
) -> None:
    """Its events are announced, and are not written twice."""
    heard: list[int] = []
    log = await opener(lambda session, events: heard.extend(event.seq for event in events))
    await log.sessions.make(Key("s"))
    await put(log, Append(Key("s"), [text("a")]))
    ann = Author("ann", "Ann")
    runs = [RunRecord("r", Key("s"), "main", "queued", "m", "u", "hi", ann, 1)] if saved else []
    doubtful.marks, doubtful.errors = (("COMMIT",) if saved else ("INSERT INTO loose",)), 1
    assert await put(log, Append(Key("s"), [text("b")], saved_runs=runs)) == 2
    assert await put(log, Append(Key("s"), [text("c")])) == 3
    assert heard == [1, 2, 3] and await content(log, "s") == "abc" and doubtful.errors == 0


async def test_a_deletion_that_is_in_the_file_despite_an_error_counts(opener: Opener, doubtful: type[Doubtful]) -> None:
    """It returns the files of the session, which no other call would remove. A deletion that failed is refused."""
    log = await opener()
    await put(log, Append(Key("s"), [text("a")]))
    await log.files.add(FileRecord(fileId="f", key=Key("s"), name="a.txt", type="text/plain", size=1, digest="0" * 64))
    doubtful.marks, doubtful.errors = ("COMMIT",), 1
    assert [file.fileId for file in await log.sessions.delete(Key("s"))] == ["f"]
    assert await log.sessions.find(Key("s")) is None and doubtful.errors == 0
    await put(log, Append(Key("s"), [text("b")]))
    doubtful.marks, doubtful.errors = ("DELETE",), 1
    with pytest.raises(StorageUnavailable):
        await log.sessions.delete(Key("s"))
    assert await content(log, "s") == "b"


async def test_an_erasure_that_is_in_the_file_despite_an_error_counts(
    opener: Opener, path: Path, doubtful: type[Doubtful]
) -> None:
    """It returns the files, and the old text is in no file. An erasure that failed is refused, and can be repeated."""
    log = await opener()
    ann = Author("p_ann", "Ann")
    event = Event(None, None, UserMessage(messageId="u", author=ann, content="my secret f_1"))
    for key in map(Key, ("s", "t")):
        await put(log, Append(key, [event]))
    await log.files.add(
        FileRecord(fileId="f_1", key=Key("s"), name="a.txt", type="text/plain", size=1, digest="0" * 64)
    )
    old = await log.sessions.find(Key("s"))
    doubtful.marks, doubtful.after, doubtful.errors = ("UPDATE sessions SET epoch",), False, 1
    with pytest.raises(StorageUnavailable, match="disk I/O error"):
        await log.sessions.erase_messages(Key("s"), "p_ann")
    assert await log.sessions.find(Key("s")) == old and await log.files.find("f_1") is not None
    for key, files in ((Key("s"), ["f_1"]), (Key("t"), [])):
        doubtful.marks, doubtful.after, doubtful.errors = ("COMMIT",), True, 1
        assert [file.fileId for file in (await log.sessions.erase_messages(key, "p_ann")).files] == files
        assert doubtful.errors == 0
    assert old is not None and (await log.sessions.make(Key("s")))[0].epoch != old.epoch
    assert await put(log, Append(Key("s"), [text("x")])) == 2
    assert [file.name for file in path.parent.iterdir() if b"secret" in file.read_bytes()] == []


async def test_an_error_before_the_commit_stores_nothing(opener: Opener, doubtful: type[Doubtful]) -> None:
    """An error in a transaction undoes it for all its requests; the next attempt succeeds."""
    log = await opener()
    await asyncio.gather(*map(log.sessions.make, map(Key, ("s", "t"))))
    entries = [Event("main", "r", RunStarted("m")), text("x")]
    message = HistoryMessage(messageId="m", role="assistant", content="x", agentId="main", runId="r", author=None)
    doubtful.marks, doubtful.after, doubtful.errors = ("INSERT INTO messages",), False, 1
    with pytest.raises(StorageUnavailable, match="cannot be written now .disk I/O error.*free space"):
        await put(log, Append(Key("s"), entries, [(0, message)]))
    assert (
        list(await log.events.read(Key("s"), 0, 9)) == []
        and list(await log.sessions.read_last_messages(Key("s"), 9, MiB)) == []
    )
    assert await put(log, Append(Key("s"), entries, [(0, message)])) == 1
    assert await put(log, Append(Key("t"), [text("y")])) == 1
