"""The contract of a log, for all drivers: see support/logs.py."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.logs import LOGS, OpenedLog, Opener, chunk, file, open_logs

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
    Request,
    ResponseFormat,
    RunError,
    RunFinished,
    RunStarted,
    Tool,
    Usage,
    UserMessage,
    WholeMessage,
)
from hub.seams import Seams
from hub.storage.log import EVERYONE, LogUnusable
from hub.storage.open_log import open_log
from hub.storage.records import Append, ChatRecord, FileRecord, RunRecord, SessionLabel, SessionQuery, SessionRow

ANN = Author("ann", "Ann")
PARTS = ({"type": "text", "text": 'a "\0\U0001f600'}, {"type": "image", "source": {"type": "url", "value": "x"}})


@pytest.fixture(params=LOGS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    async with open_logs(request.param(tmp_path)) as opener:
        yield opener


@pytest.fixture
async def hub(opener: Opener) -> OpenedLog:
    opened = await opener()
    await opened.log.sessions.make(Key("s"))
    return opened


def texts(events: Sequence[Event]) -> list[str]:
    return [event.body.content for event in events if isinstance(event.body, Chunk)]


async def test_a_log_has_a_name_of_its_own(opener: Opener, tmp_path: Path) -> None:
    """The name stays the same when the log is opened again, and differs from that of another log."""
    hub = await opener()
    name = hub.log.identify(tmp_path)
    await hub.log.close()
    assert (await opener()).log.identify(tmp_path) == name
    assert open_log(f"sqlite:///{tmp_path}/another.db", Limits(), Seams()).identify(tmp_path) != name


async def test_numbers_are_dense_from_one(hub: OpenedLog) -> None:
    """An append gets the next seqs of its session, and the callback gets the first of them."""
    assert await hub.put(Append(Key("s"), [chunk("a"), chunk("b", 1)])) == 1
    assert await hub.put(Append(Key("s"), [chunk("c", 2)])) == 3
    events = [event for kind, event in hub.notices if kind == "event"]
    assert [event.seq for event in events] == [1, 2, 3]
    assert events == await hub.everything("s")


async def test_each_session_has_its_own_numbers(hub: OpenedLog) -> None:
    """With many sessions at once, each is dense and in order, and each event is announced once."""
    sessions = [f"s{i}" for i in range(50)]
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, sessions)))
    for turn in range(4):
        await asyncio.gather(*(hub.put(Append(Key(s), [chunk(f"{s}-{turn}", turn)])) for s in sessions))
    events = [event for kind, event in hub.notices if kind == "event"]
    for session in sessions:
        mine = [event for event in events if event.sessionId == session]
        assert [event.seq for event in mine] == [1, 2, 3, 4]
        assert texts(mine) == [f"{session}-{turn}" for turn in range(4)]
        assert mine == await hub.everything(session)


async def test_events_are_announced_before_the_callback(hub: OpenedLog) -> None:
    """The listener gets the events of an append before its callback is called."""
    await hub.put(Append(Key("s"), [chunk("a")]))
    await hub.put(Append(Key("s"), [chunk("b", 1)]))
    assert [kind for kind, _ in hub.notices] == ["event", "done", "event", "done"]


async def test_announced_events_can_be_read(hub: OpenedLog) -> None:
    """A read that begins in the callback returns the event."""
    for seq in range(1, 30):
        await hub.put(Append(Key("s"), [chunk("x", seq)]))
        assert [event.seq for event in await hub.log.events.read(Key("s"), seq - 1, seq)] == [seq]


async def test_a_probe_commits_and_changes_nothing(hub: OpenedLog) -> None:
    """It announces no event and takes no seq; a closed log refuses it."""
    await hub.put(Append(Key("s"), [chunk("a")]))
    commits, notices = hub.log.commit_totals.commits, len(hub.notices)
    await hub.log.probe()
    assert hub.log.commit_totals.commits == commits + 1 and len(hub.notices) == notices
    assert await hub.put(Append(Key("s"), [chunk("b", 1)])) == 2
    await hub.log.close()
    with pytest.raises(StorageUnavailable):
        await hub.log.probe()


async def test_a_raising_listener_does_not_stop_others(opener: Opener) -> None:
    """If the listener and a callback raise, other callbacks are still called, and the appends are stored."""

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


async def test_every_body_comes_back(hub: OpenedLog) -> None:
    """Each type of event is read as it was written, with its agent, run and time."""
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
    assert events == [event for kind, event in hub.notices if kind == "event"]
    assert len({event.ts for event in events}) == 1 and len({event.epoch for event in events}) == 1


UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(UNICODE, min_size=1, max_size=12))
async def test_any_text_comes_back(hub: OpenedLog, pieces: list[str]) -> None:
    """Each text without lone surrogates comes back unchanged: in chunks, in complete messages, in the history."""
    session = f"s-{len(hub.notices)}"
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
async def test_one_bad_text_is_refused_alone(hub: OpenedLog, bad: Event) -> None:
    """A lone surrogate fails its own append only; other appends of the commit are stored."""
    sessions = [f"s{i}" for i in range(9)]
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, sessions)))
    entries = {s: [chunk("good"), bad] if s == "s4" else [chunk("good")] for s in sessions}
    results = await asyncio.gather(*(hub.put(Append(Key(s), entries[s])) for s in sessions), return_exceptions=True)
    assert [type(r) for r in results] == [StorageUnavailable if s == "s4" else int for s in sessions]
    assert await hub.everything("s4") == []
    assert await hub.put(Append(Key("s4"), [chunk("better")])) == 1
    for session in sessions:
        assert len(await hub.everything(session)) == 1


async def test_the_first_append_makes_the_session(hub: OpenedLog) -> None:
    """The session is made in the same commit. A refused append makes no session."""
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


async def test_pages_are_bounded_by_rows(hub: OpenedLog) -> None:
    """A page has at most page_rows events, and the pages together have all events."""
    rows = Limits().page_rows
    await hub.put(Append(Key("s"), [chunk("x", i) for i in range(rows + 10)]))
    first = await hub.log.events.read(Key("s"), 0, rows + 10)
    assert [event.seq for event in first] == list(range(1, rows + 1))
    assert [event.seq for event in await hub.log.events.read(Key("s"), rows, rows + 10)] == list(
        range(rows + 1, rows + 11)
    )


async def test_pages_are_bounded_by_text(hub: OpenedLog) -> None:
    """A page ends with the event that passes page_bytes (in UTF-8), and has at least one event."""
    quarter = "é" * (Limits().page_bytes // 8)
    await hub.put(Append(Key("s"), [chunk(quarter, i) for i in range(6)] + [chunk(quarter * 9), chunk("last")]))
    assert [event.seq for event in await hub.log.events.read(Key("s"), 0, 8)] == [1, 2, 3, 4]
    assert [event.seq for event in await hub.log.events.read(Key("s"), 6, 8)] == [7]
    assert [event.seq for event in await hub.everything("s")] == list(range(1, 9))


@pytest.mark.parametrize(
    "after, upto, seqs", [(0, 5, [1, 2, 3, 4, 5]), (2, 4, [3, 4]), (4, 4, []), (5, 9, []), (3, 2, [])]
)
async def test_a_read_is_after_and_upto(hub: OpenedLog, after: int, upto: int, seqs: list[int]) -> None:
    """A read returns the events with after < seq <= upto, and no others."""
    await hub.put(Append(Key("s"), [chunk("x", i) for i in range(5)]))
    assert [event.seq for event in await hub.log.events.read(Key("s"), after, upto)] == seqs


async def test_an_unknown_session_is_empty(hub: OpenedLog) -> None:
    """It has no events, messages, chats or runs."""
    assert list(await hub.log.events.read(Key("nobody"), 0, 9)) == []
    assert list(await hub.log.sessions.read_last_messages(Key("nobody"), 9, MiB)) == []
    assert await hub.log.runs.find_chat(Key("nobody"), "ann", "c") is None
    assert await hub.log.events.find_message_before(Key("nobody"), "r", 9) is None
    assert list(await hub.log.runs.list_unfinished_runs()) == []


async def test_messages_have_the_seq_of_their_event(hub: OpenedLog) -> None:
    """A message has the seq and time of the event at its index. The last messages are returned oldest first."""
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


async def test_messages_come_back_complete(hub: OpenedLog) -> None:
    """They have their parts, metadata, the id of the message that they answer, and the end of the answer."""
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


async def talk(hub: OpenedLog, many: int) -> None:
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


async def test_the_last_messages_up_to_one(hub: OpenedLog) -> None:
    """The result ends with that message, within the limits of number and bytes; without such a message it is empty."""
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


async def test_the_messages_from_one(hub: OpenedLog) -> None:
    """The first is complete, and later ones have no content. The number is limited."""
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


async def test_the_request_of_a_message_is_found_by_its_id(opener: Opener) -> None:
    """Whole, also after a restart, and until the message is removed. No message shows it."""
    hub = await opener()
    request = Request(
        tools=(Tool(name="a", description="ä \0", parameters={"b": [1, None]}, strict=True),),
        tool_choice="a",
        response_format=ResponseFormat(type="json_schema", name="n", schema={"type": "object"}),
        sampling={"seed": 2**62, "stop": ["\n"]},
        state={"x": [1.5]},
        context=({"value": "v"},),
        forwarded=False,
    )
    messages = [
        HistoryMessage(messageId=id, role="user", content="x", agentId=None, runId=None, author=ANN)
        for id in ("m1", "m2")
    ]
    await hub.put(Append(Key("s"), [chunk("x")], [(0, one) for one in messages], requests={"m1": request}))
    await hub.log.close()
    hub = await opener()
    assert await hub.log.sessions.find_request(Key("s"), "m1") == request
    for key, message_id in ((Key("s"), "m2"), (Key("s"), "m3"), (Key("t"), "m1")):
        assert await hub.log.sessions.find_request(key, message_id) is None
    found = await hub.log.sessions.read_last_messages(Key("s"), 9, MiB)
    assert [attrs.evolve(one, seq=0, ts=0) for one in found] == messages
    await hub.put(Append(Key("s"), [chunk("x")], removed_messages=["m1"]))
    assert await hub.log.sessions.find_request(Key("s"), "m1") is None


async def test_messages_are_found_by_their_tool_calls(hub: OpenedLog) -> None:
    """In their order, and without their texts. An id that is a part of another id is another id."""
    ids = ["c1", "c11", 'c"2\0ü', "c3"]
    messages = [
        HistoryMessage(
            messageId=f"m{number}",
            role="assistant",
            content="text",
            agentId="main",
            runId="r",
            author=None,
            parts=({"type": "tool_call", "toolCallId": id, "toolCallName": "n", "arguments": "{}"},),
        )
        for number, id in enumerate([*ids, "c1"])
    ]
    plain = attrs.evolve(messages[0], messageId="plain", parts=None, content="c1")
    appends = [*messages, plain]
    await hub.put(Append(Key("s"), [chunk("x") for _ in appends], list(enumerate(appends))))
    for call_ids, numbers in ((["c1"], [0, 4]), (['c"2\0ü', "c3"], [2, 3]), (["c"], []), ([], [])):
        found = await hub.log.sessions.read_tool_messages(Key("s"), call_ids)
        assert [one.messageId for one in found] == [f"m{number}" for number in numbers]
        assert all((one.content, one.parts) == ("", messages[n].parts) for one, n in zip(found, numbers))
    assert await hub.log.sessions.read_tool_messages(Key("t"), ["c1"]) == []


async def test_removed_messages_leave_the_history(opener: Opener) -> None:
    """They leave it in the commit of the event that says so, also if other messages replace them. Events stay."""
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


async def test_a_refused_append_removes_no_message(hub: OpenedLog) -> None:
    """The history stays as it was. A message that is added and removed in one append is not there."""
    kept = HistoryMessage(messageId="m", role="assistant", content="x", agentId="main", runId="r", author=None)
    await hub.put(Append(Key("s"), [chunk("x")], [(0, kept)]))
    with pytest.raises(StorageUnavailable):
        await hub.put(Append(Key("s"), [chunk("\ud800")], removed_messages=["m"]))
    assert [m.messageId for m in await hub.log.sessions.read_last_messages(Key("s"), 9, MiB)] == ["m"]
    await hub.put(Append(Key("s"), [chunk("y")], [(0, attrs.evolve(kept, messageId="n"))], removed_messages=["m", "n"]))
    assert list(await hub.log.sessions.read_last_messages(Key("s"), 9, MiB)) == []


async def test_history_is_limited_in_bytes(hub: OpenedLog) -> None:
    """The newest messages are returned; the first one that does not fit and all older ones are not."""
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
async def test_messages_are_listed_by_pages(hub: OpenedLog, order: Order, limit: int) -> None:
    """Each message is on one page, complete and in order, also those of one event; no other session's are."""
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


