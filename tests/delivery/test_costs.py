"""The cost of fan-out in counts, which do not depend on the machine: a regression shows here without a benchmark."""

import asyncio
import gc
import json
import socket
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from support.hub import Hub
from support.sockets import client_frame, frames, open_websocket
from support.waiting import PATIENCE, eventually

from hub.ids import Key
from hub.messages import Body, Chunk, Event, RunFinished
from hub.storage.records import Append

# Yields COUNT words. After each word it sleeps, or waits for `wait` until the outbox is empty, so that each word is
# a separate event.
WORDS = """
import asyncio

wait = None

async def words(message: str):
    count, pause = message.split()
    for number in range(int(count)):
        yield f"{number} "
        if wait is not None:
            await wait()
        elif float(pause):
            await asyncio.sleep(float(pause))
"""
DONE = b'"done":true'
# Limits: the measured counts plus 20 percent. The comments have the measured counts.
CALLS_PER_DELIVERY = 1.2  # 1.0: the write
CALLS_PER_LOOK = 9.7  # 8.1
CALLS_PER_EVENT = 157  # 131
OWN_BYTES_PER_CONNECTION = 3700  # 3080


class Crowd:
    """Raw-socket clients of one session. They read only in read_answers(); until then their sockets buffer the data."""

    def __init__(self, hub: Hub, count: int, session: str = "s") -> None:
        path = f"/api/v1/ws?sessionId={session}"
        self.socks = [open_websocket(hub.port, path) for _ in range(count)]

    def say(self, **command: Any) -> None:
        self.socks[0].sendall(client_frame(json.dumps(command).encode()))

    def read_answers(self) -> list[bytes]:
        """Read from each client to the end of an answer."""
        return [read_answer(sock) for sock in self.socks]

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def read_answer(sock: socket.socket) -> bytes:
    data = b""
    while DONE not in data:
        more = sock.recv(1 << 18)
        assert more, "closed"
        data += more
    return data


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run blocking work in a thread, so that the thread of the event loop does only the work of the hub."""
    return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, work), PATIENCE)


class Calls:
    """Counts the calls of this thread: Python functions and C functions."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Calls":
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: Any, event: str, arg: Any) -> None:
        self.count += event in ("call", "c_call")


async def chat(hub: Hub, clients: int, message: str) -> tuple[list[bytes], int]:
    """Get one answer in a session with *clients*; return the bytes of each client, and the number of calls."""
    crowd = await in_thread(lambda: Crowd(hub, clients))
    try:
        await hub.wait_until_live("s", clients)
        with Calls() as calls:
            crowd.say(type="chat", agentId="words", sessionId="s", message=message)
            answers = await in_thread(crowd.read_answers)
        return answers, calls.count
    finally:
        crowd.close()
        await eventually(lambda: not hub.node.registry.connections)  # the next measurement must not count these closes


async def append(hub: Hub, *bodies: Body) -> Any:
    """Append events in one commit, and wait until they are delivered; return the seq of the first event."""
    result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    hub.node.log.events.append(Append(Key("s"), [Event("main", "r", body) for body in bodies]), result.set_result)
    return await asyncio.wait_for(result, PATIENCE)


async def append_words(hub: Hub, clients: int, count: int) -> int:
    """Append *count* words and a run end for *clients*, each in its own commit; return the number of calls.

    The words bypass the outbox, so the hub does not merge them even on a loaded machine.
    """
    crowd = await in_thread(lambda: Crowd(hub, clients))
    try:
        await hub.wait_until_live("s", clients)
        with Calls() as calls:
            for number in range(count):
                await append(hub, Chunk("m", f"{number} ", number))
            await append(hub, RunFinished("m", "end_turn"))
        assert count_frames(await in_thread(crowd.read_answers), count) == count + 1
        return calls.count
    finally:
        crowd.close()
        await eventually(lambda: not hub.node.registry.connections)


def count_frames(answers: list[bytes], count: int) -> int:
    """Assert that all clients got the same bytes, with all words; return the number of frames of each client."""
    assert len(set(answers)) == 1
    answer_frames = list(frames(answers[0]))
    assert "".join(frame["content"] for frame in answer_frames) == "".join(f"{number} " for number in range(count))
    return len(answer_frames)


