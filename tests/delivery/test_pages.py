"""Clients that catch up share what is read from the log, and what is encoded of it."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import attrs
import pytest
from support.faults import faulty
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.limits import KiB
from hub.messages import Chunk, Event, RunFinished
from hub.protocols import open_protocol
from hub.storage.records import Append, Head

# Says "one ", waits for the file that the message names, then 200 words, slowly enough for many commits.
LONG = """
import asyncio, pathlib

async def long(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
    for number in range(200):
        yield f"{number} "
        await asyncio.sleep(0.001)
"""


@attrs.define
class Reads:
    """Every read of the log, as (session, after); each waits for *gate* before it reaches the log."""

    read: Callable[[Key, int, int, int | None], Awaitable[Sequence[Event]]]
    seen: list[tuple[str, int]] = attrs.Factory(list)
    gate: asyncio.Event = attrs.Factory(asyncio.Event)

    async def __call__(self, session_id: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        self.seen.append((session_id, after))
        await self.gate.wait()
        return await self.read(session_id, after, upto, rows)


def watch(hub: Hub, gated: bool = False) -> Reads:
    reads = Reads(hub.node.log.events.read)
    hub.node.log.events.read = reads  # type: ignore[method-assign, assignment]
    if not gated:
        reads.gate.set()
    return reads


async def put(hub: Hub, session: str, texts: Sequence[str], end: bool = False) -> Head:
    """Add chunks to a session's log, and the end of their run."""
    await hub.node.log.sessions.make(Key(session))
    entries = [Event("main", "r1", Chunk("m1", text, 0)) for text in texts]
    if end:
        entries.append(Event("main", "r1", RunFinished("m1", "end_turn")))
    kept: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    hub.node.log.events.append(Append(Key(session), entries), kept.set_result)
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await kept, int)
    head = await hub.node.log.sessions.find(Key(session))
    assert head is not None
    return head


async def resume(hub: Hub, head: Head, after: int = 0, extended: bool = False) -> Client:
    return await hub.connect(f"?sessionId={head.key}&afterSeq={after}&epoch={head.epoch}", extended)


async def steps(hub: Hub, head: Head, upto: int) -> list[int]:
    """Read a session through the node's pages; return where each one ended."""
    ends = [0]
    while ends[-1] < upto:
        page = await hub.node.pages.read(head.key, head.epoch, ends[-1], upto)
        assert [event.seq for event in page.events] == list(range(ends[-1] + 1, page.events[-1].seq + 1))
        ends.append(page.events[-1].seq)
    return ends[1:]