async def test_unfinished_runs_are_in_the_order_of_their_first_save(opener: Opener) -> None:
    """Records survive a restart, keep their position when replaced, and are deleted when the run ends."""
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
    assert list(await hub.log.runs.list_unfinished_runs()) == [
        record("r1", state="started", after=1, attempt=2),
        record("r1", key="t", **beside),
        record("r3"),
    ]


async def test_an_append_without_events(hub: OpenedLog) -> None:
    """It may store records only. The callback gets the seq that the next event will have."""
    await hub.put(Append(Key("s"), [chunk("x")]))
    assert await hub.put(Append(Key("s"), [], saved_runs=[record("r1")])) == 2
    assert [kind for kind, _ in hub.notices] == ["event", "done", "done"]
    assert await hub.put(Append(Key("s"), [chunk("y")], ended_runs=["r1"])) == 2
    assert list(await hub.log.runs.list_unfinished_runs()) == []


async def test_the_answer_to_a_chat_is_stored(opener: Opener) -> None:
    """It is found by session, principal and clientMsgId, also after a restart."""
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


async def test_a_chat_cannot_be_stored_twice(hub: OpenedLog) -> None:
    """A second append with the same clientMsgId is refused, whatever it contains, so an accepted chat runs once."""
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
    assert len(await hub.everything("s")) == 1 and list(await hub.log.runs.list_unfinished_runs()) == []


