"""Write the tracebacks and log records of agents to the hub's output."""

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

# It writes records of every level: the logger of an agent's author has decided on the level already.
agent_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET))

HUB_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
ADAPTERS_FOLDER = os.path.join(HUB_FOLDER, "adapters", "")  # the code of adapters counts as the code of agents
MAX_TRACEBACK_FRAMES = 15  # the most frames at each end of a traceback
MAX_LOG_LENGTH = 16_384  # characters of a traceback or of a log message
# The folders of Python and of installed packages.
PYTHON_FOLDERS = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))
PACKAGE_FOLDERS = {"site-packages", "dist-packages"}

# The ids `session`, `run` and `agent` of the code in this context. The task of an answer sets them; the tasks that it
# creates and its calls of asyncio.to_thread() inherit them.
run_ids: ContextVar[Mapping[str, str]] = ContextVar("run_ids", default={})


def format_traceback(error: BaseException) -> str:
    """Format the traceback of an agent's exception, without frames of the hub, and without values of variables.

    Lines are indented and unprintable characters escaped, so that no line looks like a log line of the hub.
    """
    try:
        return "  " + _indent(_format(error))
    except Exception as failure:  # the attributes of an agent's own exception may have any type
        return f"  the traceback cannot be shown: {type(failure).__name__}"


def _format(error: BaseException) -> str:
    root = traceback.TracebackException.from_exception(error)
    for trace in _iterate_chain(root):
        frames = [frame for frame in trace.stack if not _is_hub(frame.filename)]
        if len(frames) > 2 * MAX_TRACEBACK_FRAMES:
            frames = [*frames[:MAX_TRACEBACK_FRAMES], *frames[-MAX_TRACEBACK_FRAMES:]]
        trace.stack = traceback.StackSummary.from_list(frames)
    return "".join(root.format()).rstrip()


def _iterate_chain(root: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield the exception, its causes and contexts, and the members of exception groups."""
    stack: list[traceback.TracebackException | None] = [root]
    while stack:
        trace = stack.pop()
        if trace is not None:
            yield trace
            stack += [trace.__cause__, trace.__context__, *(getattr(trace, "exceptions", None) or ())]


def _is_hub(file: str) -> bool:
    return file.startswith(HUB_FOLDER) and not file.startswith(ADAPTERS_FOLDER)


def _indent(text: str) -> str:
    """Escape text of an agent, cut out the middle of a long text, and indent all lines but the first."""
    if len(text) > MAX_LOG_LENGTH:
        text = f"{text[: MAX_LOG_LENGTH // 2]}\n...\n{text[-MAX_LOG_LENGTH // 2 :]}"
    return "\n  ".join(map(escape_unprintable, text.split("\n")))


@lru_cache
def _is_library(file: str) -> bool:
    """Return whether a file belongs to the hub, to Python or to a package, not to the author of an agent."""
    return _is_hub(file) or file.startswith(PYTHON_FOLDERS) or not PACKAGE_FOLDERS.isdisjoint(PurePath(file).parts)


def _is_from_agent(record: logging.LogRecord) -> bool:
    """Return whether an agent logged this record: with the root logger, from its file, or by the logger of its module.

    The logger counts too, because a thread pool may make the call: then the record has the file of the pool. Libraries
    do not use the root logger.
    """
    file = getattr(sys.modules.get(record.name), "__dict__", {}).get("__file__")
    return record.name == "root" or not _is_library(record.pathname) or bool(file) and not _is_library(file)


class AgentLogHandler(logging.Handler):
    """Write records of Python's `logging` to the hub's output, with the ids of the run whose code logs.

    Records of libraries are written if their level is at least *library_level*: WARNING, as Python does by default, or
    DEBUG if the hub's own level is that. The handler has no lock, because formatting a record runs code of the agent,
    which may block.
    """

    library_level = logging.WARNING

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        if sys.is_finalizing():  # Python exits, and can import no module: structlog could not format the record
            return False
        if record.levelno >= self.library_level or _is_from_agent(record):
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name, **run_ids.get()}
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                fields["exception"] = format_traceback(record.exc_info[1])
        except Exception as error:  # the arguments do not fit the message, or their __str__ fails
            text = f"{record.msg!s:.200}" if isinstance(record.msg, str) else "a message that is not text"
            fields["not_shown"] = f"{type(error).__name__} at {os.path.basename(record.pathname)}:{record.lineno}"
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)  # the levels that structlog knows
        agent_log.log(level, _indent(text), **fields)


def install_log_handler(level: int) -> None:
    """Send records of Python's `logging` from a level on to the hub's output. A second call changes the level."""
    root = logging.getLogger()
    handler = next((handler for handler in root.handlers if isinstance(handler, AgentLogHandler)), None)
    if handler is None:
        handler = AgentLogHandler()
        root.addHandler(handler)
    handler.library_level = logging.DEBUG if level == logging.DEBUG else logging.WARNING
    root.setLevel(level)