async def test_a_hundred_that_were_dropped_at_once_are_served_by_one_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets the rest exactly; the page is read once for all, and encoded once for each protocol.

    One read whatever the timing: who asks while it is under way waits for it, who asks later finds what it brought,
    and as nothing is said any more, that is all there is.
    """
    hub.agent("long.py", LONG)
    hub.options = {"frames_per_second": 0}
    await hub.start()
    witness = await hub.connect("?sessionId=s1")
    (stays,) = hub.node.registry.connections
    dropped = [await hub.connect("?sessionId=s1", extended=bool(number % 2)) for number in range(100)]
    await witness.send(type="chat", agentId="long", sessionId="s1", message=str(tmp_path / "gate"))
    places = [await client.until_type("stream") for client in dropped]
    for connection in hub.node.registry.connections - {stays}:
        connection.abort()
    (tmp_path / "gate").touch()
    await witness.until_done()
    reads, encoded = watch(hub), Counter[str]()
    for protocol in map(open_protocol, ("plain", "hubbub.v1")):
        monkeypatch.setattr(protocol, "events", _counted(encoded, protocol.name, protocol.events))
    again = await asyncio.gather(
        *(
            hub.connect(f"?sessionId=s1&afterSeq={place['seq']}&epoch={place['epoch']}", extended=bool(number % 2))
            for number, place in enumerate(places)
        )
    )
    await asyncio.gather(*(client.until_done() for client in again))
    wanted = "one " + "".join(f"{number} " for number in range(200))
    assert witness.text() == wanted
    assert {first.text() + rest.text() for first, rest in zip(dropped, again)} == {wanted}
    assert {place["seq"] for place in places} == {places[0]["seq"]}
    assert reads.seen == [("s1", places[0]["seq"])]
    assert encoded == {"plain": 1, "hubbub.v1": 1}


def _counted(count: Counter[str], name: str, call: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def counted(events: Any) -> bytes:
        count[name] += 1
        return call(events)

    return counted


async def test_every_cursor_gets_what_follows_it(hub: Hub) -> None:
    """Those at one place share a read, those at others have their own; nobody gets more or less than it lacks."""
    await hub.start()
    head = await put(hub, "s1", [f"{number} " for number in range(1, 301)], end=True)
    reads, cursors = watch(hub), [0, 1, 7, 150, 299]
    clients = {after: [await resume(hub, head, after) for _ in range(3)] for after in cursors}
    for after, same in clients.items():
        for client in same:
            await client.until_done()
            assert client.text() == "".join(f"{number} " for number in range(after + 1, 301))
            assert client.frames[-1]["seq"] == 301
    assert sorted(reads.seen) == [("s1", after) for after in cursors]


async def test_each_page_of_a_long_log_is_read_once(hub: Hub) -> None:
    """By all who come together, and not again for one who comes later."""
    await hub.start()
    texts = [f"{number}:".ljust(32 * KiB, "x") for number in range(24)]
    head = await put(hub, "s1", texts, end=True)
    reads = watch(hub)
    clients = await asyncio.gather(*(resume(hub, head) for _ in range(20)))
    await asyncio.gather(*(client.until_done() for client in clients))
    clients.append(await resume(hub, head))
    await clients[-1].until_done()
    assert {client.text() for client in clients} == {"".join(texts)}
    assert reads.seen == [("s1", 0), ("s1", 8), ("s1", 16), ("s1", 24)]


async def test_the_first_page_is_short_and_the_rest_is_not(hub: Hub) -> None:
    """Who joins a long log late sees something soon, and all of it in few frames."""
    await hub.start()
    first, most = hub.limits.first_page_rows, hub.limits.page_rows
    assert first < most
    head = await put(hub, "s", ["x"] * (first + most + 5), end=True)
    reads = watch(hub)
    client = await resume(hub, head)
    await client.until_done()
    assert client.text() == "x" * (first + most + 5)
    assert [after for _, after in reads.seen] == [0, first, first + most]


async def test_one_who_wants_whole_messages_makes_its_own_of_a_shared_page(hub: Hub) -> None:
    """What was encoded for those who hear every chunk is not for it; the read is."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b ", "c "], end=True)
    reads = watch(hub)
    everything = await resume(hub, head)
    await everything.until_done()
    whole = await hub.connect(f"?sessionId=s1&afterSeq=0&epoch={head.epoch}&stream=false")
    assert (await whole.next())["type"] == "message" and whole.text() == everything.text() == "a b c "
    assert reads.seen == [("s1", 0)]


async def test_a_read_that_fails_is_everyones_and_is_not_kept(hub: Hub) -> None:
    """All who wait for it are told why, cut off, and may resume; the next one reads anew."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "], end=True)
    reads = watch(hub, gated=True)
    clients = await asyncio.gather(*(resume(hub, head) for _ in range(10)))
    await eventually(lambda: sum(len(one.catchup.lagging) for one in hub.node.registry.connections) == 10)
    _rename(hub, "sessions", "elsewhere")
    reads.gate.set()
    assert [await client.wait_closed() for client in clients] == [1006] * 10
    told = [(frame["code"], frame["sessionId"]) for client in clients for frame in client.frames]
    assert told == [("storage_unavailable", "s1")] * 10
    with pytest.raises(StorageUnavailable):
        await hub.node.pages.read(Key("s1"), head.epoch, 0, 3)
    _rename(hub, "elsewhere", "sessions")
    again = await resume(hub, head)
    await again.until_done()
    assert again.text() == "a b "
    assert reads.seen == [("s1", 0)] * 3


def _rename(hub: Hub, old: str, new: str) -> None:
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript(f"PRAGMA legacy_alter_table = ON; ALTER TABLE {old} RENAME TO {new};")
    db.close()


async def test_one_who_leaves_in_the_middle_of_a_shared_read_harms_nobody(hub: Hub) -> None:
    """The first to ask closes its socket while the page is read; the others get it, from that one read."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "], end=True)
    reads = watch(hub, gated=True)
    first = await resume(hub, head)
    await eventually(lambda: len(reads.seen) == 1)
    others = [await resume(hub, head) for _ in range(9)]
    await eventually(lambda: sum(len(one.catchup.lagging) for one in hub.node.registry.connections) == 10)
    await first.close()
    await eventually(lambda: len(hub.node.registry.connections) == 9)
    reads.gate.set()
    for client in others:
        await client.until_done()
        assert client.text() == "a b "
    assert reads.seen == [("s1", 0)]


