"""What every log promises. A new driver joins by a row in LOGS."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hub.errors import BadQuery, StorageUnavailable
from hub.ids import Key
from hub.limits import Limits, MiB
from hub.messages import (
    Author,
    Body,
    Chunk,
    Event,
    Fault,
    HistoryMessage,
    MessageRemoved,
    Order,
    Page,
    PageRequest,
    RunError,
    RunFinished,
    RunStarted,
    Usage,
    UserMessage,
    WholeMessage,
)
from hub.seams import Seams
from hub.storage.log import EVERYONE, Log, LogUnusable
from hub.storage.open_log import open_log
from hub.storage.records import Append, ChatRecord, FileRecord, RunRecord, SessionLabel, SessionQuery, SessionRow

# One function per driver: from an empty folder to the URL of an empty log, the same each time it is asked.
LOGS = [pytest.param(lambda folder: f"sqlite:///{folder}/hub.db", id="sqlite")]

Heard = list[tuple[str, Any]]  # ("event", Event), then ("done", what done got)
ANN = Author("ann", "Ann")
PARTS = ({"type": "text", "text": 'a "\0\U0001f600'}, {"type": "image", "source": {"type": "url", "value": "x"}})


@attrs.define
class Opened:
    """A started log, with everything that it announced."""

    log: Log
    heard: Heard

    async def put(self, append: Append) -> int:
        answer: asyncio.Future[int | Exception] = asyncio.get_running_loop().create_future()

        def done(result: int | Exception) -> None:
            self.heard.append(("done", result))
            answer.set_result(result)

        self.log.events.append(append, done)
        async with asyncio.timeout(20):
            result = await answer
        if isinstance(result, Exception):
            raise result
        return result

    async def everything(self, session: str, after: int = 0, upto: int = 10**9) -> list[Event]:
        events: list[Event] = []
        while page := await self.log.events.read(Key(session), after, upto):
            events += page
            after = page[-1].seq
        return events


Opener = Callable[..., Awaitable[Opened]]


@pytest.fixture(params=LOGS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[Log] = []

    async def start(spoil: Callable[[str], None] = lambda session: None) -> Opened:
        heard: Heard = []

        def listener(session: str, events: Sequence[Event]) -> None:
            heard.extend(("event", event) for event in events)
            spoil(session)

        log = open_log(request.param(tmp_path), Limits(), Seams())
        await log.start(listener)
        opened.append(log)
        return Opened(log, heard)

    yield start
    for log in opened:
        await log.close()


@pytest.fixture
async def hub(opener: Opener) -> Opened:
    opened = await opener()
    await opened.log.sessions.make(Key("s"))
    return opened


def chunk(content: str, offset: int = 0, message: str = "m", run: str = "r") -> Event:
    return Event("main", run, Chunk(message, content, offset))


def texts(events: Sequence[Event]) -> list[str]:
    return [event.body.content for event in events if isinstance(event.body, Chunk)]


async def test_a_log_has_a_name_of_its_own(opener: Opener, tmp_path: Path) -> None:
    """The same when it is opened again; and to no other log it says the same."""
    hub = await opener()
    name = hub.log.identify(tmp_path)
    await hub.log.close()
    assert (await opener()).log.identify(tmp_path) == name
    assert open_log(f"sqlite:///{tmp_path}/another.db", Limits(), Seams()).identify(tmp_path) != name


async def test_numbers_are_dense_from_one(hub: Opened) -> None:
    """An append gets the next numbers of its session, and done gets the first of them."""
    assert await hub.put(Append(Key("s"), [chunk("a"), chunk("b", 1)])) == 1
    assert await hub.put(Append(Key("s"), [chunk("c", 2)])) == 3
    events = [event for kind, event in hub.heard if kind == "event"]
    assert [event.seq for event in events] == [1, 2, 3]
    assert events == await hub.everything("s")


async def test_sessions_are_numbered_apart(hub: Opened) -> None:
    """Many sessions at once are each dense and in order, and each event is announced once."""
    sessions = [f"s{i}" for i in range(50)]
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, sessions)))
    for turn in range(4):
        await asyncio.gather(*(hub.put(Append(Key(s), [chunk(f"{s}-{turn}", turn)])) for s in sessions))
    events = [event for kind, event in hub.heard if kind == "event"]
    for session in sessions:
        mine = [event for event in events if event.sessionId == session]
        assert [event.seq for event in mine] == [1, 2, 3, 4]
        assert texts(mine) == [f"{session}-{turn}" for turn in range(4)]
        assert mine == await hub.everything(session)


async def test_heard_before_done(hub: Opened) -> None:
    """The listener has an append's events before its done is called."""
    await hub.put(Append(Key("s"), [chunk("a")]))
    await hub.put(Append(Key("s"), [chunk("b", 1)]))
    assert [kind for kind, _ in hub.heard] == ["event", "done", "event", "done"]


async def test_what_is_heard_can_be_read(hub: Opened) -> None:
    """A read that begins when done is called finds the event."""
    for seq in range(1, 30):
        await hub.put(Append(Key("s"), [chunk("x", seq)]))
        assert [event.seq for event in await hub.log.events.read(Key("s"), seq - 1, seq)] == [seq]


async def test_a_probe_commits_and_changes_nothing(hub: Opened) -> None:
    """Nobody hears of it, and the next number is the next; a closed log refuses it."""
    await hub.put(Append(Key("s"), [chunk("a")]))
    commits, heard = hub.log.commit_totals.commits, len(hub.heard)
    await hub.log.probe()
    assert hub.log.commit_totals.commits == commits + 1 and len(hub.heard) == heard
    assert await hub.put(Append(Key("s"), [chunk("b", 1)])) == 2
    await hub.log.close()
    with pytest.raises(StorageUnavailable):
        await hub.log.probe()


async def test_a_raising_listener_stops_nobody(opener: Opener) -> None:
    """Where the listener and a done raise, everyone else still hears, and the appends count as kept."""

    def spoil(session: str) -> None:
        if session == "bad":
            raise RuntimeError("a listener's mistake")

    def bad_done(result: int | Exception) -> None:
        raise RuntimeError("a caller's mistake")

    hub = await opener(spoil)
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("bad", "s"))))
    hub.log.events.append(Append(Key("s"), [chunk("a")]), bad_done)
    results = await asyncio.gather(*(hub.put(Append(Key(session), [chunk("x")])) for session in ("bad", "s", "bad")))
    assert results == [1, 2, 2]


