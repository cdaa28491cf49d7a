"""Turn the faults of an agent into errors for clients, and log them with the file and line of the agent."""

import os
import traceback
from collections.abc import Mapping
from typing import Any

import structlog

from hub.errors import AgentError
from hub.hosting.functions import ReturnedNone
from hub.hosting.hosted import Agent
from hub.limits import Limits, format_size
from hub.observe.agents import format_traceback
from hub.text import cut, replace_surrogates

log = structlog.get_logger()

MAX_COUNT = Limits().max_integer


def bad_output_error(agent: str, output: object) -> AgentError:
    """Return the error for an output of a wrong type."""
    if isinstance(output, ReturnedNone):
        return AgentError(f"agent {agent} returned nothing: return its answer, or yield it", "agent_bad_output")
    return AgentError(
        f"agent {agent} gave {type(output).__name__}; yield or return str, Message, Finish or an event of hub",
        "agent_bad_output",
    )


def encode_text(agent: str, text: str) -> bytes:
    """Return an agent's text as UTF-8; raises AgentError for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        line = f"agent {agent} gave text with a lone surrogate (half a character), which UTF-8 cannot hold"
        raise AgentError(f"{line}: replace it in the agent", "agent_bad_output") from None


def too_long_error(agent: str, limit: int) -> AgentError:
    """Return the error for an answer of more than *limit* bytes."""
    text = f"agent {agent} said more than {format_size(limit)}, the limit of one answer: shorten the answer"
    return AgentError(text, "answer_too_long")


def log_and_convert(agent: Agent, error: BaseException, ids: Mapping[str, str], generator: Any = None) -> AgentError:
    """Log an exception of an agent's code, and return the error that clients get.

    The log line has a traceback, unless the exception is an AgentError. *ids* are the fields `session`, `run` and
    `agent` of the log line. If the hub refused an output, *generator* is the agent's generator: its current line
    yielded that output.
    """
    fields: dict[str, str] = {}
    if isinstance(error, AgentError):
        client_error = clean_error(error)
        reason = client_error.message
    else:
        client_error = AgentError(f"agent {agent.id} failed; the hub's output says why")
        reason = f"{type(error).__name__}: {_to_text(error)}"
        fields["exception"] = format_traceback(error)
    line = _find_source_line(agent, error, generator)
    log.warning("agent failed", **ids, code=client_error.code, reason=cut(reason, 200), at=line, **fields)
    return client_error


def clean_error(error: AgentError) -> AgentError:
    """Return a copy of an agent's AgentError with values that the log can store: UTF-8 texts and valid numbers."""
    code = error.code if isinstance(error.code, str) else "agent_error"
    message, code = (cut(replace_surrogates(_to_text(text)), 1000) for text in (error.message, code))
    wait_ms = error.retry_after_ms if is_count(error.retry_after_ms) else None
    return AgentError(message, code, retryable=error.retryable is True, retry_after_ms=wait_ms)


def is_count(value: object) -> bool:
    """Return whether a value is an integer from 0 to MAX_COUNT: all clients and the log can hold these integers."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def _to_text(value: object) -> str:
    """Return str(value), or a replacement if the call fails: the agent may have defined __str__."""
    try:
        return str.__str__(str(value))  # a plain str, no subclass of the agent
    except BaseException:  # SystemExit too: it would end the hub
        return f"a {type(value).__name__} without a text"


def _find_source_line(agent: Agent, error: BaseException, generator: Any) -> str:
    """Return FILE:LINE of the last frame in the agent's file, or `agent.source` if there is no such frame."""
    file_name = agent.source.partition(":")[0]
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    frame = getattr(generator, "ag_frame", None)
    if frame is not None:
        frames.append((frame.f_code.co_filename, frame.f_lineno))
    lines = [line for path, line in frames if os.path.basename(path) == file_name]
    return f"{file_name}:{lines[-1]}" if lines else agent.source