async def test_one_who_is_cancelled_does_not_take_the_read_with_it(hub: Hub) -> None:
    """The read belongs to all who wait for it, not to the one who asked first."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "])
    reads = watch(hub, gated=True)
    tasks = [asyncio.create_task(hub.node.pages.read(Key("s1"), head.epoch, 0, 2)) for _ in range(3)]
    await eventually(lambda: len(reads.seen) == 1)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    reads.gate.set()
    pages = await asyncio.gather(*tasks[1:])
    assert tasks[0].cancelled() and pages[0] is pages[1] and len(pages[0].events) == 2
    assert reads.seen == [("s1", 0)]


async def test_what_is_kept_stays_within_its_limit(hub: Hub) -> None:
    """Events and encoded bytes count; what does not fit is read again, and everyone is exact all the same."""
    await hub.start(kept_page_bytes=700 * KiB)
    texts = [f"{number}:".ljust(32 * KiB, "x") for number in range(64)]
    head = await put(hub, "s1", texts, end=True)
    reads, pages, most = watch(hub), hub.node.pages, 0
    for _ in range(3):
        client = await resume(hub, head)
        while not (await client.next()).get("done"):
            most = max(most, pages.size)
        assert client.text() == "".join(texts)
    kept = list(pages._pages.values())
    assert pages.size == sum(page.size for page in kept) and most <= 700 * KiB
    for page in kept:
        said = sum(len(event.body.content) for event in page.events if isinstance(event.body, Chunk))
        assert page.size > said + sum(map(len, page.frames.values()))
    assert len(reads.seen) > 9


async def test_without_room_those_who_wait_together_still_share(hub: Hub) -> None:
    """Nothing is kept, and nothing counted; who comes later reads for itself."""
    await hub.start(kept_page_bytes=0)
    head = await put(hub, "s1", ["a ", "b "], end=True)
    reads = watch(hub, gated=True)
    clients = [await resume(hub, head) for _ in range(5)]
    await eventually(lambda: sum(len(one.catchup.lagging) for one in hub.node.registry.connections) == 5)
    reads.gate.set()
    for client in clients:
        await client.until_done()
    clients.append(await resume(hub, head))
    await clients[-1].until_done()
    assert {client.text() for client in clients} == {"a b "}
    assert reads.seen == [("s1", 0)] * 2 and hub.node.pages.size == 0


async def test_a_page_counts_once_however_often_it_is_read_anew(hub: Hub) -> None:
    """A longer one takes the place of a shorter one, and nothing is left of that."""
    await hub.start()
    for _ in range(5):
        head = await put(hub, "s1", [str(number) for number in range(100)])
        await hub.node.pages.read(Key("s1"), head.epoch, 0, head.seq)
    (page,) = hub.node.pages._pages.values()
    assert hub.node.pages.size == page.size


async def test_the_page_that_was_not_used_for_the_longest_time_goes_first(hub: Hub) -> None:
    """Using a page keeps it."""
    await hub.start(kept_page_bytes=100 * KiB)
    heads = {name: await put(hub, name, ["x" * 40 * KiB]) for name in "abc"}
    reads = watch(hub)
    for name in "ababacab":
        await hub.node.pages.read(Key(name), heads[name].epoch, 0, 1)
    assert [session for session, _ in reads.seen] == ["a", "b", "c", "b"]


async def test_short_pages_are_read_anew_as_one(hub: Hub) -> None:
    """Who follows closely leaves pages of one event; who lacks them all does not go through them one by one."""
    await hub.start()
    for seq in range(1, 65):
        head = await put(hub, "s1", [f"{seq} "])
        await hub.node.pages.read(Key("s1"), head.epoch, seq - 1, seq)
    reads = watch(hub)
    assert await steps(hub, head, 64) == [64]
    assert await steps(hub, head, 64) == [64]
    head = await put(hub, "s1", ["65 "])
    assert await steps(hub, head, 65) == [64, 65]
    assert reads.seen == [("s1", 0), ("s1", 64)]


async def test_a_page_at_hand_lets_the_loop_go_on(hub: Hub) -> None:
    """A client that finds all its pages kept takes turns with everything else."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "])
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    assert turns