async def test_every_body_comes_back(hub: Opened) -> None:
    """Each kind of event is read as it was written, with agent, run and time."""
    bodies = [
        UserMessage(messageId="u", author=ANN, content='a "quoted"\n\u2028 text\0', clientMsgId="c1"),
        UserMessage(messageId="u2", author=ANN, content=""),
        RunStarted("m", 2),
        Chunk("m", "é\0\U0001f600", 0),
        WholeMessage("m2", "whole"),
        RunError("boom", "it broke", True, 1500),
        RunFinished("m", "end_turn", Usage(3, 4)),
        RunFinished("m", "cancelled"),
        MessageRemoved(("m", "m2"), "restarted"),
        UserMessage(
            messageId="u3", author=ANN, content="look", clientMsgId=None, parts=PARTS, metadata={"a": {"b": [1, None]}}
        ),
        WholeMessage("m4", "see", PARTS),
    ]
    await hub.put(Append(Key("s"), [Event("main", "r", body) for body in bodies] + [Event(None, None, bodies[0])]))
    events = await hub.everything("s")
    assert [event.body for event in events] == [*bodies, bodies[0]]
    assert [(event.agentId, event.runId) for event in events] == [("main", "r")] * len(bodies) + [(None, None)]
    assert events == [event for kind, event in hub.heard if kind == "event"]
    assert len({event.ts for event in events}) == 1 and len({event.epoch for event in events}) == 1


UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(UNICODE, min_size=1, max_size=12))
async def test_any_text_comes_back(hub: Opened, pieces: list[str]) -> None:
    """Every text without lone surrogates is kept byte for byte: in chunks, in whole messages, in the history."""
    session = f"s-{len(hub.heard)}"
    await hub.log.sessions.make(Key(session))
    whole = "".join(pieces)
    entries = [chunk(piece, i) for i, piece in enumerate(pieces)]
    end = Event("main", "r", WholeMessage("m2", whole))
    message = HistoryMessage(messageId="m", role="assistant", content=whole, agentId="main", runId="r", author=None)
    await hub.put(Append(Key(session), [Event("main", "r", RunStarted("m")), *entries, end], [(len(pieces), message)]))
    events = await hub.everything(session)
    assert texts(events) == pieces
    assert events[-1].body == WholeMessage("m2", whole)
    assert await hub.log.events.find_message_before(Key(session), "r", len(pieces) + 2) == ("m", whole)
    assert [kept.content for kept in await hub.log.sessions.read_last_messages(Key(session), 5, MiB)] == [whole]


@pytest.mark.parametrize(
    "bad", [chunk("\ud800"), Event(None, None, UserMessage(messageId="u", author=ANN, content="\udfff"))]
)
async def test_one_bad_text_is_refused_alone(hub: Opened, bad: Event) -> None:
    """A lone surrogate fails its own append, whole; those that share the commit are kept."""
    sessions = [f"s{i}" for i in range(9)]
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, sessions)))
    entries = {s: [chunk("good"), bad] if s == "s4" else [chunk("good")] for s in sessions}
    results = await asyncio.gather(*(hub.put(Append(Key(s), entries[s])) for s in sessions), return_exceptions=True)
    assert [type(r) for r in results] == [StorageUnavailable if s == "s4" else int for s in sessions]
    assert await hub.everything("s4") == []
    assert await hub.put(Append(Key("s4"), [chunk("better")])) == 1
    for session in sessions:
        assert len(await hub.everything(session)) == 1


async def test_the_first_append_makes_the_session(hub: Opened) -> None:
    """In its own commit; one that is refused makes none."""
    with pytest.raises(StorageUnavailable, match="cannot store this"):
        await hub.put(Append(Key("stranger"), [chunk(chr(0xD800))]))
    assert await hub.log.sessions.find(Key("stranger")) is None
    before = hub.log.commit_totals.commits
    assert await hub.put(Append(Key("stranger"), [chunk("a")])) == 1
    assert hub.log.commit_totals.commits == before + 1
    head, (event,) = await hub.log.sessions.find(Key("stranger")), await hub.everything("stranger")
    assert head is not None and (head.epoch, head.seq, head.floor) == (event.epoch, 1, 0)
    assert await hub.put(Append(Key("stranger"), [chunk("b", 1)])) == 2
    assert await hub.log.sessions.make(Key("stranger")) == (attrs.evolve(head, seq=2), False)


async def test_pages_are_bounded_by_rows(hub: Opened) -> None:
    """A page has at most page_rows events, and the pages together have all of them."""
    rows = Limits().page_rows
    await hub.put(Append(Key("s"), [chunk("x", i) for i in range(rows + 10)]))
    first = await hub.log.events.read(Key("s"), 0, rows + 10)
    assert [event.seq for event in first] == list(range(1, rows + 1))
    assert [event.seq for event in await hub.log.events.read(Key("s"), rows, rows + 10)] == list(
        range(rows + 1, rows + 11)
    )