async def test_a_file_record_comes_back(opener: Opener) -> None:
    """It has the time of the log, also after a restart. It is no event, and takes no seq."""
    hub = await opener()
    await hub.log.sessions.make(Key("s"))
    await hub.put(Append(Key("s"), [chunk("x")]))
    await hub.log.files.add(file("f1"))
    await hub.log.close()
    hub = await opener()
    found = await hub.log.files.find("f1")
    (event,) = await hub.everything("s")
    assert found is not None and found == attrs.evolve(file("f1"), created=found.created)
    assert found.created >= event.ts and (await hub.log.sessions.make(Key("s")))[0].seq == 1 and hub.notices == []
    assert await hub.log.files.find("f2") is None


async def test_a_file_needs_an_existing_session(hub: OpenedLog) -> None:
    """A record without a session would never be deleted. Other requests of the commit are stored."""
    results = await asyncio.gather(
        *(hub.log.files.add(file(f"f-{session}", session)) for session in ("s", "stranger", "s2")),
        hub.log.sessions.make(Key("s2")),
        return_exceptions=True,
    )
    assert [type(result) for result in results[:2]] == [type(None), StorageUnavailable]
    assert await hub.log.files.find("f-s") is not None and await hub.log.files.find("f-stranger") is None


async def test_an_append_copies_the_records_of_files(opener: Opener) -> None:
    """With its events, in one commit, into a new session or an old one. If one of the files is missing, it fails."""
    hub = await opener()
    await hub.log.sessions.make(Key("s"))
    for name, digest in (("f1", "d1"), ("f2", "d2")):
        await hub.log.files.add(file(name, digest=digest))
    await hub.put(Append(Key("t"), [chunk("x")], file_copies={"f1": "c1", "f2": "c2"}))
    with pytest.raises(StorageUnavailable, match="deleted"):
        await hub.put(Append(Key("u"), [chunk("x")], file_copies={"f1": "c3", "f9": "c4"}))
    await hub.put(Append(Key("v"), [chunk("x")]))
    results = await asyncio.gather(
        hub.log.files.delete("f1"),
        hub.put(Append(Key("v"), [chunk("x")], file_copies={"f2": "c5"})),
        hub.put(Append(Key("w"), [chunk("x")], file_copies={"f9": "c6"})),
        return_exceptions=True,
    )
    assert results[1] == 2 and isinstance(results[2], StorageUnavailable)
    await hub.log.sessions.delete(Key("s"))
    await hub.log.close()
    hub = await opener()
    copies = await hub.log.files.find_in_session(Key("t"), ["c1", "c2", "c5", "f1"])
    assert [attrs.evolve(copy, created=0) for copy in sorted(copies, key=lambda copy: copy.fileId)] == [
        file("c1", "t", digest="d1"),
        file("c2", "t", digest="d2"),
    ]
    assert copies[0].created == (await hub.everything("t"))[0].ts
    assert await hub.log.files.find_used_digests(["d1", "d2"]) == ["d1", "d2"]
    assert await hub.log.files.sum_bytes_by_session(0) == {"t": 14, "v": 7}
    assert [await hub.log.sessions.find(Key(session)) for session in ("u", "w")] == [None, None]


