"""An agent's faults: what clients are told of them, and what the hub's output says, with the agent's name and line."""

import os
import traceback
from collections.abc import Mapping
from typing import Any

import structlog

from hub.errors import AgentError
from hub.hosting.functions import ReturnedNone
from hub.hosting.hosted import Agent
from hub.limits import Limits, size_text
from hub.observe.agents import format_traceback
from hub.text import cut, replace_surrogates

log = structlog.get_logger()

MOST = Limits().max_integer


def bad_output_error(agent: str, piece: object) -> AgentError:
    """Return the error for a piece that is none."""
    if isinstance(piece, ReturnedNone):
        return AgentError(f"agent {agent} returned nothing: return its answer, or yield it", "agent_bad_output")
    return AgentError(
        f"agent {agent} gave {type(piece).__name__}; it may yield or return str, Message, Finish or an event",
        "agent_bad_output",
    )


def encode_text(agent: str, text: str) -> bytes:
    """Return an agent's text as UTF-8; raises AgentError for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        line = f"agent {agent} gave text with a lone surrogate (half a character), which UTF-8 cannot hold"
        raise AgentError(line, "agent_bad_output") from None


def too_long_error(agent: str, most: int) -> AgentError:
    """Return the error for an answer of more than *most* bytes."""
    return AgentError(f"agent {agent} said more than {size_text(most)} in one answer", "answer_too_long")


def explain(agent: Agent, error: BaseException, ids: Mapping[str, str], given: Any = None) -> AgentError:
    """Return the error that clients get for an agent's exception, and log it with its traceback.

    *ids* are the session, run and agent. *given* is the agent's generator if a piece of it was refused: it stands at
    the line that gave the piece.
    """
    shown: dict[str, str] = {}
    if isinstance(error, AgentError):
        told = clean_error(error)
        reason = told.message
    else:
        told = AgentError(f"agent {agent.id} failed; the hub's output says why")
        reason = f"{type(error).__name__}: {_text(error)}"
        shown["exception"] = format_traceback(error)
    at = _line(agent, error, given)
    log.warning("agent failed", **ids, code=told.code, reason=cut(reason, 200), at=at, **shown)
    return told


def clean_error(error: AgentError) -> AgentError:
    """Return the agent's own error as the log can store it: with a message that is UTF-8, and a code that is text."""
    code = error.code if isinstance(error.code, str) else "agent_error"
    message, code = (cut(replace_surrogates(_text(text)), 1000) for text in (error.message, code))
    wait = error.retry_after_ms if is_count(error.retry_after_ms) else None
    return AgentError(message, code, retryable=error.retryable is True, retry_after_ms=wait)


def is_count(value: object) -> bool:
    """Tell whether a value of an agent's is a whole number, 0 or more, that every client and the log can hold."""
    return type(value) is int and 0 <= value <= MOST


def _text(value: object) -> str:
    """Return the value as text; what makes it is an agent's code, and may fail, too."""
    try:
        return str.__str__(str(value))  # without a class of the agent's own
    except BaseException:  # SystemExit would end the hub
        return f"a {type(value).__name__} without a text"


def _line(agent: Agent, error: BaseException, given: Any) -> str:
    """Return FILE:LINE in the agent's own file as near to the fault as can be known, else where its function stands."""
    own = agent.source.partition(":")[0]
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    at = getattr(given, "ag_frame", None)
    if at is not None:
        frames.append((at.f_code.co_filename, at.f_lineno))
    lines = [line for name, line in frames if os.path.basename(name) == own]
    return f"{own}:{lines[-1]}" if lines else agent.source