async def test_pages_are_bounded_by_text(hub: Opened) -> None:
    """A page ends with the event that fills page_bytes (counted in UTF-8), and has one event however long it is."""
    quarter = "é" * (Limits().page_bytes // 8)
    await hub.put(Append(Key("s"), [chunk(quarter, i) for i in range(6)] + [chunk(quarter * 9), chunk("last")]))
    assert [event.seq for event in await hub.log.events.read(Key("s"), 0, 8)] == [1, 2, 3, 4]
    assert [event.seq for event in await hub.log.events.read(Key("s"), 6, 8)] == [7]
    assert [event.seq for event in await hub.everything("s")] == list(range(1, 9))


@pytest.mark.parametrize(
    "after, upto, seqs", [(0, 5, [1, 2, 3, 4, 5]), (2, 4, [3, 4]), (4, 4, []), (5, 9, []), (3, 2, [])]
)
async def test_a_read_is_after_and_upto(hub: Opened, after: int, upto: int, seqs: list[int]) -> None:
    """A read gives after < seq <= upto and nothing else."""
    await hub.put(Append(Key("s"), [chunk("x", i) for i in range(5)]))
    assert [event.seq for event in await hub.log.events.read(Key("s"), after, upto)] == seqs


async def test_reading_what_is_not_there(hub: Opened) -> None:
    """An unknown session has no events, messages, chats or runs."""
    assert list(await hub.log.events.read(Key("nobody"), 0, 9)) == []
    assert list(await hub.log.sessions.read_last_messages(Key("nobody"), 9, MiB)) == []
    assert await hub.log.runs.find_chat(Key("nobody"), "ann", "c") is None
    assert await hub.log.events.find_message_before(Key("nobody"), "r", 9) is None
    assert list(await hub.log.runs.list_unfinished()) == []


async def test_messages_carry_the_seq_of_their_entry(hub: Opened) -> None:
    """A message gets number and time of the entry at its index; the history is oldest first, the last so many."""
    asked = HistoryMessage(messageId="u", role="user", content="hi", agentId="main", runId=None, author=ANN)
    await hub.put(
        Append(
            Key("s"),
            [chunk("before"), Event("main", None, UserMessage(messageId="u", author=ANN, content="hi"))],
            [(1, asked)],
        )
    )
    answers = [
        HistoryMessage(
            messageId=f"a{i}", role="assistant", content=f"answer {i}", agentId="main", runId="r", author=None
        )
        for i in range(3)
    ]
    await hub.put(
        Append(Key("s"), [chunk("x"), chunk("y"), chunk("z")], [(0, answers[0]), (2, answers[1]), (2, answers[2])])
    )
    ts = [event.ts for event in await hub.everything("s")]
    whole = [attrs.evolve(m, seq=seq, ts=ts[seq - 1]) for m, seq in zip([asked, *answers], (2, 3, 5, 5))]
    assert list(await hub.log.sessions.read_last_messages(Key("s"), 100, MiB)) == whole
    assert list(await hub.log.sessions.read_last_messages(Key("s"), 2, MiB)) == whole[2:]
    assert list(await hub.log.sessions.read_last_messages(Key("s"), 0, MiB)) == []


async def test_messages_come_back_whole(hub: Opened) -> None:
    """With their parts, their metadata, the message that they answer, and how the answer ended."""
    asked = HistoryMessage(
        messageId="u",
        role="user",
        content="hi",
        agentId=None,
        runId=None,
        author=ANN,
        parts=PARTS,
        metadata={"a": {"b": [1, None, "\0"]}},
    )
    answer = HistoryMessage(
        messageId="a",
        role="assistant",
        content="yes",
        agentId="main",
        runId="r",
        author=None,
        parts=PARTS[:1],
        userMessageId="u",
        stopReason="error",
        error=Fault("too_bad", 'the "model"\0 is gone'),
    )
    await hub.put(Append(Key("s"), [chunk("x"), chunk("y")], [(0, asked), (1, answer)]))
    event, _ = await hub.everything("s")
    whole = [attrs.evolve(m, seq=seq, ts=event.ts) for m, seq in ((asked, 1), (answer, 2))]
    assert (
        list(await hub.log.sessions.read_last_messages(Key("s"), 9, MiB))
        == whole
        == list((await hub.log.sessions.list_messages(Key("s"), PageRequest(9))).rows)
        == [whole[0], *await hub.log.sessions.read_messages_from(Key("s"), "a", 1)]
    )


async def talk(hub: Opened, many: int) -> None:
    """Keep a0 to a(many-1), of whom each two share an entry."""
    messages = [
        HistoryMessage(
            messageId=f"a{i}",
            role="assistant",
            content=f"{i}" * 10,
            agentId="main",
            runId="r",
            author=None,
            parts=PARTS,
        )
        for i in range(many)
    ]
    await hub.put(Append(Key("s"), [chunk("x") for _ in messages], [(i // 2, one) for i, one in enumerate(messages)]))


async def test_messages_up_to_one(hub: Opened) -> None:
    """That one and those before it, the last so many, of so many bytes; none where there is none of that id."""
    await talk(hub, 6)
    await hub.log.sessions.make(Key("t"))

    async def upto(*asked: Any) -> list[str]:
        return [m.messageId for m in await hub.log.sessions.read_last_messages(Key("s"), *asked)]

    assert await upto(9, MiB, "a3") == ["a0", "a1", "a2", "a3"]
    assert await upto(2, MiB, "a4") == ["a3", "a4"]
    size = 10 + len(json.dumps(PARTS, ensure_ascii=False, separators=(",", ":")).encode())
    assert await upto(9, 2 * size, "a3") == ["a2", "a3"]
    assert await upto(9, 2 * size - 1, "a3") == ["a3"]
    assert await upto(9, MiB, "nobody") == [] == list(await hub.log.sessions.read_last_messages(Key("t"), 9, MiB, "a3"))


async def test_the_trail_of_a_message(hub: Opened) -> None:
    """It whole, and after it what came later without what that says; so many at most."""
    await talk(hub, 6)
    found = await hub.log.sessions.read_messages_from(Key("s"), "a2", 9)
    assert [m.messageId for m in found] == ["a2", "a3", "a4", "a5"]
    assert (found[0].content, found[0].parts) == ("2" * 10, PARTS)
    assert {(m.content, m.parts, m.agentId) for m in found[1:]} == {("", None, "main")}
    assert [m.messageId for m in await hub.log.sessions.read_messages_from(Key("s"), "a2", 2)] == ["a2", "a3"]
    assert (
        list(await hub.log.sessions.read_messages_from(Key("s"), "nobody", 9))
        == []
        == list(await hub.log.sessions.read_messages_from(Key("t"), "a2", 9))
    )


async def test_messages_are_taken_out_of_the_history(opener: Opener) -> None:
    """In the commit of the event that says so, also with others that come in its place; events stay as they are."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t"))))
    for session in ("s", "t"):
        messages = [
            HistoryMessage(messageId=f"m{i}", role="assistant", content="x", agentId="main", runId="r", author=None)
            for i in range(4)
        ]
        await hub.put(Append(Key(session), [chunk("x") for _ in messages], list(enumerate(messages))))
    new = HistoryMessage(messageId="n", role="user", content="new", agentId=None, runId=None, author=ANN)
    gone = Event(None, None, MessageRemoved(("m1", "m3", "nobody"), "edited"))
    said = Event(None, None, UserMessage(messageId="n", author=ANN, content="new"))
    assert await hub.put(Append(Key("s"), [gone, said], [(1, new)], removed_messages=["m1", "m3", "nobody"])) == 5
    alone = Append(Key("s"), [Event(None, None, MessageRemoved(("m0",), "rollback"))], removed_messages=["m0"])
    assert await hub.put(alone) == 7
    await hub.log.close()
    hub = await opener()
    assert [m.messageId for m in await hub.log.sessions.read_last_messages(Key("s"), 9, MiB)] == ["m2", "n"]
    assert [m.messageId for m in await hub.log.sessions.read_last_messages(Key("t"), 9, MiB)] == [
        "m0",
        "m1",
        "m2",
        "m3",
    ]
    assert texts(await hub.everything("s")) == ["x"] * 4
    assert (await hub.everything("s"))[-1].body == MessageRemoved(("m0",), "rollback")


async def test_what_is_refused_takes_nothing_out(hub: Opened) -> None:
    """An append that cannot be kept leaves the history as it was; what is said and taken back in one is gone."""
    kept = HistoryMessage(messageId="m", role="assistant", content="x", agentId="main", runId="r", author=None)
    await hub.put(Append(Key("s"), [chunk("x")], [(0, kept)]))
    with pytest.raises(StorageUnavailable):
        await hub.put(Append(Key("s"), [chunk("\ud800")], removed_messages=["m"]))
    assert [m.messageId for m in await hub.log.sessions.read_last_messages(Key("s"), 9, MiB)] == ["m"]
    await hub.put(Append(Key("s"), [chunk("y")], [(0, attrs.evolve(kept, messageId="n"))], removed_messages=["m", "n"]))
    assert list(await hub.log.sessions.read_last_messages(Key("s"), 9, MiB)) == []


async def test_history_is_at_most_a_mebibyte(hub: Opened) -> None:
    """The newest messages win the room, and none older than one that found none is given."""
    sizes = [10, 300_000, 10, 400_000, 600_000]
    messages = [
        (
            0,
            HistoryMessage(
                messageId=f"m{i}", role="assistant", content="x" * n, agentId="main", runId="r", author=None
            ),
        )
        for i, n in enumerate(sizes)
    ]
    await hub.put(Append(Key("s"), [chunk("x")], messages))
    assert [m.messageId for m in await hub.log.sessions.read_last_messages(Key("s"), 100, MiB)] == ["m2", "m3", "m4"]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 5, 9])
async def test_messages_come_by_the_slice(hub: Opened, order: Order, limit: int) -> None:
    """Each once and whole, in their order, also those of one event; nothing of other sessions."""
    for number in (0, 1):
        names = [f"m{number}{i}" for i in range(3)]
        await hub.put(
            Append(
                Key("s"),
                [chunk("x")],
                [
                    (
                        0,
                        HistoryMessage(
                            messageId=n, role="assistant", content=f"say {n}", agentId="main", runId="r", author=None
                        ),
                    )
                    for n in names
                ],
            )
        )
        await hub.put(
            Append(
                Key("t"),
                [chunk("x")],
                [
                    (
                        0,
                        HistoryMessage(
                            messageId=f"o{number}",
                            role="assistant",
                            content="x",
                            agentId="main",
                            runId="r",
                            author=None,
                        ),
                    )
                ],
            )
        )
    everything = list(await hub.log.sessions.read_last_messages(Key("s"), 9, MiB))
    rows: list[HistoryMessage] = []
    request: PageRequest | None = PageRequest(limit, order=order)
    while request is not None:
        page = await hub.log.sessions.list_messages(Key("s"), request)
        assert len(page.rows) == limit or page.next_cursor is None
        rows += page.rows
        request = PageRequest(limit, page.next_cursor, order) if page.next_cursor is not None else None
    assert len(everything) == 6 and rows == (everything if order == "asc" else everything[::-1])
    assert await hub.log.sessions.list_messages(Key("nobody"), PageRequest(9)) == Page([])


def record(run: str, **fields: Any) -> RunRecord:
    kept = RunRecord(run, Key("s"), "main", "queued", f"m-{run}", f"u-{run}", "hi \0\U0001f600", ANN, 0)
    return replace(kept, **fields)


async def test_unfinished_runs_in_order_of_first_saving(opener: Opener) -> None:
    """Records are kept across a restart, replaced in their place, and forgotten when they end."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t"))))
    await hub.put(Append(Key("s"), [chunk("x")], saved_runs=[record("r1"), record("r2")]))
    beside = {"waits_for_session": True, "parts": PARTS, "metadata": {"a": "\0"}}
    await hub.put(Append(Key("t"), [chunk("x")], saved_runs=[record("r1", key="t", **beside)]))
    await hub.put(
        Append(Key("s"), [chunk("x")], saved_runs=[record("r1", state="started", after=1, attempt=2), record("r3")])
    )
    await hub.put(Append(Key("s"), [chunk("x")], ended_runs=["r2"]))
    await hub.log.close()
    hub = await opener()
    assert list(await hub.log.runs.list_unfinished()) == [
        record("r1", state="started", after=1, attempt=2),
        record("r1", key="t", **beside),
        record("r3"),
    ]


async def test_an_append_without_entries(hub: Opened) -> None:
    """Records alone may be written; done gets the number that the next entry will have."""
    await hub.put(Append(Key("s"), [chunk("x")]))
    assert await hub.put(Append(Key("s"), [], saved_runs=[record("r1")])) == 2
    assert [kind for kind, _ in hub.heard] == ["event", "done", "done"]
    assert await hub.put(Append(Key("s"), [chunk("y")], ended_runs=["r1"])) == 2
    assert list(await hub.log.runs.list_unfinished()) == []


async def test_a_chat_is_remembered(opener: Opener) -> None:
    """What a clientMsgId was answered is found by session, principal and id, also after a restart."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t"))))
    await hub.put(Append(Key("s"), [chunk("x")]))
    kept = ChatRecord(principal="ann", clientMsgId="c1", digest="digest", messageId="u", runId="r")
    await hub.put(Append(Key("s"), [chunk("y"), chunk("z")], chats=[(1, kept)]))
    await hub.log.close()
    hub = await opener()
    assert await hub.log.runs.find_chat(Key("s"), "ann", "c1") == attrs.evolve(kept, seq=3)
    others = [("t", "ann", "c1"), ("s", "bob", "c1"), ("s", "ann", "c2")]
    assert [await hub.log.runs.find_chat(Key(session), *ids) for session, *ids in others] == [None, None, None]


async def test_a_chat_cannot_be_kept_twice(hub: Opened) -> None:
    """A second append for the same clientMsgId is refused whole, whatever it says: an accepted chat runs once."""
    await hub.put(
        Append(
            Key("s"),
            [chunk("x")],
            chats=[(0, ChatRecord(principal="ann", clientMsgId="c1", digest="digest", messageId="u", runId="r"))],
        )
    )
    with pytest.raises(StorageUnavailable):
        await hub.put(
            Append(
                Key("s"),
                [chunk("y")],
                saved_runs=[record("r2")],
                chats=[(0, ChatRecord(principal="ann", clientMsgId="c1", digest="d2", messageId="u2", runId="r2"))],
            )
        )
    assert len(await hub.everything("s")) == 1 and list(await hub.log.runs.list_unfinished()) == []


def file(file_id: str, session: str = "s", digest: str = "d1", size: int = 7) -> FileRecord:
    return FileRecord(
        fileId=file_id, key=Key(session), name="a \0\U0001f600", type='text/plain; a="b"', size=size, digest=digest
    )


async def test_a_file_is_found_as_it_was_kept(opener: Opener) -> None:
    """With the log's time, also after a restart; it is no event, and numbers nothing."""
    hub = await opener()
    await hub.log.sessions.make(Key("s"))
    await hub.put(Append(Key("s"), [chunk("x")]))
    await hub.log.files.add(file("f1"))
    await hub.log.close()
    hub = await opener()
    found = await hub.log.files.find("f1")
    (event,) = await hub.everything("s")
    assert found is not None and found == attrs.evolve(file("f1"), created=found.created)
    assert found.created >= event.ts and (await hub.log.sessions.make(Key("s")))[0].seq == 1 and hub.heard == []
    assert await hub.log.files.find("f2") is None


async def test_a_file_needs_a_session_that_is_there(hub: Opened) -> None:
    """What belongs to nobody would never go; those that share the commit are kept."""
    results = await asyncio.gather(
        *(hub.log.files.add(file(f"f-{session}", session)) for session in ("s", "stranger", "s2")),
        hub.log.sessions.make(Key("s2")),
        return_exceptions=True,
    )
    assert [type(result) for result in results[:2]] == [type(None), StorageUnavailable]
    assert await hub.log.files.find("f-s") is not None and await hub.log.files.find("f-stranger") is None


async def test_files_are_counted_by_session(opener: Opener) -> None:
    """Each with its size, or the least that one counts."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t", "empty"))))
    for n, (session, size) in enumerate((("s", 1), ("s", 10), ("t", 5))):
        await hub.log.files.add(file(f"f{n}", session, size=size))
    assert await hub.log.files.sum_bytes_by_session(0) == {"s": 11, "t": 5}
    assert await hub.log.files.sum_bytes_by_session(6) == {"s": 16, "t": 6}


async def test_files_go_with_their_session(opener: Opener) -> None:
    """What it had is returned, and a digest is named for as long as any file has it."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t"))))
    for one in (file("f1"), file("f2", digest="d2"), file("f3", "t", digest="d2")):
        await hub.log.files.add(one)
    assert sorted(await hub.log.files.find_used_digests(["d1", "d2", "d3"])) == ["d1", "d2"]
    gone = await hub.log.sessions.delete(Key("s"))
    assert sorted((one.fileId, one.digest, one.size) for one in gone) == [("f1", "d1", 7), ("f2", "d2", 7)]
    assert await hub.log.files.find_used_digests(["d1", "d2"]) == ["d2"] and await hub.log.files.find("f1") is None
    assert await hub.log.sessions.delete(Key("s")) == [] and await hub.log.sessions.delete(Key("nobody")) == []
    await hub.log.close()
    hub = await opener()
    assert await hub.log.files.sum_bytes_by_session(0) == {"t": 7} and await hub.log.files.find("f3") is not None


