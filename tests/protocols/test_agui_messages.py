"""AG-UI: each message has one START and one END, however the events are delivered."""

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from hypothesis import given
from hypothesis import strategies as st
from support.agents import EVERYTHING
from support.agui import check_messages, events, outline, run_request
from support.hub import Hub
from support.sockets import small_window
from support.waiting import PATIENCE, eventually

from hub.delivery.pages import merge_chunks
from hub.messages import (
    Body,
    Chunk,
    Event,
    InterruptResolved,
    MessageRemoved,
    Reasoning,
    RunError,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    WholeMessage,
)
from hub.protocols.agui import AguiStream


def make_log(bodies: Sequence[Body]) -> list[Event]:
    """Return the events of the run `r1`, with an event of another run after each that is no piece of a text."""
    log = list[Event]()
    for body in bodies:
        for run_id in ("r1",) if isinstance(body, Chunk) else ("r1", "r2"):
            log.append(Event("a", run_id, body, "s1", "e1", len(log) + 1, 1))
    return log


def parse(data: bytes) -> list[dict[str, Any]]:
    """Return the AG-UI events in the bytes of a stream, each with its `id`."""
    parsed, event_id = [], ""
    for line in data.decode().splitlines():
        if line.startswith("id: "):
            event_id = line[4:]
        if line.startswith("data: "):
            parsed.append(json.loads(line[6:]) | {"id": event_id})
            event_id = ""
    return parsed


def translate(log: Sequence[Event], cursor_event: Event | None = None) -> list[dict[str, Any]]:
    return parse(AguiStream("r1", "run-1", "s1", cursor_event).events(log))


@st.composite
def runs(draw: st.DrawFn, open_kinds: tuple[str, ...] = ()) -> list[Event]:
    """Make the log of a run: messages in pieces, reasoning, whole messages, and other events."""
    bodies: list[Body] = [RunStarted("m0")]
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(("text", "reasoning", "whole", "step", *open_kinds)))
        pieces = draw(st.lists(st.sampled_from(("a", "bc")), min_size=1, max_size=4))
        if kind == "text":
            bodies += [Chunk(f"m{number}", piece, len("".join(pieces[:at]))) for at, piece in enumerate(pieces)]
        elif kind == "reasoning":
            bodies += [Reasoning(piece, f"m{number}") for piece in pieces]
        elif kind == "step":
            bodies += [StepStarted(f"s{number}"), StepFinished(f"s{number}")]
        else:
            bodies.append(WholeMessage(f"m{number}", pieces[0]) if kind == "whole" else StepStarted("x"))
    return make_log([*bodies, RunFinished("m0", "end_turn")])


@given(runs(("open step",)), st.data())
def test_events_that_are_read_again_give_the_same_messages(log: list[Event], data: st.DataObject) -> None:
    """Delivery may translate an event, drop it, and read it again in a page, whose chunks are merged."""
    stream, received, place = AguiStream("r1", "run-1", "s1"), b"", 0
    while place < len(log):
        way = data.draw(st.sampled_from(("live", "dropped", "page", "dropped page")))
        end = place + (1 if way in ("live", "dropped") else data.draw(st.integers(1, 12)))
        sent = stream.events(merge_chunks(log[place:end], 10**6))
        if not way.startswith("dropped"):
            received, place = received + sent, end
    run_events = parse(received)
    check_messages(run_events)
    assert outline(run_events) == outline(translate(log))


@given(runs())
def test_a_stream_resumes_after_each_id(log: list[Event]) -> None:
    """What the client received, and what follows, are the whole stream."""
    whole = translate(log)
    check_messages(whole)
    for place, event in enumerate(whole):
        if event["id"]:
            seq = int(event["id"].partition(":")[2])
            rest = translate(log[seq:], log[seq - 1])
            assert outline(whole[: place + 1] + rest) == outline(whole)


def test_an_answer_to_a_question_within_a_message_does_not_end_it() -> None:
    """The message goes on after it, so a client cannot resume between."""
    log = make_log(
        [
            RunStarted("m0"),
            Chunk("m0", "a", 0),
            InterruptResolved("i1", "resolved"),
            Chunk("m0", "b", 1),
            InterruptResolved("i2", "resolved"),
            RunFinished("m0", "end_turn"),
        ]
    )
    run_events = translate(log)
    check_messages(run_events)
    notices = [event for event in run_events if event["type"] == "CUSTOM"]
    assert [bool(event["id"]) for event in notices] == [False, False]
    assert [bool(event["id"]) for event in translate([log[0], log[3]]) if event["type"] == "CUSTOM"] == [True]


