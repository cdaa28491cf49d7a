"""What the hub's output has for the authors of agents: the tracebacks of their faults, and what they log."""

import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from pathlib import PurePath

import structlog

log = structlog.get_logger()

HUB = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
ADAPTERS = os.path.join(HUB, "adapters", "")  # these are agents, too
FRAMES = 15  # at each end of a traceback
TEXT = 16_384  # characters of a traceback, or of what is logged
# Where code lies that is not the author's.
PYTHON = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))
PACKAGES = {"site-packages", "dist-packages"}

# The `session`, `run` and `agent` whose code runs in this context: in its task, and in the tasks and threads it starts.
run_ids: ContextVar[Mapping[str, str]] = ContextVar("run_ids", default={})


def format_traceback(error: BaseException) -> str:
    """Return a traceback of an agent's fault, without the hub's frames and without the values of variables.

    It is indented, and what cannot be printed is escaped, so that no line of it looks like one of the hub's.
    """
    try:
        return "  " + _in_lines(_format(error))
    except Exception as fault:  # an exception of the agent's own may have anything in the place of its facts
        return f"  a traceback that cannot be shown: {type(fault).__name__}"


def _format(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error)
    for one in _chain(shown):
        frames = [frame for frame in one.stack if not _is_hub(frame.filename)] or list(one.stack)
        if len(frames) > 2 * FRAMES:
            frames = [*frames[:FRAMES], *frames[-FRAMES:]]
        one.stack = traceback.StackSummary.from_list(frames)
    return "".join(shown.format()).rstrip()


def _chain(shown: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield the exception, its causes, and the members of groups."""
    waiting: list[traceback.TracebackException | None] = [shown]
    while waiting:
        one = waiting.pop()
        if one is not None:
            yield one
            waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]


def _is_hub(file: str) -> bool:
    return file.startswith(HUB) and not file.startswith(ADAPTERS)


def _in_lines(text: str) -> str:
    """Return text of an author's as the output can hold it: not too long, and its later lines indented."""
    if len(text) > TEXT:
        text = f"{text[: TEXT // 2]}\n...\n{text[-TEXT // 2 :]}"
    return "\n  ".join(
        "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line) for line in text.split("\n")
    )


@lru_cache
def _is_library(file: str) -> bool:
    """Return whether the code of a file is the hub's, Python's or a package's: not the author's."""
    return _is_hub(file) or file.startswith(PYTHON) or not PACKAGES.isdisjoint(PurePath(file).parts)


def _is_own(record: logging.LogRecord) -> bool:
    """Return whether it is an author's: the line that logs, or the module that its logger is named after.

    A thread pool that is given `log.info` itself is the one that calls it. Libraries leave the root logger alone.
    """
    file = getattr(sys.modules.get(record.name), "__dict__", {}).get("__file__")
    return record.name == "root" or not _is_library(record.pathname) or bool(file) and not _is_library(file)


class AgentLogs(logging.Handler):
    """Writes what authors log by Python's `logging` to the hub's output, with the ids of the run that it is logged in.

    Of libraries it writes what Python writes by itself: from warning on. It holds no lock: what is logged becomes text
    here, by code of the agent's, which may block.
    """

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or _is_own(record):
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name, **run_ids.get()}
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                fields["exception"] = format_traceback(record.exc_info[1])
        except Exception as error:  # arguments that do not fit, or that have no text
            text = f"{record.msg!s:.200}" if isinstance(record.msg, str) else "a message without a text"
            fields["not_shown"] = f"{type(error).__name__} at {os.path.basename(record.pathname)}:{record.lineno}"
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)  # structlog knows no others
        log.log(level, _in_lines(text), **fields)


def take_up_logging() -> None:
    """Let what Python's `logging` gets go to the hub's output, once."""
    root = logging.getLogger()
    if not any(isinstance(handler, AgentLogs) for handler in root.handlers):
        root.addHandler(AgentLogs())
        root.setLevel(logging.INFO)