async def test_a_file_that_was_given_before_its_session_went_goes_with_it(hub: Opened) -> None:
    """The order of calls is the order in the log, also where nobody waits; one after it is refused."""
    for n in range(30):
        await hub.log.sessions.make(Key("s"))
        calls = (
            hub.log.files.add(file(f"f{n}")),
            hub.log.sessions.delete(Key("s")),
            hub.log.files.add(file(f"late{n}")),
        )
        _, gone, late = await asyncio.gather(*calls, return_exceptions=True)
        assert not isinstance(gone, BaseException) and [one.fileId for one in gone] == [f"f{n}"]
        assert isinstance(late, StorageUnavailable)
    assert await hub.log.files.sum_bytes_by_session(0) == {}


async def test_a_session_is_made_once(opener: Opener) -> None:
    """Many at the same time get one head, which a restart keeps; one of them is told that it is new."""
    hub = await opener()
    assert await hub.log.sessions.find(Key("s")) is None
    answers = await asyncio.gather(
        *(hub.log.sessions.make(Key("s")) for _ in range(20)), hub.log.sessions.make(Key("t"))
    )
    heads = [head for head, _ in answers]
    assert [is_new for _, is_new in answers].count(True) == 2 and answers[0][1] and answers[20][1]
    assert len(set(heads[:20])) == 1 and heads[0].epoch != heads[20].epoch
    assert (heads[0].seq, heads[0].floor) == (0, 0)
    await hub.put(Append(Key("s"), [chunk("x"), chunk("y")]))
    stands = attrs.evolve(heads[0], seq=2)
    assert await hub.log.sessions.find(Key("s")) == stands == (await hub.log.sessions.make(Key("s")))[0]
    await hub.log.close()
    hub = await opener()
    assert await hub.log.sessions.find(Key("s")) == stands == (await hub.log.sessions.make(Key("s")))[0]
    assert await hub.put(Append(Key("s"), [chunk("z")])) == 3


