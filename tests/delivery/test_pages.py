"""Clients that catch up share the reads of the log, and the encoded pages."""

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

# Yields "one ", waits for the file named by the message, then yields 200 words, slowly enough for many commits.
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
    """Records each read of the log in `calls`, as (session, after). Each read waits for *gate*."""

    read: Callable[[Key, int, int, int | None], Awaitable[Sequence[Event]]]
    calls: list[tuple[str, int]] = attrs.Factory(list)
    gate: asyncio.Event = attrs.Factory(asyncio.Event)

    async def __call__(self, session_id: Key, after: int, upto: int, rows: int | None = None) -> Sequence[Event]:
        self.calls.append((session_id, after))
        await self.gate.wait()
        return await self.read(session_id, after, upto, rows)


def watch(hub: Hub, gated: bool = False) -> Reads:
    """Record the reads of the log. If *gated*, they wait until the test sets the gate."""
    reads = Reads(hub.node.log.events.read)
    hub.node.log.events.read = reads  # type: ignore[method-assign, assignment]
    if not gated:
        reads.gate.set()
    return reads


async def put(hub: Hub, session: str, texts: Sequence[str], end: bool = False) -> Head:
    """Append chunks to the log of a session and, if *end*, the end of their run; return the new head."""
    await hub.node.log.sessions.make(Key(session))
    entries = [Event("main", "r1", Chunk("m1", text, 0)) for text in texts]
    if end:
        entries.append(Event("main", "r1", RunFinished("m1", "end_turn")))
    result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    hub.node.log.events.append(Append(Key(session), entries), result.set_result)
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await result, int)
    head = await hub.node.log.sessions.find(Key(session))
    assert head is not None
    return head


async def resume(hub: Hub, head: Head, after: int = 0, extended: bool = False) -> Client:
    return await hub.connect(f"?sessionId={head.key}&afterSeq={after}&epoch={head.epoch}", extended)


async def page_ends(hub: Hub, head: Head, upto: int) -> list[int]:
    """Read a session through the page cache; return the last seq of each page."""
    ends = [0]
    while ends[-1] < upto:
        page = await hub.node.pages.read(head.key, head.epoch, ends[-1], upto)
        assert [event.seq for event in page.events] == list(range(ends[-1] + 1, page.events[-1].seq + 1))
        ends.append(page.events[-1].seq)
    return ends[1:]