def test_a_message_ends_before_the_run_does_or_starts_again() -> None:
    """The END comes before RUN_ERROR, and before the `message_removed` of a restart."""
    log = make_log(
        [
            RunStarted("m0"),
            Reasoning("hm", "m1"),
            MessageRemoved(("m0",), "restarted"),
            RunStarted("m2", 2),
            Chunk("m2", "a", 0),
            RunError("agent_error", "bad"),
            RunFinished("m2", "error"),
        ]
    )
    run_events = translate(log)
    check_messages(run_events)
    assert [event["type"] for event in run_events][4:] == [
        *("REASONING_MESSAGE_END", "REASONING_END", "CUSTOM", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"),
        *("TEXT_MESSAGE_END", "RUN_ERROR"),
    ]


def test_the_pieces_of_a_long_message_have_one_start() -> None:
    """A body longer than a frame is sent in pieces, with the id at the last."""
    stream = AguiStream("r1", "run-1", "s1")
    stream.out_frame_bytes = 200
    log = make_log(
        [Reasoning("x" * 300, "m1"), WholeMessage("m2", "y" * 300), Chunk("m3", "z" * 300, 0), StepStarted("s")]
    )
    run_events = parse(stream.events(log))
    check_messages(run_events)
    assert [len(line[2] or "") for line in outline(run_events) if line[0].endswith("_CONTENT")] == [300] * 3


async def test_a_run_that_emits_everything_can_be_cut_after_each_id(hub: Hub) -> None:
    """A client reads the rest over a real connection."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    whole = await events(hub, "everything", run_request("x"))
    ids = [event["id"] for event in whole]
    for place, event_id in enumerate(ids):
        if event_id and event_id not in ids[:place]:
            rest = await events(hub, "everything", run_request("x"), **{"Last-Event-ID": event_id})
            assert outline(whole[: place + 1] + rest) == outline(whole)


ALTERNATION = """
import asyncio, pathlib
from hub import Reasoning, StepStarted

async def alternation(message: str):
    for turn in range(4):
        for number in range(90):
            for piece in range(number % 4):
                yield "x" * 1000
            yield Reasoning("y" * 700)
            yield Reasoning("z")
            if number % 3 == 0:
                yield StepStarted("s")
        yield StepStarted(f"turn-{turn}.")
        while turn < 3 and not pathlib.Path(f"{message}{turn}").exists():
            await asyncio.sleep(0.01)
"""


async def test_a_slow_reader_receives_whole_messages(hub: Hub, tmp_path: Path) -> None:
    """Its connection goes back and forth between live delivery and the log."""
    hub.agent("alternation.py", ALTERNATION)
    await hub.start(high_water_bytes=1, page_bytes=3000)
    request = run_request(str(tmp_path / "gate"))
    run_events = await asyncio.wait_for(read_slowly(hub, request, tmp_path), PATIENCE)
    check_messages(run_events)
    await eventually(lambda: not hub.node.registry.connections)
    assert hub.node.registry.counters.catch_ups >= 4
    assert outline(run_events) == outline(await events(hub, "alternation", request))


async def read_slowly(hub: Hub, request: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run the agent. Read nothing while it writes, then all; then let it write on."""
    data, turn = b"", 0
    connector = aiohttp.TCPConnector(socket_factory=small_window)
    async with aiohttp.ClientSession(read_bufsize=512, connector=connector) as http:
        async with http.post(f"{hub.url}/api/v1/agents/alternation/agui", json=request) as response:
            (connection,) = hub.node.registry.connections
            sock = connection.transport.asyncio_transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await eventually(lambda: connection.catchup.lagging_subscriptions)
            async for piece in response.content.iter_any():
                data += piece
                if f"turn-{turn}.".encode() in data and turn < 3:
                    await eventually(lambda: not connection.catchup.lagging_subscriptions)
                    (folder / f"gate{turn}").touch()
                    await eventually(lambda: connection.catchup.lagging_subscriptions)
                    turn += 1
    return parse(data)