async def later(hub: Opened, session: str, than: int) -> Event:
    """Append until the clock shows another millisecond, and return the first event of it."""
    async with asyncio.timeout(10):
        while True:
            seq = await hub.put(Append(Key(session), [chunk("x" * 100)]))
            (event,) = await hub.log.events.read(Key(session), seq - 1, seq)
            if event.ts > than:
                return event


async def test_old_events_expire(opener: Opener) -> None:
    """What was written before a time is dropped and raises the floor; messages stay, and numbers go on."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t"))))
    message = HistoryMessage(messageId="m", role="assistant", content="kept", agentId="main", runId="r", author=None)
    await hub.put(Append(Key("s"), [chunk("x")], [(0, message)]))
    (first,) = await hub.everything("s")
    edge = await later(hub, "s", first.ts)
    await hub.put(Append(Key("t"), [chunk("young")]))
    assert await hub.log.events.expire(edge.ts, 10**9) == {"s": edge.seq - 1}
    assert await hub.log.events.expire(edge.ts, 10**9) == {}
    assert [event.seq for event in await hub.everything("s")] == list(range(edge.seq, edge.seq + 1))
    assert [m.content for m in await hub.log.sessions.read_last_messages(Key("s"), 9, MiB)] == ["kept"]
    assert await hub.log.events.expire(edge.ts + 10**6, 10**9) == {"s": edge.seq, "t": 1}
    await hub.log.close()
    hub = await opener()
    head = (await hub.log.sessions.make(Key("s")))[0]
    assert (head.seq, head.floor) == (edge.seq, edge.seq)
    assert await hub.put(Append(Key("s"), [chunk("next")])) == edge.seq + 1


async def test_large_logs_lose_the_oldest(hub: Opened) -> None:
    """Past the size, the oldest events of all sessions go, and only as many as must."""
    await hub.log.sessions.make(Key("t"))
    await hub.put(Append(Key("s"), [chunk("x" * 10_000, i) for i in range(50)]))
    (last,) = await hub.log.events.read(Key("s"), 49, 50)
    edge = await later(hub, "t", last.ts)
    await hub.put(Append(Key("t"), [chunk("y" * 10_000, i) for i in range(10)]))
    assert await hub.log.events.expire(0, 10**9) == {}
    floors = await hub.log.events.expire(0, 200_000)
    assert set(floors) == {"s"} and 35 <= floors[Key("s")] <= 45
    assert [event.seq for event in await hub.everything("s")] == list(range(floors[Key("s")] + 1, 51))
    assert len(await hub.everything("t")) == edge.seq + 10


async def test_many_old_events_expire(hub: Opened) -> None:
    """More events than one transaction drops go all the same, while appends go on."""
    for _ in range(3):
        await hub.put(Append(Key("s"), [chunk("x", i) for i in range(3000)]))
    young = asyncio.create_task(hub.put(Append(Key("s"), [chunk("y")])))
    assert (await hub.log.events.expire(2**60, 10**9))[Key("s")] >= 9000
    await young
    assert (await hub.log.sessions.make(Key("s")))[0].seq == 9001


async def test_nothing_of_an_unfinished_run_expires(hub: Opened) -> None:
    """Events past the `after` of a run that goes on are kept, however old, until it ends."""
    await hub.put(
        Append(Key("s"), [chunk("x", i) for i in range(5)], saved_runs=[record("r", after=3), record("r2", after=4)])
    )
    assert await hub.log.events.expire(2**60, 0) == {"s": 3}
    assert (await hub.log.sessions.make(Key("s")))[0].floor == 3
    assert [event.seq for event in await hub.everything("s")] == [4, 5]
    await hub.put(Append(Key("s"), [chunk("x")], ended_runs=["r"]))
    assert await hub.log.events.expire(2**60, 0) == {"s": 4}
    await hub.put(Append(Key("s"), [chunk("x")], ended_runs=["r2"]))
    assert await hub.log.events.expire(2**60, 0) == {"s": 7}


async def test_close_keeps_what_is_queued(opener: Opener) -> None:
    """Close writes and announces everything given before it; what comes after is refused."""
    hub = await opener()
    sessions = [f"s{i}" for i in range(30)]
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, sessions)))
    puts = [asyncio.create_task(hub.put(Append(Key(s), [chunk("x")]))) for s in sessions]
    await asyncio.gather(asyncio.sleep(0), *(hub.log.close() for _ in range(2)))
    assert await asyncio.gather(*puts) == [1] * 30
    with pytest.raises(StorageUnavailable):
        await hub.put(Append(Key("s0"), [chunk("y")]))
    with pytest.raises(StorageUnavailable):
        await hub.log.sessions.make(Key("s0"))
    with pytest.raises(StorageUnavailable):
        await hub.log.events.read(Key("s0"), 0, 1)
    hub = await opener()
    assert [len(await hub.everything(s)) for s in sessions] == [1] * 30


STORY: list[tuple[str, Body]] = [
    ("other", RunStarted("o")),
    ("r", RunStarted("m")),
    ("r", Chunk("m", "one ", 0)),
    ("other", Chunk("o", "aside", 0)),
    ("r", Chunk("m", "two", 4)),
    ("r", WholeMessage("w", "whole")),
    ("r", Chunk("m3", "three", 0)),
    ("other", RunFinished("o", "end_turn")),
    ("r", RunFinished("m3", "end_turn")),
]


@pytest.mark.parametrize(
    "run, seq, message",
    [
        ("r", 9, ("m3", "three")),
        ("r", 7, None),  # a whole message stands before it
        ("r", 6, ("m", "one two")),
        ("r", 5, ("m", "one ")),
        ("r", 3, None),
        ("r", 2, None),
        ("other", 8, ("o", "aside")),
        ("nobody", 9, None),
    ],
)
async def test_the_message_before(hub: Opened, run: str, seq: int, message: tuple[str, str] | None) -> None:
    """The streamed message that an event ends is given whole, without what other runs said meanwhile."""
    await hub.put(Append(Key("s"), [Event("main", who, body) for who, body in STORY]))
    assert await hub.log.events.find_message_before(Key("s"), run, seq) == message


def test_an_unknown_scheme_is_refused() -> None:
    """The operator is told which schemes there are."""
    with pytest.raises(LogUnusable, match="sqlite://"):
        open_log("papyrus:///x", Limits(), Seams())


async def test_sessions_are_listed_by_their_last_message(hub: Opened) -> None:
    """The newest first, those without a message last; by the agent that answered, and the time."""
    for name, agent in (("s", "main"), ("t", "other")):
        await hub.log.sessions.make(Key(name))
        await hub.put(
            Append(
                Key(name),
                [chunk("x")],
                [
                    (
                        0,
                        HistoryMessage(
                            messageId="m", role="assistant", content="x", agentId=agent, runId="r", author=None
                        ),
                    )
                ],
            )
        )
    await hub.log.sessions.make(Key("empty"))
    rows = await listed(hub)
    assert {one.key for one in rows[:2]} == {"s", "t"} and rows[2].key == "empty"
    assert [one.ts for one in rows] == sorted((one.ts for one in rows), reverse=True) and rows[2].messages == 0
    assert [one.key for one in await listed(hub, agent="other")] == ["t"]
    assert await listed(hub, since=rows[0].ts + 1) == [] and await listed(hub, until=1) == rows[2:]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_a_list_goes_on_where_its_last_slice_ended(hub: Opened, order: Order, limit: int) -> None:
    """Each row once, in order, also rows of one time; within a tenant, and within a time."""
    for name in ("b", "a", "acme/x", "c", "acme/y", "e", "d"):
        await hub.put(
            Append(
                Key(name),
                [chunk("x")],
                [
                    (
                        0,
                        HistoryMessage(
                            messageId="m", role="assistant", content="x", agentId="main", runId="r", author=None
                        ),
                    )
                ],
            )
        )
    await hub.log.sessions.make(Key("s2"))
    everything = await listed(hub, order=order)
    assert [(row.ts, row.key) for row in everything] == sorted(
        ((row.ts, row.key) for row in everything), reverse=order == "desc"
    )
    assert {row.key for row in everything} == {"a", "b", "c", "d", "e", "s", "s2"}
    assert await slices(hub, limit, order) == everything
    times = sorted(row.ts for row in everything if row.ts)
    late = [row for row in everything if times[1] <= row.ts < times[-1]]
    assert await slices(hub, limit, order, since=times[1], until=times[-1]) == late
    assert {row.key for row in await slices(hub, limit, order, prefix="acme/")} == {"acme/x", "acme/y"}


async def slices(hub: Opened, limit: int, order: Order, **query: Any) -> list[SessionRow]:
    rows: list[SessionRow] = []
    request: PageRequest | None = PageRequest(limit, order=order)
    while request is not None:
        page = await hub.log.sessions.list(SessionQuery(**{"prefix": "", "readers": EVERYONE} | query), request)
        assert len(page.rows) == limit or page.next_cursor is None
        rows += page.rows
        request = PageRequest(limit, page.next_cursor, order) if page.next_cursor is not None else None
    return rows


async def listed(hub: Opened, order: Order = "desc", **query: Any) -> list[SessionRow]:
    """Return all sessions of a list, of the default tenant and for everyone where *query* says nothing else."""
    return await slices(hub, 1000, order, **query)


HUGE = base64.urlsafe_b64encode(b"[%d, %d]" % (10**30, 10**30)).decode()


@pytest.mark.parametrize("cursor", ["x", "", "é", "WzEsMiwzXQ", "W10", "eyJhIjoxfQ", HUGE, "Wy0xLC0xXQ"])
async def test_a_malformed_cursor_is_refused(hub: Opened, cursor: str) -> None:
    """The lists of sessions and of messages refuse it with BadQuery."""
    with pytest.raises(BadQuery, match="not a cursor of this list"):
        await hub.log.sessions.list(SessionQuery(prefix="", readers=EVERYONE), PageRequest(9, cursor))
    with pytest.raises(BadQuery, match="not a cursor of this list"):
        await hub.log.sessions.list_messages(Key("s"), PageRequest(9, cursor))


async def test_a_session_counts_its_messages(opener: Opener) -> None:
    """As they come and are taken back; the time is the last one's that stands. A session made anew counts from 0."""
    hub = await opener()
    await hub.log.sessions.make(Key("t"))

    async def row() -> SessionRow:
        return next(one for one in await listed(hub) if one.key == "s")

    async def say(*names: str, removed: Sequence[str] = ()) -> SessionRow:
        messages = [
            (0, HistoryMessage(messageId=name, role="assistant", content="x", agentId="main", runId="r", author=None))
            for name in names
        ]
        await hub.put(Append(Key("s"), [chunk("x")], messages, removed_messages=removed))
        return await row()

    first = await say("a", "b")
    await later(hub, "s", first.ts)
    second = await say("c", "d", "e")
    assert (first.messages, second.messages) == (2, 5) and first.ts < second.ts
    assert await say(removed=["c", "d", "e", "nothing"]) == first
    last = await say("f", removed=["a"])
    assert last.messages == 2 and last.ts >= second.ts
    await hub.log.close()
    hub = await opener()
    assert await row() == last
    await hub.log.sessions.delete(Key("s"))
    await hub.log.sessions.make(Key("s"))
    assert ((await row()).messages, (await row()).ts) == (0, 0) and len(await listed(hub)) == 2