async def test_files_are_counted_by_session(opener: Opener) -> None:
    """Each file counts with its size, or with the minimum."""
    hub = await opener()
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t", "empty"))))
    for n, (session, size) in enumerate((("s", 1), ("s", 10), ("t", 5))):
        await hub.log.files.add(file(f"f{n}", session, size=size))
    assert await hub.log.files.sum_bytes_by_session(0) == {"s": 11, "t": 5}
    assert await hub.log.files.sum_bytes_by_session(6) == {"s": 16, "t": 6}


async def test_files_are_deleted_with_their_session(opener: Opener) -> None:
    """delete() returns their records. A digest stays in use as long as any file has it."""
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


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 6])
async def test_files_are_listed_by_pages(hub: OpenedLog, order: Order, limit: int) -> None:
    """Each file of the session is on one page, in the order of the commits, also files of one commit."""
    await asyncio.gather(*map(hub.log.sessions.make, map(Key, ("s", "t"))))
    await hub.log.files.add(file("f9"))
    await asyncio.gather(
        *(hub.log.files.add(file(name)) for name in ("f2", "f1", "f4")), hub.log.files.add(file("x", "t"))
    )
    await hub.log.files.add(file("f0"))
    rows: list[FileRecord] = []
    request: PageRequest | None = PageRequest(limit, order=order)
    while request is not None:
        page = await hub.log.files.list(Key("s"), request)
        assert len(page.rows) == limit or page.next_cursor is None
        rows += page.rows
        request = PageRequest(limit, page.next_cursor, order) if page.next_cursor is not None else None
    assert {row.fileId for row in rows} == {"f0", "f1", "f2", "f4", "f9"} and len(rows) == 5
    position = [(row.created, row.fileId) for row in rows]
    assert position == sorted(position, reverse=order == "desc")
    assert rows[0] == await hub.log.files.find(rows[0].fileId)
    assert (await hub.log.files.list(Key("nobody"), PageRequest(9))).rows == []