async def test_a_hundred_clients_that_lose_their_connections_resume_from_one_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client gets exactly the missing events. The page is read once, and encoded once for each protocol.

    There is one read whatever the timing: a client that asks during the read waits for it, and a later client finds
    the page in the cache. No new event comes meanwhile, so this page is the whole rest.
    """
    hub.agent("long.py", LONG)
    hub.options = {"frames_per_second": 0}
    await hub.start()
    witness = await hub.connect("?sessionId=s1")
    (witness_connection,) = hub.node.registry.connections
    dropped = [await hub.connect("?sessionId=s1", extended=bool(number % 2)) for number in range(100)]
    await witness.send(type="chat", agentId="long", sessionId="s1", message=str(tmp_path / "gate"))
    cursors = [await client.until_type("stream") for client in dropped]
    for connection in hub.node.registry.connections - {witness_connection}:
        connection.abort()
    (tmp_path / "gate").touch()
    await witness.until_done()
    reads, encoded = watch(hub), Counter[str]()
    for protocol in map(open_protocol, ("plain", "hubbub.v1")):
        monkeypatch.setattr(protocol, "events", _counted(encoded, protocol.name, protocol.events))
    resumed = await asyncio.gather(
        *(
            hub.connect(f"?sessionId=s1&afterSeq={cursor['seq']}&epoch={cursor['epoch']}", extended=bool(number % 2))
            for number, cursor in enumerate(cursors)
        )
    )
    await asyncio.gather(*(client.until_done() for client in resumed))
    wanted = "one " + "".join(f"{number} " for number in range(200))
    assert witness.text() == wanted
    assert {first.text() + rest.text() for first, rest in zip(dropped, resumed)} == {wanted}
    assert {cursor["seq"] for cursor in cursors} == {cursors[0]["seq"]}
    assert reads.calls == [("s1", cursors[0]["seq"])]
    assert encoded == {"plain": 1, "hubbub.v1": 1}


def _counted(count: Counter[str], name: str, call: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def counted(events: Any) -> bytes:
        count[name] += 1
        return call(events)

    return counted


async def test_every_client_gets_the_events_after_its_cursor(hub: Hub) -> None:
    """Clients with the same cursor share a read. Each client gets exactly the events that it lacks."""
    await hub.start()
    head = await put(hub, "s1", [f"{number} " for number in range(1, 301)], end=True)
    reads, cursors = watch(hub), [0, 1, 7, 150, 299]
    clients = {after: [await resume(hub, head, after) for _ in range(3)] for after in cursors}
    for after, same in clients.items():
        for client in same:
            await client.until_done()
            assert client.text() == "".join(f"{number} " for number in range(after + 1, 301))
            assert client.frames[-1]["seq"] == 301
    assert sorted(reads.calls) == [("s1", after) for after in cursors]


async def test_each_page_of_a_long_log_is_read_once(hub: Hub) -> None:
    """Clients that connect at the same time share the read, and a later client uses the cached page."""
    await hub.start()
    texts = [f"{number}:".ljust(32 * KiB, "x") for number in range(24)]
    head = await put(hub, "s1", texts, end=True)
    reads = watch(hub)
    clients = await asyncio.gather(*(resume(hub, head) for _ in range(20)))
    await asyncio.gather(*(client.until_done() for client in clients))
    clients.append(await resume(hub, head))
    await clients[-1].until_done()
    assert {client.text() for client in clients} == {"".join(texts)}
    assert reads.calls == [("s1", 0), ("s1", 8), ("s1", 16), ("s1", 24)]


async def test_the_first_page_is_short_and_the_rest_is_not(hub: Hub) -> None:
    """So a client that catches up on a long log gets the first text soon, and the whole log in few frames."""
    await hub.start()
    first, most = hub.limits.first_page_rows, hub.limits.page_rows
    assert first < most
    head = await put(hub, "s", ["x"] * (first + most + 5), end=True)
    reads = watch(hub)
    client = await resume(hub, head)
    await client.until_done()
    assert client.text() == "x" * (first + most + 5)
    assert [after for _, after in reads.calls] == [0, first, first + most]


async def test_a_client_with_stream_false_shares_the_read_but_not_the_encoded_page(hub: Hub) -> None:
    """It gets complete messages, so it cannot use the encoded chunks of other clients."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b ", "c "], end=True)
    reads = watch(hub)
    everything = await resume(hub, head)
    await everything.until_done()
    whole = await hub.connect(f"?sessionId=s1&afterSeq=0&epoch={head.epoch}&stream=false")
    assert (await whole.next())["type"] == "message" and whole.text() == everything.text() == "a b c "
    assert reads.calls == [("s1", 0)]


async def test_a_failed_read_fails_for_all_waiting_clients_and_is_not_cached(hub: Hub) -> None:
    """Each waiting client gets an error frame, loses its connection, and can resume. The next client reads again."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "], end=True)
    reads = watch(hub, gated=True)
    clients = await asyncio.gather(*(resume(hub, head) for _ in range(10)))
    await eventually(
        lambda: sum(len(connection.catchup.lagging_subscriptions) for connection in hub.node.registry.connections) == 10
    )
    _rename(hub, "sessions", "elsewhere")
    reads.gate.set()
    assert [await client.wait_closed() for client in clients] == [1006] * 10
    errors = [(frame["code"], frame["sessionId"]) for client in clients for frame in client.frames]
    assert errors == [("storage_unavailable", "s1")] * 10
    with pytest.raises(StorageUnavailable):
        await hub.node.pages.read(Key("s1"), head.epoch, 0, 3)
    _rename(hub, "elsewhere", "sessions")
    resumed = await resume(hub, head)
    await resumed.until_done()
    assert resumed.text() == "a b "
    assert reads.calls == [("s1", 0)] * 3


def _rename(hub: Hub, old: str, new: str) -> None:
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript(f"PRAGMA legacy_alter_table = ON; ALTER TABLE {old} RENAME TO {new};")
    db.close()


async def test_a_client_that_leaves_during_a_shared_read_does_not_disturb_the_others(hub: Hub) -> None:
    """The client that started the read closes its socket. The other clients get the page from the same read."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "], end=True)
    reads = watch(hub, gated=True)
    first = await resume(hub, head)
    await eventually(lambda: len(reads.calls) == 1)
    others = [await resume(hub, head) for _ in range(9)]
    await eventually(
        lambda: sum(len(connection.catchup.lagging_subscriptions) for connection in hub.node.registry.connections) == 10
    )
    await first.close()
    await eventually(lambda: len(hub.node.registry.connections) == 9)
    reads.gate.set()
    for client in others:
        await client.until_done()
        assert client.text() == "a b "
    assert reads.calls == [("s1", 0)]


