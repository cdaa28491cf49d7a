"""The states of a run, in a hub that is used as clients use it: each edge that is drawn in ActiveRun, and no other."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.sessions.run import STATE_EDGES, ActiveRun, RunState
from hub.storage.log import AppendCallback
from hub.storage.records import Append

# Says "one ", and goes on until the file of its message is there, also where it is cancelled; but not TIMES times.
DEAF = """
import asyncio, pathlib

async def deaf(message: str):
    yield "one "
    times = 0
    while not pathlib.Path(message).exists():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            times += 1
            if times == TIMES:
                raise
"""
AGAIN = """
import asyncio
from hub import agent

@agent(restartable=True)
async def again(message: str):
    yield "one "
    await asyncio.Event().wait()
"""
Path = list[RunState]
QUEUED, STARTING, RUNNING, ENDING, ENDED = RunState


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """The states through which each run goes, by its id; the first edge that is not drawn fails the test."""
    paths: dict[str, Path] = {}
    enter = ActiveRun._enter

    def entered(run: ActiveRun, state: RunState) -> None:
        paths.setdefault(run.id, [run.state]).append(state)
        enter(run, state)

    monkeypatch.setattr(ActiveRun, "_enter", entered)
    yield paths
    for path in paths.values():
        assert all(after in STATE_EDGES[before] for before, after in zip(path, path[1:])), path


class HeldLog:
    """The hub's log, where the appends of the session s1 are held back until they are let through or refused."""

    def __init__(self, hub: Hub) -> None:
        self.log, self.whole = hub.node.log.events, hub.node.log.events.append
        self.appends: asyncio.Queue[tuple[Append, AppendCallback]] = asyncio.Queue()
        self.log.append = self.hold  # type: ignore[method-assign]

    def hold(self, append: Append, done: AppendCallback) -> None:
        self.appends.put_nowait((append, done)) if append.key == "s1" else self.whole(append, done)

    async def let_through(self) -> None:
        """Commit the append that is held, or the next one."""
        self.whole(*await asyncio.wait_for(self.appends.get(), PATIENCE))

    async def let_go(self, refuse: bool = False) -> None:
        """Refuse the append that is held, or let it through, and hold nothing any more."""
        append, done = await asyncio.wait_for(self.appends.get(), PATIENCE)
        self.log.append = self.whole  # type: ignore[method-assign]
        done(StorageUnavailable("disk full")) if refuse else self.whole(append, done)


async def start(hub: Hub, times: int = 2, **limits: Any) -> Client:
    hub.agent("deaf.py", DEAF.replace("TIMES", str(times)))
    hub.agent("again.py", AGAIN)
    await hub.start(**limits)
    client = await hub.connect("?sessionId=s1", extended=True)
    return client


async def chat(hub: Hub, client: Client, agent: str = "gated", gate: str = "gate", **more: Any) -> None:
    await client.send(type="chat", agentId=agent, sessionId="s1", message=str(hub.folder / gate), **more)


async def cancel(hub: Hub) -> None:
    """Stop what the session answers, by a client of its own: the one that chats may wait for its answer."""
    client = await hub.connect(extended=True)
    await client.send(type="cancel", sessionId="s1")
    await client.until_type("cancelling")


def only(hub: Hub) -> ActiveRun:
    (run,) = hub.node.sessions[Key("s1")].runs.values()
    return run


async def test_an_answer_goes_through_all_states(hub: Hub, paths: dict[str, Path]) -> None:
    """It starts when its start is given to the log, runs when that is kept, and ends when its code has."""
    client = await start(hub)
    held = HeldLog(hub)
    await chat(hub, client, "echo")
    await eventually(lambda: not held.appends.empty())
    assert only(hub).state is STARTING
    await held.let_go()
    end = await client.until_done()
    assert paths[end["runId"]] == [QUEUED, STARTING, RUNNING, ENDED]


async def test_a_run_that_waits_starts_when_the_one_before_has_ended(hub: Hub, paths: dict[str, Path]) -> None:
    client = await start(hub)
    for _ in range(2):
        await chat(hub, client)
        await client.until_type("accepted")
    (second,) = hub.node.sessions[Key("s1")].queue
    assert (second.state, only(hub).state) == (QUEUED, RUNNING)
    (hub.folder / "gate").touch()
    await client.until_done()
    assert (await client.until_done())["runId"] == second.id
    assert paths[second.id] == [QUEUED, STARTING, RUNNING, ENDED]


async def test_a_run_that_is_stopped_while_it_waits(hub: Hub, paths: dict[str, Path]) -> None:
    """It never starts."""
    client = await start(hub)
    for _ in range(2):
        await chat(hub, client)
        await client.until_type("accepted")
    (second,) = hub.node.sessions[Key("s1")].queue
    await client.send(type="cancel", sessionId="s1", runId=second.id)
    assert (await client.until_done())["runId"] == second.id
    assert paths[second.id] == [QUEUED, ENDED]


async def test_a_run_whose_agent_has_gone_while_it_waited(hub: Hub, paths: dict[str, Path]) -> None:
    """It never starts."""
    client = await start(hub)
    await chat(hub, client)
    await chat(hub, client, "echo", ifBusy="enqueue")
    await eventually(lambda: "s1" in hub.node.sessions and hub.node.sessions[Key("s1")].queue)
    (second,) = hub.node.sessions[Key("s1")].queue
    (hub.folder / "agents" / "echo.py").unlink()
    await hub.node.agents.reload_changed_agents()
    (hub.folder / "gate").touch()
    end = await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == second.id)
    assert end["stopReason"] == "error" and paths[second.id] == [QUEUED, ENDED]