async def test_a_file_is_deleted_once(opener: Opener) -> None:
    """The first call gets the record. The other files stay."""
    hub = await opener()
    await hub.log.sessions.make(Key("s"))
    for name in ("f1", "f2"):
        await hub.log.files.add(file(name))
    record = await hub.log.files.find("f1")
    results = await asyncio.gather(*(hub.log.files.delete("f1") for _ in range(3)), hub.log.files.delete("f3"))
    assert results == [record, None, None, None] and await hub.log.files.find("f1") is None
    await hub.log.close()
    hub = await opener()
    assert [row.fileId for row in (await hub.log.files.list(Key("s"), PageRequest(9))).rows] == ["f2"]


async def test_a_file_that_is_added_before_the_deletion_is_deleted(hub: OpenedLog) -> None:
    """Calls take effect in their order, also if no caller waits between them; a file added later is refused."""
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
    """Concurrent calls return one head, which survives a restart. One of them says that the session is new."""
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


async def later(hub: OpenedLog, session: str, than: int) -> Event:
    """Append until the clock shows another millisecond, and return the first event of it."""
    async with asyncio.timeout(10):
        while True:
            seq = await hub.put(Append(Key(session), [chunk("x" * 100)]))
            (event,) = await hub.log.events.read(Key(session), seq - 1, seq)
            if event.ts > than:
                return event


async def test_old_events_expire(opener: Opener) -> None:
    """Events before a time are dropped, and the floor rises. Messages stay, and the seqs go on."""
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


async def test_a_large_log_loses_its_oldest_events(hub: OpenedLog) -> None:
    """Above the size, the oldest events of all sessions are dropped, and no more than necessary."""
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


async def test_many_old_events_expire(hub: OpenedLog) -> None:
    """More events than fit into one transaction are dropped, while appends go on."""
    for _ in range(3):
        await hub.put(Append(Key("s"), [chunk("x", i) for i in range(3000)]))
    young = asyncio.create_task(hub.put(Append(Key("s"), [chunk("y")])))
    assert (await hub.log.events.expire(2**60, 10**9))[Key("s")] >= 9000
    await young
    assert (await hub.log.sessions.make(Key("s")))[0].seq == 9001


async def test_the_events_of_an_unfinished_run_do_not_expire(hub: OpenedLog) -> None:
    """Events after the `after` of the run are kept, however old, until it ends."""
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


