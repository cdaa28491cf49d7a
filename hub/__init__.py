"""Hubbub, a hub for AI agents. Agent files import from here: `from hub import Run, agent`."""

from hub.errors import AgentError
from hub.hosting.contract import Finish, Message, Reply, Run, agent
from hub.messages import (
    Custom,
    Past,
    Progress,
    Reasoning,
    Request,
    ResponseFormat,
    StateDelta,
    StateSnapshot,
    StepFinished,
    StepStarted,
    Tool,
    ToolCall,
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
    "Request",
    "ResponseFormat",
    "Run",
    "StateDelta",
    "StateSnapshot",
    "StepFinished",
    "StepStarted",
    "Tool",
    "ToolCall",
    "ToolCallArgs",
    "ToolCallEnd",
    "ToolCallResult",
    "ToolCallStart",
    "Usage",
    "__version__",
    "agent",
]