async def test_sessions_are_listed_by_the_prefix_of_their_key(hub: Opened) -> None:
    """No prefix stands for keys without a slash; one tenant's name may begin with another's."""
    for key in ("s", "acme/s", "acme/t", "acme2/s", "a%/s"):
        await hub.log.sessions.make(Key(key))

    async def keys(prefix: str) -> list[str]:
        return sorted(row.key for row in await listed(hub, prefix=prefix))

    assert await keys("") == ["s"]
    assert await keys("acme/") == ["acme/s", "acme/t"]
    assert await keys("acme2/") == ["acme2/s"] and await keys("a%/") == ["a%/s"] and await keys("b/") == []


async def test_sessions_are_listed_for_their_readers(hub: Opened) -> None:
    """Until there are grants, the one reader of each session is everyone."""
    await hub.log.sessions.make(Key("s"))
    assert len(await listed(hub, readers={"p_1", *EVERYONE})) == 1
    assert await listed(hub, readers={"p_1"}) == [] and await listed(hub, readers=set()) == []


async def test_events_carry_the_id_of_their_session(hub: Opened) -> None:
    """The key is for the log alone: what is announced, read, and read back after a restart has the id."""
    await hub.log.sessions.make(Key("acme/s"))
    await hub.put(Append(Key("acme/s"), [chunk("x")]))
    assert [event.sessionId for event in await hub.log.events.read(Key("acme/s"), 0, 9)] == ["s"]
    assert [said.sessionId for kind, said in hub.heard if kind == "event"] == ["s"]


