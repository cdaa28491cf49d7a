"""Hubbub, a hub for AI agents. Agent files import from here: `from hub import Run, agent`."""

from hub.errors import AgentError
from hub.hosting.contract import Finish, Message, Past, Reply, Run, agent
from hub.messages import (
    Custom,
    Progress,
    Reasoning,
    StateDelta,
    StateSnapshot,
    StepFinished,
    StepStarted,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    Usage,
)

__version__ = "0.1.0"
__all__ = [
    "AgentError",
    "Custom",
    "Finish",
    "Message",
    "Past",
    "Progress",
    "Reasoning",
    "Reply",
    "Run",
    "StateDelta",
    "StateSnapshot",
    "StepFinished",
    "StepStarted",
    "ToolCallArgs",
    "ToolCallEnd",
    "ToolCallResult",
    "ToolCallStart",
    "Usage",
    "__version__",
    "agent",
]
