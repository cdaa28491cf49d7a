"""Log lines as text and as JSON, from a level on, with the records of Python's `logging`."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from support.documents import ROOT
from support.waiting import PATIENCE

from hub.observe.logging import log_to_stderr

pytestmark = pytest.mark.usefixtures("restored_logging")

# A future whose exception nobody has retrieved. Python frees it at the exit, and asyncio then logs it.
LOST_FUTURE = """
import asyncio, gc
from hub.observe.logging import log_to_stderr

log_to_stderr()
gc.disable()

async def lose():
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("lost"))
    cycle = [future]
    cycle.append(cycle)

asyncio.run(lose())
"""


def read_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_each_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the values are: line ends, lone surrogates, large integers, objects, exceptions."""
    log_to_stderr(form="json")
    log = structlog.get_logger()
    log.info("first", session="s1", text="a\nb\x1b", path=Path("x"))
    log.warning("second", text="\ud800", number=2**70)
    try:
        raise LookupError("no such\nthing")
    except LookupError:
        log.exception("third")
    first, second, third = read_lines(capsys)
    assert list(first)[:3] == ["time", "level", "event"] and first["time"].endswith("Z")
    assert (first["level"], first["event"], first["session"]) == ("info", "first", "s1")
    assert (first["text"], first["path"]) == ("a\nb\x1b", "x")
    assert (second["level"], second["text"], second["number"]) == ("warning", "\\ud800", str(2**70))
    assert third["level"] == "error" and "LookupError: no such\nthing" in third["exception"]


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str], level: Any, events: list[str]) -> None:
    """A second call changes the level of a logger that was used before."""
    log = structlog.get_logger()
    log_to_stderr(form="json")
    log.info("before")
    log_to_stderr(level, "json")
    for event in ("debug", "info", "warning", "error"):
        log.log(getattr(logging, event.upper()), event)
    assert [line["event"] for line in read_lines(capsys)][1:] == events


@pytest.mark.parametrize(("level", "events"), [("debug", ["d", "i", "w"]), ("info", ["w"]), ("error", [])])
def test_records_of_libraries_are_lines_too(capsys: pytest.CaptureFixture[str], level: Any, events: list[str]) -> None:
    """aiohttp and asyncio log with Python's `logging`."""
    log_to_stderr(level, "json")
    # The file of a record decides whether a library logs it; this test's own file would count as that of an agent.
    logger = logging.getLogger("aiohttp.client")
    for number, text in ((logging.DEBUG, "d"), (logging.INFO, "i"), (logging.WARNING, "w")):
        if logger.isEnabledFor(number):
            logger.handle(logger.makeRecord(logger.name, number, logging.__file__, 1, text, (), None))
    lines = read_lines(capsys)
    assert [line["event"] for line in lines] == events
    assert all(line["logger"] == "aiohttp.client" for line in lines)


def test_a_warning_of_python_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Python itself would write two lines that are no JSON."""
    log_to_stderr(form="json")
    warnings.showwarning(UserWarning("careful"), UserWarning, "agent.py", 3)
    (line,) = read_lines(capsys)
    assert (line["level"], line["logger"]) == ("warning", "py.warnings") and "UserWarning: careful" in line["event"]


def test_a_record_at_the_exit_of_python_is_no_traceback() -> None:
    """Nothing can be formatted then."""
    process = subprocess.run(
        (sys.executable, "-c", LOST_FUTURE),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (process.returncode, process.stderr) == (0, "")
