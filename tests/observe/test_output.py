"""A closed output, or one without a reader, blocks neither the hub nor its clients."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.documents import ROOT
from support.hub import AGENTS, Client
from support.process import HubProcess
from support.terminal import terminal
from support.waiting import PATIENCE, eventually

from hub.observe.output import QUEUE_BYTES

LINE = "line 000000000 of the talker\n"
TALKER = '''
"""Prints lines, alternately to both streams. It does not block the loop: on a slow machine the hub would log that."""
import asyncio, sys

async def talker(message: str):
    for number in range(int(message)):
        print(f"line {number:09} of the talker", file=(sys.stdout, sys.stderr)[number % 2])
        if number % 1000 == 0:
            await asyncio.sleep(0)
    print("\\ud800 is half a character")
    sys.stdout.close()
    yield "done"
'''
PARENT = """
import os

async def parent(message: str):
    child = os.fork()
    if not child:
        print("the child speaks")
        os._exit(0)
    os.waitpid(child, 0)
    yield "done"
"""
BROKEN = """
async def broken(message: str):
    yield "begun "
    raise LookupError("for the log")
"""
CTRL_S, CTRL_Q = "\x13", "\x11"


def write_agents(hub: HubProcess) -> None:
    for name, code in (AGENTS | {"talker": TALKER, "parent": PARENT, "broken": BROKEN}).items():
        hub.agent(f"{name}.py", code)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    write_agents(running)
    try:
        yield running
    finally:
        running.is_read.set()
        await running.kill()


async def answer(url: str, agent: str, message: str = "x") -> str:
    """Return the stop reason of one answer; check afterwards that the hub is alive."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/api/v1/ws", protocols=("hubbub.v1",)) as ws:
        client = Client(http, ws)
        await client.send(type="chat", agentId=agent, message=message)
        end = await client.until_type("run_finished")
        async with asyncio.timeout(PATIENCE), http.get(f"{url}/health") as response:
            assert response.status == 200
    return str(end["stopReason"])


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"line (\d+) of the talker\n", text)]


async def test_the_output_of_agents_keeps_its_order(hub: HubProcess) -> None:
    """Both streams are one file here. A forked child can print; a lone surrogate or close() does no harm."""
    await hub.start()
    assert await answer(hub.url, "talker", "100") == "end_turn"
    assert await answer(hub.url, "parent") == "end_turn"
    hub.signal(signal.SIGTERM)
    assert await hub.wait_until_ended() == 0
    assert numbers(hub.log) == [*range(100)]
    assert "the child speaks\n" in hub.log and "\\ud800 is half a character\n" in hub.log
    assert hub.log.endswith("Stopped.\n")


async def test_a_closed_output_pipe_does_not_end_answers(hub: HubProcess) -> None:
    """Failures are logged and agents print as before, and SIGTERM exits with 0."""
    await hub.start()
    hub.close_output()
    for agent, reason in (("broken", "error"), ("talker", "end_turn"), ("broken", "error"), ("echo", "end_turn")):
        assert await answer(hub.url, agent, "1000") == reason
    hub.signal(signal.SIGTERM)
    assert await hub.wait_until_ended() == 0


@pytest.mark.exact
async def test_an_output_pipe_without_a_reader_blocks_nothing(hub: HubProcess) -> None:
    """Output beyond the queue is dropped; when the pipe is read again, one line gives the number of dropped lines."""
    await hub.start()
    hub.is_read.clear()
    count = 2 * QUEUE_BYTES // len(LINE)
    assert await answer(hub.url, "talker", str(count)) == "end_turn"
    assert await answer(hub.url, "broken") == "error"  # its line is dropped, too
    hub.is_read.set()
    await eventually(lambda: "output was dropped" in hub.log)
    assert await answer(hub.url, "broken") == "error"
    hub.signal(signal.SIGTERM)
    assert await hub.wait_until_ended() == 0
    before, gap = re.split(r"(?<=\n)(?=[^\n]*output was dropped)", hub.log)
    printed = numbers(before)
    assert printed == [*range(len(printed))] and len(printed) * len(LINE) > QUEUE_BYTES / 2
    # The hub also dropped the lone surrogate, the log line of the failure and its traceback of four lines.
    assert f"lines={count - len(printed) + 6}" in re.sub("\x1b\\[[0-9;]*m", "", gap)
    assert gap.count("agent failed") == 1


async def test_the_hub_exits_while_nobody_reads_its_output(hub: HubProcess) -> None:
    await hub.start()
    hub.is_read.clear()
    assert await answer(hub.url, "talker", str(2 * QUEUE_BYTES // len(LINE))) == "end_turn"
    hub.signal(signal.SIGTERM)
    await eventually(lambda: not hub.running)
    hub.is_read.set()
    assert await hub.wait_until_ended() == 0


async def test_ctrl_s_stops_the_terminal_and_not_the_hub(tmp_path: Path) -> None:
    """Ctrl-Q shows the lines that were logged in between."""
    write_agents(HubProcess(tmp_path))
    async with terminal(tmp_path, "serve", "--port", "0", "--host", "127.0.0.1") as tty:
        text = await tty.until("Press Ctrl-C to stop.")
        port = re.search(r"http://127\.0\.0\.1:(\d+)", text)
        assert port
        tty.type(CTRL_S)
        for _ in range(3):
            assert await answer(f"http://127.0.0.1:{port[1]}", "broken") == "error"
        assert "agent failed" not in tty.text
        tty.type(CTRL_Q)
        await tty.until("agent failed")
        tty.type("\x03")
        assert await tty.wait_until_ended() == 0


async def test_a_closed_terminal_shuts_the_hub_down_in_order(tmp_path: Path) -> None:
    write_agents(HubProcess(tmp_path))
    async with terminal(tmp_path, "serve", "--port", "0") as tty:
        await tty.until("Press Ctrl-C to stop.")
        tty.hang_up()
        assert await tty.wait_until_ended() == 0


def test_a_closed_standard_output_is_never_another_file(tmp_path: Path) -> None:
    """With `>&- 2>&-`, descriptors 1 and 2 are the null device, and not the file of the log or a socket."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "mark.py").write_text(
        "import os, signal\n"
        "names = [os.readlink(f'/proc/self/fd/{number}') for number in (1, 2)]\n"
        "open('names', 'w').write(' '.join(names))\n"
        "print('to nobody')\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "def mark(message: str): return 'x'\n"
    )
    command = (sys.executable, "-m", "hub", "serve", "--port", "0")
    process = subprocess.run(
        ("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=PATIENCE,
    )
    assert process.returncode == 0
    assert (tmp_path / "names").read_text() == "/dev/null /dev/null"