async def test_a_session_has_a_label(opener: Opener) -> None:
    """Title and metadata are replaced one by one, kept across a restart, and listed; an unknown session has none."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t"))))
    assert await hub.log.sessions.find_label(Key("s")) == SessionLabel()
    await hub.log.sessions.relabel(
        Key("s"), {"title": "Plans \0\U0001f600", "metadata": {"a": [1, None], "b": {"c": "\0"}}}
    )
    await hub.log.sessions.relabel(Key("s"), {})
    await hub.log.close()
    hub = await opener()
    whole = SessionLabel("Plans \0\U0001f600", {"a": [1, None], "b": {"c": "\0"}})
    assert (
        await hub.log.sessions.find_label(Key("s")) == whole
        and await hub.log.sessions.find_label(Key("t")) == SessionLabel()
    )
    (shown,) = [one for one in await listed(hub) if one.key == "s"]
    assert (shown.title, shown.metadata) == (whole.title, whole.metadata)
    await hub.log.sessions.relabel(Key("s"), {"metadata": None})
    assert await hub.log.sessions.find_label(Key("s")) == SessionLabel(whole.title)
    await hub.log.sessions.relabel(Key("s"), {"title": None, "metadata": {}})
    assert await hub.log.sessions.find_label(Key("s")) == SessionLabel(None, {})
    await hub.log.sessions.relabel(Key("nobody"), {"title": "x"})
    assert (
        await hub.log.sessions.find_label(Key("nobody")) is None and await hub.log.sessions.find(Key("nobody")) is None
    )


async def fill(hub: Opened, session: str) -> None:
    """Let a session have something of everything."""
    await hub.log.sessions.make(Key(session))
    message = HistoryMessage(messageId="m", role="assistant", content="said", agentId="main", runId="r", author=None)
    kept, run = ChatRecord(principal="ann", clientMsgId="c1", digest="digest", messageId="u", runId="r"), record(
        "r", key=session
    )
    await hub.put(Append(Key(session), [chunk("x", i) for i in range(5)], [(0, message)], [run], chats=[(0, kept)]))
    await hub.log.sessions.relabel(Key(session), {"title": "old", "metadata": {"old": True}})


async def nothing_of(hub: Opened, session: str) -> None:
    assert await hub.log.sessions.find(Key(session)) is None and await hub.log.sessions.find_label(Key(session)) is None
    assert (
        list(await hub.log.events.read(Key(session), 0, 9)) == []
        and list(await hub.log.sessions.read_last_messages(Key(session), 9, MiB)) == []
    )
    assert await hub.log.sessions.list_messages(Key(session), PageRequest(9)) == Page([])
    assert (
        await hub.log.runs.find_chat(Key(session), "ann", "c1") is None
        and await hub.log.events.find_message_before(Key(session), "r", 5) is None
    )
    assert session not in {run.key for run in await hub.log.runs.list_unfinished()}
    assert session not in {one.key for one in await listed(hub)}


@pytest.mark.parametrize("purged", [True, False])
async def test_a_deleted_session_is_gone_and_begins_anew(opener: Opener, purged: bool) -> None:
    """Nothing of it is found, its runs will not run, and others stay; under its id there is a new one, from 1 on.

    Also where the process dies before anything is purged: whole or not there.
    """
    hub = await opener()
    await asyncio.gather(fill(hub, "s"), fill(hub, "t"))
    was, other = await hub.log.sessions.find(Key("s")), await hub.log.sessions.find(Key("t"))
    assert was is not None
    await hub.log.sessions.delete(Key("s"))
    await hub.log.sessions.delete(Key("s"))  # twice is once
    await nothing_of(hub, "s")
    assert [one.key for one in await listed(hub)] == ["t"]
    if purged:
        await hub.log.events.purge()
    else:
        await hub.log.close()
        hub = await opener()
        await nothing_of(hub, "s")
    anew = (await hub.log.sessions.make(Key("s")))[0]
    assert (anew.seq, anew.floor) == (0, 0) and anew.epoch != was.epoch
    assert await hub.put(Append(Key("s"), [chunk("new")])) == 1
    assert [(event.seq, event.epoch) for event in await hub.everything("s")] == [(1, anew.epoch)]
    assert await hub.log.sessions.find_label(Key("s")) == SessionLabel()
    await hub.log.events.purge()
    assert texts(await hub.everything("s")) == ["new"] and len(await hub.everything("t")) == 5
    assert await hub.log.sessions.find(Key("t")) == other and await hub.log.sessions.find_label(
        Key("t")
    ) == SessionLabel("old", {"old": True})
    await hub.log.close()
    hub = await opener()
    assert (
        await hub.log.sessions.find(Key("s")) == attrs.evolve(anew, seq=1)
        and await hub.log.sessions.find(Key("t")) == other
    )


async def test_a_session_deleted_while_others_write(hub: Opened) -> None:
    """A delete among many appends takes its own session only, and what is made right behind it is new."""
    sessions = [f"s{i}" for i in range(30)]
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, sessions)))
    was = (await hub.log.sessions.make(Key("s")))[0]
    await hub.put(Append(Key("s"), [chunk("old")]))
    puts = [asyncio.create_task(hub.put(Append(Key(s), [chunk("x")]))) for s in sessions]
    await asyncio.sleep(0)
    _, (anew, is_new) = await asyncio.gather(hub.log.sessions.delete(Key("s")), hub.log.sessions.make(Key("s")))
    await asyncio.gather(*puts)
    assert is_new and anew.epoch != was.epoch and anew.seq == 0
    assert await hub.put(Append(Key("s"), [chunk("new")])) == 1
    assert [len(await hub.everything(s)) for s in sessions] == [1] * 30 and texts(await hub.everything("s")) == ["new"]


async def test_deleting_what_is_not_there(hub: Opened) -> None:
    """Does nothing; an empty session leaves nothing."""
    await hub.log.sessions.delete(Key("nobody"))
    await hub.log.sessions.delete(Key("s"))
    await hub.log.events.purge()
    assert await hub.log.sessions.find(Key("s")) is None
    assert await listed(hub) == []


async def test_retention_that_meets_a_deletion_leaves_the_new_session_alone(hub: Opened) -> None:
    """What it found to drop of a session that is gone by then is not dropped of the one that has its id."""
    for _ in range(4):
        await hub.put(Append(Key("s"), [chunk("x", i) for i in range(5000)]))
    expiring = asyncio.create_task(hub.log.events.expire(2**60, 10**9))
    async with asyncio.timeout(20):
        while (await hub.log.sessions.make(Key("s")))[0].floor == 0:  # until it is in the middle
            pass
    await hub.log.sessions.delete(Key("s"))
    await hub.log.sessions.make(Key("s"))
    assert await hub.put(Append(Key("s"), [chunk("new")])) == 1
    await expiring
    head = await hub.log.sessions.find(Key("s"))
    assert head is not None and (head.seq, head.floor) == (1, 0)
    assert texts(await hub.everything("s")) == ["new"]


async def test_a_large_log_counts_nothing_of_the_deleted_against_the_new(hub: Opened) -> None:
    """Who takes the id of a session that was deleted and not purged loses nothing for its size."""
    await hub.put(Append(Key("s"), [chunk("x" * 10_000, i) for i in range(50)]))
    await hub.log.sessions.delete(Key("s"))
    await hub.log.sessions.make(Key("s"))
    await hub.put(Append(Key("s"), [chunk("new")]))
    assert await hub.log.events.expire(0, 200_000) == {}
    assert texts(await hub.everything("s")) == ["new"]


async def test_the_log_counts_its_commits(hub: Opened) -> None:
    """And how long they took."""
    before = hub.log.commit_totals
    await hub.put(Append(Key("s"), [chunk("x")]))
    after = hub.log.commit_totals
    assert after.commits == before.commits + 1 and after.seconds > before.seconds
