"""What fan-out costs, in counts that no clock and no neighbour changes: a regression shows here without a benchmark."""

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

# Says so many words, with a pause after each, or until the hub is done with it: then each is an event of its own.
WORDS = """
import asyncio

done = None

async def words(message: str):
    count, pause = message.split()
    for number in range(int(count)):
        yield f"{number} "
        if done is not None:
            await done()
        elif float(pause):
            await asyncio.sleep(float(pause))
"""
DONE = b'"done":true'
# What was counted, and a fifth more.
CALLS_PER_DELIVERY = 1.2  # 1.0: the write
CALLS_PER_LOOK = 9.7  # 8.1
CALLS_PER_EVENT = 157  # 131
OWN_BYTES_PER_CONNECTION = 3700  # 3080


class Crowd:
    """Raw clients of one session that read nothing until they are asked to; their sockets hold what comes."""

    def __init__(self, hub: Hub, count: int, session: str = "s") -> None:
        path = f"/api/v1/ws?sessionId={session}"
        self.socks = [open_websocket(hub.port, path) for _ in range(count)]

    def say(self, **command: Any) -> None:
        self.socks[0].sendall(client_frame(json.dumps(command).encode()))

    def hear(self) -> list[bytes]:
        """Read each to the end of an answer."""
        return [read(sock) for sock in self.socks]

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def read(sock: socket.socket) -> bytes:
    got = b""
    while DONE not in got:
        more = sock.recv(1 << 18)
        assert more, "closed"
        got += more
    return got


async def beside(work: Callable[[], Any]) -> Any:
    """Run what blocks in a thread, so that the loop's own thread does nothing but the hub's work."""
    return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, work), PATIENCE)


class Calls:
    """Counts every call of this thread, of Python and of C."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Calls":
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: Any, event: str, arg: Any) -> None:
        self.count += event in ("call", "c_call")


async def spoken(hub: Hub, clients: int, message: str) -> tuple[list[bytes], int]:
    """Let one session of *clients* hear an answer; return what each heard, and the calls it took the hub's loop."""
    crowd = await beside(lambda: Crowd(hub, clients))
    try:
        await hub.wait_until_live("s", clients)
        with Calls() as calls:
            crowd.say(type="chat", agentId="words", sessionId="s", message=message)
            heard = await beside(crowd.hear)
        return heard, calls.count
    finally:
        crowd.close()
        await eventually(lambda: not hub.node.registry.connections)  # that they leave is not what the next ones cost


async def append(hub: Hub, *bodies: Body) -> Any:
    """Put events into one commit, and wait until they are delivered; return the seq of the first."""
    kept: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    hub.node.log.events.append(Append(Key("s"), [Event("main", "r", body) for body in bodies]), kept.set_result)
    return await asyncio.wait_for(kept, PATIENCE)


async def appended(hub: Hub, clients: int, count: int) -> int:
    """Let *clients* hear so many words and the end, each a commit of its own; return the calls it took the hub's loop.

    What is appended past the outbox is merged by no load of the machine.
    """
    crowd = await beside(lambda: Crowd(hub, clients))
    try:
        await hub.wait_until_live("s", clients)
        with Calls() as calls:
            for number in range(count):
                await append(hub, Chunk("m", f"{number} ", number))
            await append(hub, RunFinished("m", "end_turn"))
        assert exact(await beside(crowd.hear), count) == count + 1
        return calls.count
    finally:
        crowd.close()
        await eventually(lambda: not hub.node.registry.connections)


def exact(heard: list[bytes], count: int) -> int:
    """Check that all heard every word, in the same bytes; return how many frames each got."""
    assert len(set(heard)) == 1
    said = list(frames(heard[0]))
    assert "".join(frame["content"] for frame in said) == "".join(f"{number} " for number in range(count))
    return len(said)


@pytest.fixture
async def words(hub: Hub) -> Hub:
    hub.agent("words.py", WORDS)
    return await hub.start()