async def test_cancelling_one_waiting_task_does_not_cancel_the_shared_read(hub: Hub) -> None:
    """The read belongs to all tasks that wait for it, not to the task that started it."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "])
    reads = watch(hub, gated=True)
    tasks = [asyncio.create_task(hub.node.pages.read(Key("s1"), head.epoch, 0, 2)) for _ in range(3)]
    await eventually(lambda: len(reads.calls) == 1)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    reads.gate.set()
    pages = await asyncio.gather(*tasks[1:])
    assert tasks[0].cancelled() and pages[0] is pages[1] and len(pages[0].events) == 2
    assert reads.calls == [("s1", 0)]


async def test_the_page_cache_stays_within_its_limit(hub: Hub) -> None:
    """Events and encoded bytes count. Pages that do not fit are read again, and each client gets the exact text."""
    await hub.start(kept_page_bytes=700 * KiB)
    texts = [f"{number}:".ljust(32 * KiB, "x") for number in range(64)]
    head = await put(hub, "s1", texts, end=True)
    reads, pages, most = watch(hub), hub.node.pages, 0
    for _ in range(3):
        client = await resume(hub, head)
        while not (await client.next()).get("done"):
            most = max(most, pages.size)
        assert client.text() == "".join(texts)
    cached = list(pages._pages.values())
    assert pages.size == sum(page.size for page in cached) and most <= 700 * KiB
    for page in cached:
        text_size = sum(len(event.body.content) for event in page.events if isinstance(event.body, Chunk))
        assert page.size > text_size + sum(map(len, page.frames.values()))
    assert len(reads.calls) > 9


async def test_clients_share_a_read_even_if_the_cache_is_disabled(hub: Hub) -> None:
    """No page is cached or counted, so a later client reads the log again."""
    await hub.start(kept_page_bytes=0)
    head = await put(hub, "s1", ["a ", "b "], end=True)
    reads = watch(hub, gated=True)
    clients = [await resume(hub, head) for _ in range(5)]
    await eventually(
        lambda: sum(len(connection.catchup.lagging_subscriptions) for connection in hub.node.registry.connections) == 5
    )
    reads.gate.set()
    for client in clients:
        await client.until_done()
    clients.append(await resume(hub, head))
    await clients[-1].until_done()
    assert {client.text() for client in clients} == {"a b "}
    assert reads.calls == [("s1", 0)] * 2 and hub.node.pages.size == 0


async def test_a_page_counts_once_however_often_it_is_read_again(hub: Hub) -> None:
    """A longer page replaces the shorter one, and the size of the shorter one is subtracted."""
    await hub.start()
    for _ in range(5):
        head = await put(hub, "s1", [str(number) for number in range(100)])
        await hub.node.pages.read(Key("s1"), head.epoch, 0, head.seq)
    (page,) = hub.node.pages._pages.values()
    assert hub.node.pages.size == page.size


async def test_the_least_recently_used_page_is_evicted_first(hub: Hub) -> None:
    """A read of a cached page makes it the most recently used one."""
    await hub.start(kept_page_bytes=100 * KiB)
    heads = {name: await put(hub, name, ["x" * 40 * KiB]) for name in "abc"}
    reads = watch(hub)
    for name in "ababacab":
        await hub.node.pages.read(Key(name), heads[name].epoch, 0, 1)
    assert [session for session, _ in reads.calls] == ["a", "b", "c", "b"]


async def test_many_short_pages_are_read_again_as_one_page(hub: Hub) -> None:
    """A client close to the head leaves pages of one event. A client that lacks them all gets one large page."""
    await hub.start()
    for seq in range(1, 65):
        head = await put(hub, "s1", [f"{seq} "])
        await hub.node.pages.read(Key("s1"), head.epoch, seq - 1, seq)
    reads = watch(hub)
    assert await page_ends(hub, head, 64) == [64]
    assert await page_ends(hub, head, 64) == [64]
    head = await put(hub, "s1", ["65 "])
    assert await page_ends(hub, head, 65) == [64, 65]
    assert reads.calls == [("s1", 0), ("s1", 64)]


async def test_a_read_of_a_cached_page_yields_to_the_event_loop(hub: Hub) -> None:
    """So a client whose pages are all cached does not block other tasks."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "])
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    assert turns


