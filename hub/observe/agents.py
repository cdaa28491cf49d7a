"""Write to the hub's output for the authors of agents: tracebacks, and what agents log."""

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

from hub.text import escape_unprintable

log = structlog.get_logger()

HUB = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
ADAPTERS = os.path.join(HUB, "adapters", "")  # adapters are agents, too
FRAMES = 15  # at each end of a traceback
TEXT = 16_384  # characters of a traceback, or of what is logged
# Where the code of Python and of packages lies.
PYTHON = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))
PACKAGES = {"site-packages", "dist-packages"}

# The `session`, `run` and `agent` of the code that runs in this context: in the task of an answer, in the tasks that it
# starts, and in asyncio.to_thread().
run_ids: ContextVar[Mapping[str, str]] = ContextVar("run_ids", default={})


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an agent's exception, without the hub's frames and without the values of variables.

    It is indented, and characters that cannot be printed are escaped, so that no line looks like one of the hub's.
    """
    try:
        return "  " + _in_lines(_format(error))
    except Exception as fault:  # the attributes of an agent's own exception may have any type
        return f"  the traceback cannot be shown: {type(fault).__name__}"


def _format(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error)
    for one in _chain(shown):
        frames = [frame for frame in one.stack if not _is_hub(frame.filename)]
        if len(frames) > 2 * FRAMES:
            frames = [*frames[:FRAMES], *frames[-FRAMES:]]
        one.stack = traceback.StackSummary.from_list(frames)
    return "".join(shown.format()).rstrip()


def _chain(shown: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield the exception, its causes and contexts, and the members of groups."""
    waiting: list[traceback.TracebackException | None] = [shown]
    while waiting:
        one = waiting.pop()
        if one is not None:
            yield one
            waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]


def _is_hub(file: str) -> bool:
    return file.startswith(HUB) and not file.startswith(ADAPTERS)


def _in_lines(text: str) -> str:
    """Return an author's text for the output: not too long, and indented from the second line on."""
    if len(text) > TEXT:
        text = f"{text[: TEXT // 2]}\n...\n{text[-TEXT // 2 :]}"
    return "\n  ".join(map(escape_unprintable, text.split("\n")))


@lru_cache
def _is_library(file: str) -> bool:
    """Return whether a file belongs to the hub, to Python or to a package, and not to the author of an agent."""
    return _is_hub(file) or file.startswith(PYTHON) or not PACKAGES.isdisjoint(PurePath(file).parts)


def _is_own(record: logging.LogRecord) -> bool:
    """Return whether the author of an agent logged this: by the line that logs, or by the module that names the logger.

    The second is needed where a thread pool calls `log.info` itself. Libraries do not use the root logger.
    """
    file = getattr(sys.modules.get(record.name), "__dict__", {}).get("__file__")
    return record.name == "root" or not _is_library(record.pathname) or bool(file) and not _is_library(file)


class AgentLogHandler(logging.Handler):
    """Writes records of Python's `logging` to the hub's output, with the ids of the run that logs.

    Records of libraries are written from WARNING on, as Python does by itself. This handler has no lock: to format a
    record, it runs code of the agent, which may block.
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
        except Exception as error:  # the arguments do not fit the message, or their __str__ fails
            text = f"{record.msg!s:.200}" if isinstance(record.msg, str) else "a message without a text"
            fields["not_shown"] = f"{type(error).__name__} at {os.path.basename(record.pathname)}:{record.lineno}"
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)  # structlog knows no others
        log.log(level, _in_lines(text), **fields)


def install_log_handler() -> None:
    """Send the records of Python's `logging` to the hub's output; a second call does nothing."""
    root = logging.getLogger()
    if not any(isinstance(handler, AgentLogHandler) for handler in root.handlers):
        root.addHandler(AgentLogHandler())
        root.setLevel(logging.INFO)