async def test_a_client_more_costs_a_write(hub: Hub) -> None:
    """Encoded once, written many: what is done for each client is to write.

    The difference between 20 and 200 clients is what a client costs; what an event costs cancels out.
    """
    await hub.start()
    await hub.door.upkeep.stop()  # what it does for each client is for each second, however long this takes
    await appended(hub, 1, 1)  # what is done once is done
    few_calls, many_calls = await appended(hub, 20, 40), await appended(hub, 200, 40)
    assert (many_calls - few_calls) / (180 * 41) <= CALLS_PER_DELIVERY


async def test_to_look_after_a_client_costs_a_few_calls(hub: Hub) -> None:
    """What is done for each client again and again, while it keeps up."""
    await hub.start()
    await hub.door.upkeep.stop()
    crowd = await beside(lambda: Crowd(hub, 100))
    await hub.wait_until_live("s", 100)
    with Calls() as calls:
        await hub.door.upkeep._sweep()
    assert calls.count / 100 <= CALLS_PER_LOOK
    crowd.close()


async def test_a_token_costs_the_loop_a_bounded_number_of_calls(hub: Hub) -> None:
    """From the agent's yield to the write, with one client: every frame is one event, one append, one write."""
    hub.agent("words.py", WORDS)
    hub.options["frames_per_second"] = 0
    await hub.start()
    await hub.door.upkeep.stop()
    setattr(sys.modules["hubbub_agents.words"], "done", lambda: hub.node.sessions[Key("s")].outbox.wait_until_empty())
    heard, calls = await spoken(hub, 1, "100 0")
    assert exact(heard, 100) == 101
    assert calls / 101 <= CALLS_PER_EVENT


async def test_a_fast_agent_is_merged(words: Hub) -> None:
    """20,000 tokens come in few frames and few commits; each commit and frame carries what came meanwhile."""
    before = words.node.log.commit_totals.commits
    heard, _ = await spoken(words, 3, "20000 0")
    assert exact(heard, 20_000) <= 20_000 / 20
    assert words.node.log.commit_totals.commits - before <= 20_000 / 20


async def test_a_paced_token_is_one_frame_and_less_than_two_commits(words: Hub) -> None:
    """A session alone commits once for each token; nothing else is written while an answer goes on."""
    before = words.node.log.commit_totals.commits
    heard, _ = await spoken(words, 1, "50 0.02")
    assert exact(heard, 50) <= 51
    assert words.node.log.commit_totals.commits - before <= 51 + 4


async def test_an_answer_of_20000_tokens_is_joined_late_in_five_frames(hub: Hub) -> None:
    """Each token is an event of its own in the log; neighbours are joined, page by page."""
    await hub.start()
    await hub.node.log.sessions.make(Key("s"))
    words = [Chunk("m", f"{at} ", at) for at in range(20_000)]
    assert await append(hub, *words, RunFinished("m", "end_turn")) == 1
    with closing(await beside(lambda: open_websocket(hub.port, "/api/v1/ws?sessionId=s&afterSeq=0"))) as late:
        assert exact([await beside(lambda: read(late))], 20_000) <= 5


async def test_an_idle_connection_holds_little(hub: Hub) -> None:
    """What the hub's own code makes for a connection; the rest of its 16 kB is aiohttp's and the loop's."""
    await hub.start()
    warm = await beside(lambda: Crowd(hub, 20))
    await hub.wait_until_live("s", 20)
    gc.collect()
    tracemalloc.start()
    try:
        crowd = await beside(lambda: Crowd(hub, 100))
        await hub.wait_until_live("s", 120)
        gc.collect()
        ours = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, "*/hub/*.py"), tracemalloc.Filter(True, "<attrs generated methods hub.*")]
        )
    finally:
        tracemalloc.stop()
    held = sum(trace.size for trace in ours.traces)
    assert len(hub.node.registry.connections) == 120
    assert held / 100 <= OWN_BYTES_PER_CONNECTION
    crowd.close()
    warm.close()