@pytest.fixture
async def words(hub: Hub) -> Hub:
    hub.agent("words.py", WORDS)
    return await hub.start()


async def test_each_additional_client_costs_one_write(hub: Hub) -> None:
    """The hub encodes an event once; the only work for each client is the write.

    The difference between 20 and 200 clients is the cost of the clients: the cost of the events cancels out.
    """
    await hub.start()
    await hub.door.upkeep.stop()  # its calls depend on the elapsed time
    await append_words(hub, 1, 1)  # warm up: one-time work is not counted below
    few_calls, many_calls = await append_words(hub, 20, 40), await append_words(hub, 200, 40)
    assert (many_calls - few_calls) / (180 * 41) <= CALLS_PER_DELIVERY


async def test_a_sweep_costs_a_few_calls_for_each_client(hub: Hub) -> None:
    """The periodic check of a client that keeps up."""
    await hub.start()
    await hub.door.upkeep.stop()
    crowd = await in_thread(lambda: Crowd(hub, 100))
    await hub.wait_until_live("s", 100)
    with Calls() as calls:
        await hub.door.upkeep._sweep()
    assert calls.count / 100 <= CALLS_PER_LOOK
    crowd.close()


async def test_a_token_costs_a_bounded_number_of_calls(hub: Hub) -> None:
    """From the yield of the agent to the write, with one client: a frame is one event, one append and one write."""
    hub.agent("words.py", WORDS)
    hub.options["frames_per_second"] = 0
    await hub.start()
    await hub.door.upkeep.stop()
    setattr(sys.modules["hubbub_agents.words"], "wait", lambda: hub.node.sessions[Key("s")].outbox.wait_until_empty())
    answers, calls = await chat(hub, 1, "100 0")
    assert count_frames(answers, 100) == 101
    assert calls / 101 <= CALLS_PER_EVENT


async def test_tokens_of_a_fast_agent_are_merged(words: Hub) -> None:
    """20,000 tokens need few commits and frames: each one has all tokens that came during the one before."""
    before = words.node.log.commit_totals.commits
    answers, _ = await chat(words, 3, "20000 0")
    assert count_frames(answers, 20_000) <= 20_000 / 20
    assert words.node.log.commit_totals.commits - before <= 20_000 / 20


async def test_a_paced_token_is_one_frame_and_less_than_two_commits(words: Hub) -> None:
    """A single session commits once for each token. The hub writes nothing else during an answer."""
    before = words.node.log.commit_totals.commits
    answers, _ = await chat(words, 1, "50 0.02")
    assert count_frames(answers, 50) <= 51
    assert words.node.log.commit_totals.commits - before <= 51 + 4


async def test_a_late_client_gets_an_answer_of_20000_tokens_in_five_frames(hub: Hub) -> None:
    """Each token is a separate event in the log. The hub merges adjacent tokens in each page."""
    await hub.start()
    await hub.node.log.sessions.make(Key("s"))
    words = [Chunk("m", f"{number} ", number) for number in range(20_000)]
    assert await append(hub, *words, RunFinished("m", "end_turn")) == 1
    with closing(await in_thread(lambda: open_websocket(hub.port, "/api/v1/ws?sessionId=s&afterSeq=0"))) as late:
        assert count_frames([await in_thread(lambda: read_answer(late))], 20_000) <= 5


@pytest.mark.exact
async def test_an_idle_connection_needs_little_memory(hub: Hub) -> None:
    """Counts allocations of hub code only: aiohttp and the event loop allocate the rest of the 16 kB."""
    await hub.start()
    warm_up = await in_thread(lambda: Crowd(hub, 20))
    await hub.wait_until_live("s", 20)
    gc.collect()
    tracemalloc.start()
    try:
        crowd = await in_thread(lambda: Crowd(hub, 100))
        await hub.wait_until_live("s", 120)
        gc.collect()
        hub_traces = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, "*/hub/*.py"), tracemalloc.Filter(True, "<attrs generated methods hub.*")]
        )
    finally:
        tracemalloc.stop()
    allocated_bytes = sum(trace.size for trace in hub_traces.traces)
    assert len(hub.node.registry.connections) == 120
    assert allocated_bytes / 100 <= OWN_BYTES_PER_CONNECTION
    crowd.close()
    warm_up.close()