async def test_close_commits_queued_appends(opener: Opener) -> None:
    """close() commits and announces all earlier appends; later ones are refused."""
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
        ("r", 7, None),  # a complete message is before it
        ("r", 6, ("m", "one two")),
        ("r", 5, ("m", "one ")),
        ("r", 3, None),
        ("r", 2, None),
        ("other", 8, ("o", "aside")),
        ("nobody", 9, None),
    ],
)
async def test_the_streamed_message_before_an_event(
    hub: OpenedLog, run: str, seq: int, message: tuple[str, str] | None
) -> None:
    """It is returned complete, without the text of other runs."""
    await hub.put(Append(Key("s"), [Event("main", who, body) for who, body in STORY]))
    assert await hub.log.events.find_message_before(Key("s"), run, seq) == message


def test_an_unknown_scheme_is_refused() -> None:
    """The error names the schemes that exist."""
    with pytest.raises(LogUnusable, match="sqlite://"):
        open_log("papyrus:///x", Limits(), Seams())


@pytest.mark.parametrize("url", ["sqlite://[x", "sqlite:hub.db", "sqlite", "SQLITE://hub.db"])
def test_a_malformed_url_is_refused(url: str) -> None:
    """The error shows a valid one."""
    with pytest.raises(LogUnusable, match="names no file: use sqlite:///relative/hub.db"):
        open_log(url, Limits(), Seams())


async def test_sessions_are_listed_by_their_last_message(hub: OpenedLog) -> None:
    """The newest is first, and sessions without a message are last; agent and time are filters."""
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
async def test_a_list_goes_on_where_its_last_page_ended(hub: OpenedLog, order: Order, limit: int) -> None:
    """Each row is on one page, in order, also rows with equal times; within a tenant, and within a span of time."""
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


async def slices(hub: OpenedLog, limit: int, order: Order, **query: Any) -> list[SessionRow]:
    rows: list[SessionRow] = []
    request: PageRequest | None = PageRequest(limit, order=order)
    while request is not None:
        page = await hub.log.sessions.list(SessionQuery(**{"prefix": "", "readers": EVERYONE} | query), request)
        assert len(page.rows) == limit or page.next_cursor is None
        rows += page.rows
        request = PageRequest(limit, page.next_cursor, order) if page.next_cursor is not None else None
    return rows


async def listed(hub: OpenedLog, order: Order = "desc", **query: Any) -> list[SessionRow]:
    """Return all sessions of a list, of the default tenant and for everyone where *query* says nothing else."""
    return await slices(hub, 1000, order, **query)


HUGE = base64.urlsafe_b64encode(b"[%d, %d]" % (10**30, 10**30)).decode()


@pytest.mark.parametrize("cursor", ["x", "", "é", "WzEsMiwzXQ", "W10", "eyJhIjoxfQ", HUGE, "Wy0xLC0xXQ"])
async def test_a_malformed_cursor_is_refused(hub: OpenedLog, cursor: str) -> None:
    """The lists of sessions, of messages and of files refuse it with BadQuery."""
    with pytest.raises(BadQuery, match="not a cursor of this list"):
        await hub.log.sessions.list(SessionQuery(prefix="", readers=EVERYONE), PageRequest(9, cursor))
    with pytest.raises(BadQuery, match="not a cursor of this list"):
        await hub.log.sessions.list_messages(Key("s"), PageRequest(9, cursor))
    with pytest.raises(BadQuery, match="not a cursor of this list"):
        await hub.log.files.list(Key("s"), PageRequest(9, cursor))


async def test_a_session_counts_its_messages(opener: Opener) -> None:
    """The count and the time of the last message follow additions and removals. A new session begins at 0."""
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


async def test_sessions_are_listed_by_the_prefix_of_their_key(hub: OpenedLog) -> None:
    """An empty prefix means keys without a slash. One tenant's name may begin with another's."""
    for key in ("s", "acme/s", "acme/t", "acme2/s", "a%/s"):
        await hub.log.sessions.make(Key(key))

    async def keys(prefix: str) -> list[str]:
        return sorted(row.key for row in await listed(hub, prefix=prefix))

    assert await keys("") == ["s"]
    assert await keys("acme/") == ["acme/s", "acme/t"]
    assert await keys("acme2/") == ["acme2/s"] and await keys("a%/") == ["a%/s"] and await keys("b/") == []