async def test_a_page_of_another_epoch_is_no_page(hub: Hub) -> None:
    """A session that was made anew under an old id shares nothing with the old one."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "])
    reads = watch(hub)
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    for _ in range(2):
        await hub.node.pages.read(Key("s1"), "another", 0, 2)
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    assert reads.seen == [("s1", 0)] * 3


@pytest.mark.parametrize("early", [True, False])
async def test_retention_that_passes_a_read_takes_no_more_than_it_did(hub: Hub, early: bool) -> None:
    """Who finds its place gone is reset; who stands behind what is gone is not, also where the head has moved on."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "], end=True)
    await asyncio.sleep(0.01)  # what comes now is younger, in milliseconds
    edge = int(time() * 1000)
    if early:
        await put(hub, "s1", ["c "])
    reads = watch(hub, gated=True)
    late = await resume(hub, head)
    await eventually(lambda: len(reads.seen) == 1)
    assert await hub.node.log.events.expire(edge, 2**40) == {"s1": 3}  # the session in memory does not know it yet
    if not early:
        await put(hub, "s1", ["c "])
    reads.gate.set()
    assert (await late.next())["code"] == "reset"
    assert hub.node.sessions[Key("s1")].channel.floor == 3
    behind = await resume(hub, head, 3)
    assert (await behind.next())["content"] == "c "


async def test_a_slow_listener_of_an_agent_hears_that_agent_only(hub: Hub, tmp_path: Path) -> None:
    """It is read from the same pages as everyone, and takes its runs from them."""
    hub.agent("long.py", LONG)
    hub.options = {"frames_per_second": 0}
    await hub.start()
    listener = await hub.connect(extended=True)
    await listener.send(type="subscribe", agentId="long")
    await listener.until_type("subscribed")
    (connection,) = hub.node.registry.connections
    other = await hub.connect("?sessionId=s1", extended=True)
    await other.send(type="chat", agentId="long", sessionId="s1", message=str(tmp_path / "gate"))
    await listener.until_type("stream")
    with faulty(connection.transport, get_write_buffer_size=lambda: 2**30):  # as if nothing more went into its socket
        (tmp_path / "gate").touch()
        await eventually(lambda: bool(connection.catchup.lagging))
        await other.send(type="chat", agentId="echo", sessionId="s1", message="hello")
        await other.until(lambda frame: frame["type"] == "run_finished" and frame["agentId"] == "echo")
        await other.find(lambda frame: frame["type"] == "run_finished" and frame["agentId"] == "long")
    connection.transport.resume_direct_writes()
    await listener.until_done()
    assert listener.text() == "one " + "".join(f"{number} " for number in range(200))


async def test_what_is_kept_holds_no_request_of_a_client_that_has_gone(hub: Hub) -> None:
    """A protocol that is made for one request is encoded for it alone."""
    await hub.start()
    body = {"model": "echo", "sessionId": "s1", "stream": True, "messages": [{"role": "user", "content": "a b"}]}
    async with aiohttp.ClientSession() as http, http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
        assert (await answer.text()).endswith("data: [DONE]\n\n")
    plain = await hub.connect("?sessionId=s1&afterSeq=0")
    await plain.until_done()
    kept = hub.node.pages._pages.values()
    assert kept and {protocol.name for page in kept for protocol in page.frames} <= {"plain"}


async def test_what_is_kept_counts_what_is_no_text(hub: Hub) -> None:
    """An event with a large value counts as much as it holds."""
    hub.agent(
        "large.py", "from hub import Custom\n\nasync def large(m: str):\n    yield Custom('x', ['y' * 10] * 10_000)"
    )
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await client.send(type="chat", agentId="large", sessionId="s1", message="x")
    await client.until_done()
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    await late.until_done()
    assert hub.node.pages.size > 10_000 * 40