async def test_a_cached_page_is_not_used_for_another_epoch(hub: Hub) -> None:
    """A new session with the id of a deleted session shares no page with it."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "])
    reads = watch(hub)
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    for _ in range(2):
        await hub.node.pages.read(Key("s1"), "another", 0, 2)
    await hub.node.pages.read(Key("s1"), head.epoch, 0, 2)
    assert reads.calls == [("s1", 0)] * 3


@pytest.mark.parametrize("early", [True, False])
async def test_retention_during_a_read_resets_only_clients_whose_events_are_deleted(hub: Hub, early: bool) -> None:
    """A client whose cursor lies before the retention floor is reset. A client at the floor gets the next event."""
    await hub.start()
    head = await put(hub, "s1", ["a ", "b "], end=True)
    await asyncio.sleep(0.01)  # later events have a later timestamp: the unit is one millisecond
    edge = int(time() * 1000)
    if early:
        await put(hub, "s1", ["c "])
    reads = watch(hub, gated=True)
    late = await resume(hub, head)
    await eventually(lambda: len(reads.calls) == 1)
    assert await hub.node.log.events.expire(edge, 2**40) == {"s1": 3}  # the session in memory still has the old floor
    if not early:
        await put(hub, "s1", ["c "])
    reads.gate.set()
    assert (await late.next())["code"] == "reset"
    assert hub.node.sessions[Key("s1")].channel.floor == 3
    behind = await resume(hub, head, 3)
    assert (await behind.next())["content"] == "c "


async def test_a_slow_subscriber_of_an_agent_gets_only_the_runs_of_this_agent(hub: Hub, tmp_path: Path) -> None:
    """The hub filters the shared pages of the session for it."""
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
    with faulty(connection.transport, get_write_buffer_size=lambda: 2**30):  # as if its socket were full
        (tmp_path / "gate").touch()
        await eventually(lambda: bool(connection.catchup.lagging_subscriptions))
        await other.send(type="chat", agentId="echo", sessionId="s1", message="hello")
        await other.until(lambda frame: frame["type"] == "run_finished" and frame["agentId"] == "echo")
        await other.find(lambda frame: frame["type"] == "run_finished" and frame["agentId"] == "long")
    connection.transport.resume_direct_writes()
    await listener.until_done()
    assert listener.text() == "one " + "".join(f"{number} " for number in range(200))


async def test_the_page_cache_holds_no_protocol_of_a_single_request(hub: Hub) -> None:
    """A protocol object that exists for one request encodes its own frames, and they are not cached."""
    await hub.start()
    body = {"model": "echo", "sessionId": "s1", "stream": True, "messages": [{"role": "user", "content": "a b"}]}
    async with aiohttp.ClientSession() as http, http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
        assert (await answer.text()).endswith("data: [DONE]\n\n")
    plain = await hub.connect("?sessionId=s1&afterSeq=0")
    await plain.until_done()
    cached = hub.node.pages._pages.values()
    assert cached and {protocol.name for page in cached for protocol in page.frames} <= {"plain"}


async def test_the_page_cache_counts_events_that_are_not_text(hub: Hub) -> None:
    """An event counts with the size of its value."""
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
