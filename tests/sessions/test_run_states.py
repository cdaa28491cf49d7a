"""The states of a run, in a hub with real clients: exactly the edges that are documented in ActiveRun."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.sessions.run import ActiveRun
from hub.sessions.run_states import STATE_EDGES, RunState
from hub.storage.log import AppendCallback
from hub.storage.records import Append

# Yields "one ", and waits for the file named by the message. It ignores all cancels before the one of number TIMES.
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
    """The states of each run in order, by its id. An undocumented edge fails the test."""
    paths: dict[str, Path] = {}
    enter = ActiveRun._enter

    def record(run: ActiveRun, state: RunState) -> None:
        paths.setdefault(run.id, [run.state]).append(state)
        enter(run, state)

    monkeypatch.setattr(ActiveRun, "_enter", record)
    yield paths
    for path in paths.values():
        assert all(after in STATE_EDGES[before] for before, after in zip(path, path[1:])), path


class HeldLog:
    """The log of a hub. The appends of the session s1 wait until the test commits or refuses them."""

    def __init__(self, hub: Hub) -> None:
        self.log, self.original = hub.node.log.events, hub.node.log.events.append
        self.appends: asyncio.Queue[tuple[Append, AppendCallback]] = asyncio.Queue()
        self.log.append = self.hold  # type: ignore[method-assign]

    def hold(self, append: Append, done: AppendCallback) -> None:
        self.appends.put_nowait((append, done)) if append.key == "s1" else self.original(append, done)

    async def commit(self) -> None:
        """Commit the waiting append, or the next one."""
        self.original(*await asyncio.wait_for(self.appends.get(), PATIENCE))

    async def release(self, refuse: bool = False) -> None:
        """Commit or refuse the waiting append, or the next one; later appends do not wait."""
        append, done = await asyncio.wait_for(self.appends.get(), PATIENCE)
        self.log.append = self.original  # type: ignore[method-assign]
        done(StorageUnavailable("disk full")) if refuse else self.original(append, done)


async def start(hub: Hub, times: int = 2, **limits: Any) -> Client:
    hub.agent("deaf.py", DEAF.replace("TIMES", str(times)))
    hub.agent("again.py", AGAIN)
    await hub.start(**limits)
    client = await hub.connect("?sessionId=s1", extended=True)
    return client


async def chat(hub: Hub, client: Client, agent: str = "gated", gate: str = "gate", **more: Any) -> None:
    await client.send(type="chat", agentId=agent, sessionId="s1", message=str(hub.folder / gate), **more)


async def cancel(hub: Hub) -> None:
    """Cancel the answers of the session, by another client: the first client may wait for the answer to its chat."""
    client = await hub.connect(extended=True)
    await client.send(type="cancel", sessionId="s1")
    await client.until_type("cancelling")


def only_run(hub: Hub) -> ActiveRun:
    (run,) = hub.node.sessions[Key("s1")].active_runs.values()
    return run


async def test_an_answer_goes_through_all_states(hub: Hub, paths: dict[str, Path]) -> None:
    """STARTING during the commit of its start, RUNNING after the commit, ENDED when its code has ended."""
    client = await start(hub)
    held_log = HeldLog(hub)
    await chat(hub, client, "echo")
    await eventually(lambda: not held_log.appends.empty())
    assert only_run(hub).state is STARTING
    await held_log.release()
    end = await client.until_done()
    assert paths[end["runId"]] == [QUEUED, STARTING, RUNNING, ENDED]


async def test_a_queued_run_starts_when_the_run_before_it_has_ended(hub: Hub, paths: dict[str, Path]) -> None:
    client = await start(hub)
    for _ in range(2):
        await chat(hub, client)
        await client.until_type("accepted")
    (second,) = hub.node.sessions[Key("s1")].queued_runs
    assert (second.state, only_run(hub).state) == (QUEUED, RUNNING)
    (hub.folder / "gate").touch()
    await client.until_done()
    assert (await client.until_done())["runId"] == second.id
    assert paths[second.id] == [QUEUED, STARTING, RUNNING, ENDED]


async def test_a_run_that_is_cancelled_in_the_queue_never_starts(hub: Hub, paths: dict[str, Path]) -> None:
    """Its states are QUEUED and ENDED."""
    client = await start(hub)
    for _ in range(2):
        await chat(hub, client)
        await client.until_type("accepted")
    (second,) = hub.node.sessions[Key("s1")].queued_runs
    await client.send(type="cancel", sessionId="s1", runId=second.id)
    assert (await client.until_done())["runId"] == second.id
    assert paths[second.id] == [QUEUED, ENDED]


async def test_a_queued_run_whose_agent_was_removed_never_starts(hub: Hub, paths: dict[str, Path]) -> None:
    """It ends with an error when it could start."""
    client = await start(hub)
    await chat(hub, client)
    await chat(hub, client, "echo", ifBusy="enqueue")
    await eventually(lambda: "s1" in hub.node.sessions and hub.node.sessions[Key("s1")].queued_runs)
    (second,) = hub.node.sessions[Key("s1")].queued_runs
    (hub.folder / "agents" / "echo.py").unlink()
    await hub.node.agents.reload_changed_agents()
    (hub.folder / "gate").touch()
    end = await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == second.id)
    assert end["stopReason"] == "error" and paths[second.id] == [QUEUED, ENDED]


async def test_a_run_that_is_cancelled_during_the_commit_of_its_start_runs_no_code(
    hub: Hub, paths: dict[str, Path]
) -> None:
    """It frees its slot."""
    client = await start(hub)
    held_log = HeldLog(hub)
    await chat(hub, client)
    await eventually(lambda: not held_log.appends.empty())
    run = only_run(hub)
    await cancel(hub)
    await held_log.release()
    assert (await client.until_done())["stopReason"] == "cancelled" and client.text() == ""
    assert paths[run.id] == [QUEUED, STARTING, ENDED]
    assert hub.node.agents.get_working("gated").running_answers == 0


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_run_whose_chat_the_log_refuses_has_no_events(
    hub: Hub, paths: dict[str, Path], is_cancelled: bool
) -> None:
    """It has no end, also if it was cancelled during the commit."""
    client = await start(hub)
    held_log = HeldLog(hub)
    await chat(hub, client)
    await eventually(lambda: not held_log.appends.empty())
    run = only_run(hub)
    if is_cancelled:
        await cancel(hub)
    await held_log.release(refuse=True)
    assert (await client.until_type("error"))["code"] == "storage_unavailable"
    assert paths[run.id] == [QUEUED, STARTING, ENDED] and hub.node.agents.get_working("gated").running_answers == 0
    await chat(hub, client, "echo")
    await client.until_done()
    assert {frame.get("runId") for frame in client.frames} & {run.id} == set()


async def test_a_cancelled_run_ends_when_its_code_has_ended(hub: Hub, paths: dict[str, Path]) -> None:
    """A second cancel changes nothing."""
    client = await start(hub, grace_seconds=1e9)
    await chat(hub, client, "deaf")
    await client.until_type("stream")
    run = only_run(hub)
    for _ in range(2):
        await client.send(type="cancel", sessionId="s1")
        await client.until_type("cancelling")
        assert run.state is ENDING
    (hub.folder / "gate").touch()
    assert (await client.until_done())["stopReason"] == "cancelled"
    assert paths[run.id] == [QUEUED, STARTING, RUNNING, ENDING, ENDED]


async def test_a_run_whose_code_ignores_a_cancel_ends_after_the_grace_time(hub: Hub, paths: dict[str, Path]) -> None:
    """The later end of its code changes nothing."""
    client = await start(hub, times=3, grace_seconds=0.05)
    await chat(hub, client, "deaf")
    await client.until_type("stream")
    run = only_run(hub)
    await client.send(type="cancel", sessionId="s1")
    assert (await client.until_done())["stopReason"] == "cancelled"
    deaf = hub.node.agents.get_working("deaf")
    assert deaf.running_answers == 1
    (hub.folder / "gate").touch()
    await eventually(lambda: deaf.running_answers == 0)
    assert paths[run.id] == [QUEUED, STARTING, RUNNING, ENDING, ENDED]


@pytest.mark.parametrize("has_started", [False, True])
async def test_a_suspended_run_is_started_again_by_the_next_hub(
    hub: Hub, paths: dict[str, Path], has_started: bool
) -> None:
    """A draining hub writes no end for it, and does not call its code if its start was not committed before."""
    client = await start(hub)
    held_log = HeldLog(hub)
    await chat(hub, client, "again")
    await eventually(lambda: not held_log.appends.empty())
    run = only_run(hub)
    if has_started:
        await held_log.release()
        await client.until_type("stream")
    hub.node.drain()
    hub.node.sessions[Key("s1")].schedule.drain()
    if not has_started:
        await held_log.release()
        await client.until_type("run_started")
    assert paths.pop(run.id) == [QUEUED, STARTING, *([RUNNING] if has_started else []), ENDED]
    assert client.text() == ("one " if has_started else "")
    await hub.stop()
    await hub.start()
    client = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
    await client.until(lambda frame: frame["type"] == "stream" and frame["seq"] > 4)
    assert paths[run.id] == [QUEUED, STARTING, RUNNING] and only_run(hub).state is RUNNING


async def test_a_started_run_of_an_earlier_process_is_aborted(hub: Hub, paths: dict[str, Path]) -> None:
    """The hub does not call its code."""
    client = await start(hub)
    await chat(hub, client)
    await client.until_type("stream")
    run = only_run(hub)
    run.suspend()  # as after a kill: no end is written
    hub.node.sessions[Key("s1")].active_runs.clear()
    assert paths.pop(run.id) == [QUEUED, STARTING, RUNNING, ENDED]
    await hub.stop()
    await hub.start()
    client = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
    assert (await client.until_done())["stopReason"] == "aborted"
    assert paths[run.id] == [QUEUED, ENDED]


async def test_the_silence_limit_does_not_count_while_output_is_not_logged(hub: Hub) -> None:
    """It counts again after the commit. Meanwhile it ends another run."""
    client = await start(hub, silence_seconds=0.2)
    held_log = HeldLog(hub)
    await chat(hub, client)
    await held_log.commit()
    await eventually(lambda: not held_log.appends.empty())
    await client.send(type="chat", agentId="gated", sessionId="s2", message=str(hub.folder / "never"))
    end = await client.until_done()
    assert (end["sessionId"], end["stopReason"]) == ("s2", "timeout") and only_run(hub).state is RUNNING
    await held_log.release()
    end = await client.until_done()
    assert (end["sessionId"], end["stopReason"]) == ("s1", "timeout") and client.text(end["runId"]) == "one "