async def test_events_have_the_id_of_their_session(hub: OpenedLog) -> None:
    """Announced and read events have the id, also after a restart; only the log uses the key."""
    await hub.log.sessions.make(Key("acme/s"))
    await hub.put(Append(Key("acme/s"), [chunk("x")]))
    assert [event.sessionId for event in await hub.log.events.read(Key("acme/s"), 0, 9)] == ["s"]
    assert [said.sessionId for kind, said in hub.notices if kind == "event"] == ["s"]


async def test_a_session_has_a_label(opener: Opener) -> None:
    """Title and metadata are replaced one by one, survive a restart, and are listed. An unknown session has none."""
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


async def fill(hub: OpenedLog, session: str) -> None:
    """Store one of each record in a session."""
    await hub.log.sessions.make(Key(session))
    message = HistoryMessage(messageId="m", role="assistant", content="said", agentId="main", runId="r", author=None)
    kept, run = ChatRecord(principal="ann", clientMsgId="c1", digest="digest", messageId="u", runId="r"), record(
        "r", key=session
    )
    await hub.put(Append(Key(session), [chunk("x", i) for i in range(5)], [(0, message)], [run], chats=[(0, kept)]))
    await hub.log.sessions.relabel(Key(session), {"title": "old", "metadata": {"old": True}})


async def nothing_of(hub: OpenedLog, session: str) -> None:
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
    assert session not in {run.key for run in await hub.log.runs.list_unfinished_runs()}
    assert session not in {one.key for one in await listed(hub)}


@pytest.mark.parametrize("purged", [True, False])
async def test_a_deleted_session_is_removed_and_may_be_created_again(opener: Opener, purged: bool) -> None:
    """None of its data is found, its runs do not start, and other sessions stay. A new session with its id begins at 1.

    If the process dies before the purge, the session is either complete or deleted.
    """
    hub = await opener()
    await asyncio.gather(fill(hub, "s"), fill(hub, "t"))
    was, other = await hub.log.sessions.find(Key("s")), await hub.log.sessions.find(Key("t"))
    assert was is not None
    await hub.log.sessions.delete(Key("s"))
    await hub.log.sessions.delete(Key("s"))  # a second deletion does nothing
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


async def test_a_session_deleted_while_others_write(hub: OpenedLog) -> None:
    """A deletion among many appends deletes its own session only; a session made right after it is new."""
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


async def test_deleting_an_unknown_session_does_nothing(hub: OpenedLog) -> None:
    """An empty session leaves no rows."""
    await hub.log.sessions.delete(Key("nobody"))
    await hub.log.sessions.delete(Key("s"))
    await hub.log.events.purge()
    assert await hub.log.sessions.find(Key("s")) is None
    assert await listed(hub) == []


async def test_retention_does_not_touch_a_session_that_was_created_again(hub: OpenedLog) -> None:
    """Events selected from a session that is deleted meanwhile are not dropped from the new session with its id."""
    for _ in range(4):
        await hub.put(Append(Key("s"), [chunk("x", i) for i in range(5000)]))
    expiring = asyncio.create_task(hub.log.events.expire(2**60, 10**9))
    async with asyncio.timeout(20):
        while (await hub.log.sessions.make(Key("s")))[0].floor == 0:  # until retention has begun
            pass
    await hub.log.sessions.delete(Key("s"))
    await hub.log.sessions.make(Key("s"))
    assert await hub.put(Append(Key("s"), [chunk("new")])) == 1
    await expiring
    head = await hub.log.sessions.find(Key("s"))
    assert head is not None and (head.seq, head.floor) == (1, 0)
    assert texts(await hub.everything("s")) == ["new"]


async def test_the_size_of_a_deleted_session_does_not_count_for_the_new_one(hub: OpenedLog) -> None:
    """A new session with the id of one that was deleted and not purged loses no events."""
    await hub.put(Append(Key("s"), [chunk("x" * 10_000, i) for i in range(50)]))
    await hub.log.sessions.delete(Key("s"))
    await hub.log.sessions.make(Key("s"))
    await hub.put(Append(Key("s"), [chunk("new")]))
    assert await hub.log.events.expire(0, 200_000) == {}
    assert texts(await hub.everything("s")) == ["new"]


async def test_the_log_counts_its_commits(hub: OpenedLog) -> None:
    """And their durations."""
    before = hub.log.commit_totals
    await hub.put(Append(Key("s"), [chunk("x")]))
    after = hub.log.commit_totals
    assert after.commits == before.commits + 1 and after.seconds > before.seconds