async def test_a_run_that_is_stopped_before_its_start_is_kept(hub: Hub, paths: dict[str, Path]) -> None:
    """Its code is never called, and it gives its place back."""
    client = await start(hub)
    held = HeldLog(hub)
    await chat(hub, client)
    await eventually(lambda: not held.appends.empty())
    run = only(hub)
    await cancel(hub)
    await held.let_go()
    assert (await client.until_done())["stopReason"] == "cancelled" and client.text() == ""
    assert paths[run.id] == [QUEUED, STARTING, ENDED]
    assert hub.node.agents.get("gated").running_answers == 0


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_run_whose_chat_is_refused(hub: Hub, paths: dict[str, Path], is_cancelled: bool) -> None:
    """It never was: it has no end, also where somebody stopped it meanwhile."""
    client = await start(hub)
    held = HeldLog(hub)
    await chat(hub, client)
    await eventually(lambda: not held.appends.empty())
    run = only(hub)
    if is_cancelled:
        await cancel(hub)
    await held.let_go(refuse=True)
    assert (await client.until_type("error"))["code"] == "storage_unavailable"
    assert paths[run.id] == [QUEUED, STARTING, ENDED] and hub.node.agents.get("gated").running_answers == 0
    await chat(hub, client, "echo")
    await client.until_done()
    assert {frame.get("runId") for frame in client.frames} & {run.id} == set()


async def test_a_run_that_is_stopped_while_its_code_runs(hub: Hub, paths: dict[str, Path]) -> None:
    """It ends when its code has; a second stop changes nothing."""
    client = await start(hub, grace_seconds=1e9)
    await chat(hub, client, "deaf")
    await client.until_type("stream")
    run = only(hub)
    for _ in range(2):
        await client.send(type="cancel", sessionId="s1")
        await client.until_type("cancelling")
        assert run.state is ENDING
    (hub.folder / "gate").touch()
    assert (await client.until_done())["stopReason"] == "cancelled"
    assert paths[run.id] == [QUEUED, STARTING, RUNNING, ENDING, ENDED]


async def test_a_run_whose_code_ignores_its_cancel(hub: Hub, paths: dict[str, Path]) -> None:
    """It ends when its grace is over, and not again when its code has ended."""
    client = await start(hub, times=3, grace_seconds=0.05)
    await chat(hub, client, "deaf")
    await client.until_type("stream")
    run = only(hub)
    await client.send(type="cancel", sessionId="s1")
    assert (await client.until_done())["stopReason"] == "cancelled"
    deaf = hub.node.agents.get("deaf")
    assert deaf.running_answers == 1
    (hub.folder / "gate").touch()
    await eventually(lambda: deaf.running_answers == 0)
    assert paths[run.id] == [QUEUED, STARTING, RUNNING, ENDING, ENDED]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_run_that_is_left_to_the_next_start(hub: Hub, paths: dict[str, Path], begun: bool) -> None:
    """It has no end, and its code is not called by a start that is kept only now; the next hub starts it."""
    client = await start(hub)
    held = HeldLog(hub)
    await chat(hub, client, "again")
    await eventually(lambda: not held.appends.empty())
    run = only(hub)
    if begun:
        await held.let_go()
        await client.until_type("stream")
    hub.node.drain()
    hub.node.sessions[Key("s1")].schedule.drain()
    if not begun:
        await held.let_go()
        await client.until_type("run_started")
    assert paths.pop(run.id) == [QUEUED, STARTING, *([RUNNING] if begun else []), ENDED]
    assert client.text() == ("one " if begun else "")
    await hub.stop()
    await hub.start()
    client = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
    await client.until(lambda frame: frame["type"] == "stream" and frame["seq"] > 4)
    assert paths[run.id] == [QUEUED, STARTING, RUNNING] and only(hub).state is RUNNING


async def test_a_started_run_of_an_earlier_process(hub: Hub, paths: dict[str, Path]) -> None:
    """It ends without its code being called."""
    client = await start(hub)
    await chat(hub, client)
    await client.until_type("stream")
    run = only(hub)
    run.suspend()  # as a killed process would: no end is written
    hub.node.sessions[Key("s1")].runs.clear()
    assert paths.pop(run.id) == [QUEUED, STARTING, RUNNING, ENDED]
    await hub.stop()
    await hub.start()
    client = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
    assert (await client.until_done())["stopReason"] == "aborted"
    assert paths[run.id] == [QUEUED, ENDED]


async def test_the_silence_limit_does_not_count_while_output_is_not_logged(hub: Hub) -> None:
    """Another run falls silent meanwhile and ends; when the text is kept, silence counts again."""
    client = await start(hub, silence_seconds=0.2)
    held = HeldLog(hub)
    await chat(hub, client)
    await held.let_through()
    await eventually(lambda: not held.appends.empty())
    await client.send(type="chat", agentId="gated", sessionId="s2", message=str(hub.folder / "never"))
    end = await client.until_done()
    assert (end["sessionId"], end["stopReason"]) == ("s2", "timeout") and only(hub).state is RUNNING
    await held.let_go()
    end = await client.until_done()
    assert (end["sessionId"], end["stopReason"]) == ("s1", "timeout") and client.text(end["runId"]) == "one "
