"""The hub's output helps the author of an agent to find errors, and clients see none of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.process import HubProcess
from support.sse import post
from support.waiting import eventually

HELPER = """
import logging

def divide(number, secret):
    return number / 0

def note(text):
    logging.getLogger(__name__).info(text)
"""
FAILS = """
from _helper import divide

def fails(message):
    secret = "hunter" + "2"
    yield "said "
    divide(7, secret)
"""
GROUP = """
import asyncio
from _helper import divide

async def group(message):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(divide, 7, "hunter" + "2"))
    yield "not said"
"""


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    running.agent("_helper.py", HELPER)
    yield running
    await running.kill()


async def ask(process: HubProcess, agent: str, message: str = "go") -> dict[str, str]:
    """Return the answer of an agent in the session s1."""
    async with aiohttp.ClientSession(f"{process.url}/api/v1/") as http:
        _, said = await post(http, "sessions/s1/chat?wait=true", {"agentId": agent, "message": message})
    return dict(said)


@pytest.mark.parametrize("kind", ["def", "async def", "group"])
async def test_a_fault_is_logged_with_the_frames_of_the_author(process: HubProcess, kind: str) -> None:
    """With the ids of the run, without the hub's frames, and without values. Clients get none of it."""
    process.agent("fails.py", GROUP.replace("group", "fails") if kind == "group" else FAILS.replace("def ", f"{kind} "))
    process.agent("through.py", "async def through(run):\n    yield await run.call('fails', '')")
    await process.start()
    for agent in ("fails", "through"):
        said = await ask(process, agent)
        assert "hunter2" not in str(said) and "divi" not in str(said) and "_helper" not in str(said)
        await eventually(lambda: "ZeroDivisionError: division by zero" in process.log)
        line = next(one for one in process.output_lines if "agent failed" in one)
        assert "session=s1" in line and f"run={said['runId']}" in line and "agent=fails" in line
        shown = process.log[process.log.index("Traceback") :]
        assert 'agents/fails.py", line ' in shown and 'agents/_helper.py", line 5, in divide' in shown
        assert "hunter2" not in process.log
        assert "/hub/" not in shown, shown
        process.output_lines.clear()


STARRED = """
async def starred(message):
    try:
        raise ExceptionGroup("two", [ValueError("one"), KeyError("other")])
    except* KeyError:
        raise RuntimeError("again")
    yield "not said"
"""


async def test_a_group_without_a_frame_of_the_author_shows_none_of_the_hub(process: HubProcess) -> None:
    """As Python makes one of what `except*` leaves and raises."""
    process.agent("starred.py", STARRED)
    await process.start()
    await ask(process, "starred")
    await eventually(lambda: "RuntimeError: again" in process.log)
    assert "/hub/" not in process.log[process.log.index("Traceback") :]


ODD = """
class Odd(SyntaxError):
    text = lineno = end_offset = property(lambda self: 1 / 0)

async def odd(message):
    yield "said "
    raise Odd("x")
"""


async def test_a_fault_whose_traceback_cannot_be_made_ends_its_run_alone(process: HubProcess) -> None:
    """The output says that the traceback cannot be shown; the hub goes on."""
    process.agent("odd.py", ODD)
    await process.start()
    assert (await ask(process, "odd"))["stopReason"] == "error"
    await eventually(lambda: "the traceback cannot be shown: ZeroDivisionError" in process.log)


LOGS = """
import asyncio, logging, threading
from concurrent.futures import ThreadPoolExecutor
from _helper import note
from hub import Run

log = logging.getLogger(__name__)
log.info("loaded %s", "once")

class Bad:
    def __str__(self):
        raise LookupError("no text")

async def task():
    log.info("in a task")

async def logs(run: Run):
    log.debug("too small")
    log.info("in a run of %s", run.agent)
    logging.warning("by the root\\n2026-01-01 00:00:00 [info     ] forged\\x1b[31m")
    logging.info("info by the root")
    note("by a helper")
    await asyncio.to_thread(log.info, "in a thread")
    await asyncio.to_thread(logging.info, "pooled")
    await asyncio.create_task(task())
    log.log(25, "between two levels")
    log.info("one %s of %d", "two")
    log.info("bad %s", Bad())
    log.info(Bad())
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("it failed")
    yield run.id + await run.call("plain", "")
"""
PLAIN = """
import logging

def plain(run):
    logging.info("in the thread of a plain function")
    yield " "
"""
WANTED = {
    "loaded once": "",
    "in a run of logs": "logs",
    "by the root": "logs",
    "info by the root": "logs",
    "by a helper": "logs",
    "in a thread": "logs",
    "pooled": "logs",
    "in a task": "logs",
    "between two levels": "logs",
    "one %s of %d": "logs",
    "bad %s": "logs",
    "a message that is not text": "logs",
    "it failed": "logs",
    "in the thread of a plain function": "plain",
}


async def test_what_an_agent_logs_comes_with_the_ids_of_its_run(process: HubProcess) -> None:
    """From INFO on, also in threads and tasks. No line looks like one of the hub's, and no record raises."""
    process.agent("logs.py", LOGS)
    process.agent("plain.py", PLAIN)
    await process.start()
    run = (await ask(process, "logs"))["content"].strip()
    await eventually(lambda: all(text in process.log for text in (*WANTED, "division by zero")))
    for text, agent in WANTED.items():
        (line,) = [one for one in process.output_lines if f"] {text} " in one or f"] {text}\n" in one]
        if agent and text != "by the root":  # the ids stand behind its last line
            assert "session=s1" in line and f"run={run}" in line and f"agent={agent}" in line, line
    assert "too small" not in process.log and "\x1b" not in process.log
    assert not any(line.startswith("2026-01-01") for line in process.output_lines)
    assert 'logs.py", line 31, in logs' in process.log and "Logging error" not in process.log
    assert "TypeError at logs.py:27" in process.log and "LookupError at logs.py:28" in process.log


async def test_an_answer_without_a_session_logs_with_its_id(process: HubProcess) -> None:
    """An answer for an OpenAI client."""
    process.agent("logs.py", LOGS)
    process.agent("plain.py", PLAIN)
    await process.start()
    body = {"model": "logs", "messages": [{"role": "user", "content": "go"}]}
    async with aiohttp.ClientSession(f"{process.url}/v1/") as http:
        _, said = await post(http, "chat/completions", body)
    await eventually(lambda: "it failed" in process.log)
    (line,) = [line for line in process.output_lines if "pooled" in line]
    assert f"run={said['choices'][0]['message']['content'].strip()}" in line


LIBRARY = """
import logging

def speak():
    logging.getLogger(__name__).info("below warning")
    logging.getLogger(__name__).warning("a warning")
"""


async def test_what_libraries_log_below_warning_is_not_shown(process: HubProcess, tmp_path: Path) -> None:
    """As without the hub. Records of the author's own loggers are shown, at the level that the author set."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "some_library.py").write_text(LIBRARY)
    process.packages = packages
    code = "import logging, some_library\nlogging.getLogger(__name__).setLevel(10)\n\nasync def uses(message):\n"
    code += "    some_library.speak()\n    logging.getLogger(__name__).debug('own debug')\n    yield 'said'"
    process.agent("uses.py", code)
    await process.start()
    said = await ask(process, "uses")
    await eventually(lambda: "own debug" in process.log)
    (line,) = [line for line in process.output_lines if "a warning" in line]
    assert "[some_library]" in line and f"run={said['runId']}" in line
    assert "below warning" not in process.log
