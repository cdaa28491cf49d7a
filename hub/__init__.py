"""Hubbub: a hub for AI agents. What an agent file needs is here: `from hub import Run, agent`."""

from hub.agent import Finish, Message, Past, Run, agent
from hub.errors import AgentError
from hub.messages import Usage

__version__ = "0.1.0"
__all__ = ["AgentError", "Finish", "Message", "Past", "Run", "Usage", "__version__", "agent"]
