"""The log names an agent that blocks the event loop."""

import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import attrs
import pytest
from structlog.testing import capture_logs
from support.packages import add_package
from support.process import HubProcess
from support.waiting import eventually

from hub.node import watchdog

BLOCKS = """
    import time

    def work():
        secret = "hunter2"
        time.sleep(2)

    async def blocks(message: str):
        yield "one "
        work()
        yield "two"
    """


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[HubProcess]:
    hub = HubProcess(tmp_path)
    hub.agent("blocks.py", BLOCKS)
    yield hub
    await hub.kill()


async def test_the_log_names_an_agent_that_blocks_the_loop_once_a_minute(served: HubProcess) -> None:
    """The line has the run, the file and the line numbers, and no values; there is at most one line a minute."""
    await served.start()
    runs = []
    async with aiohttp.ClientSession(served.url) as http:
        for number in range(2):
            chat = {"agentId": "blocks", "message": "hi"}
            async with http.post(f"/api/v1/sessions/s{number}/chat?wait=true", json=chat) as response:
                assert response.status == 200
                runs.append((await response.json())["runId"])
    await eventually(lambda: "the event loop is blocked" in served.log)
    (line,) = [line for line in served.output_lines if "the event loop is blocked" in line]
    assert "agent=blocks" in line and f"run={runs[0]}" in line, line
    assert "agents/blocks.py:6 work < agents/blocks.py:10 blocks" in line and "hunter2" not in line, line


@attrs.define
class Clocks:
    """The clock of the watchdog, and the processor time of its process."""

    seconds: float = 0.0
    processor_seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def process_time(self) -> float:
        return self.processor_seconds


@pytest.mark.parametrize("processor_seconds", [0.1, 4.9])
async def test_a_process_that_was_paused_is_not_blocked(
    monkeypatch: pytest.MonkeyPatch, processor_seconds: float
) -> None:
    """With much processor time, it was: code that holds the lock of the interpreter delays the watchdog, too."""
    clocks = Clocks()
    monkeypatch.setattr(watchdog, "time", clocks)
    monkeypatch.setattr(watchdog, "BLOCKED_SECONDS", 1.0)
    dog = watchdog.Watchdog(find_agent_id=lambda run: "")
    monkeypatch.setattr(watchdog.Watchdog, "_watch", lambda self: None)  # this test calls the checks
    dog.start()
    clocks.seconds += 5
    clocks.processor_seconds += processor_seconds
    with capture_logs() as lines:
        dog._check()
    assert len(lines) == (processor_seconds > 1)
    clocks.seconds += watchdog.CHECK_INTERVAL_SECONDS  # and it is still blocked
    with capture_logs() as more_lines:
        dog._check()
    assert [line["event"] for line in lines + more_lines] == ["the event loop is blocked"]


async def test_the_log_names_the_run_of_an_adapter_that_blocks(served: HubProcess, tmp_path: Path) -> None:
    """An adapter has no file in the agents folder; the blocking call may wait in its own selector."""
    code = """
    import subprocess
    from contextlib import asynccontextmanager
    import attrs

    @attrs.frozen
    class Options:
        pass

    @asynccontextmanager
    async def open(options, place):
        async def answer(run):
            subprocess.run(["sleep", "2"], capture_output=True)
            yield "done"
        yield answer
    """
    packages = tmp_path / "packages"
    add_package(
        packages, "acme-slow", "[hubbub.adapters]\nslow = slow_adapter", {"slow_adapter": textwrap.dedent(code)}
    )
    served.packages = packages
    served.agent("slow.toml", 'adapter = "slow"')
    await served.start()
    async with aiohttp.ClientSession(served.url) as http:
        async with http.post("/api/v1/sessions/s1/chat?wait=true", json={"agentId": "slow", "message": "x"}) as answer:
            assert answer.status == 200, served.log
            run = (await answer.json())["runId"]
    await eventually(lambda: "the event loop is blocked" in served.log)
    (line,) = [line for line in served.output_lines if "the event loop is blocked" in line]
    assert "agent=slow" in line and f"run={run}" in line and "selectors.py" in line, line
