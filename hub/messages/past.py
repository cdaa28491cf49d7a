"""The earlier messages that an agent gets."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from hub.messages.words import Role, StopReason


@attrs.frozen
class ToolCall:
    """A tool call in an earlier answer. *arguments* is JSON text, as the agent wrote it."""

    id: str
    name: str
    arguments: str


@attrs.frozen
class Past:
    """One earlier message of the session.

    *agent* is the id of the agent that wrote the message, and None for a person. *stop_reason* says how the agent's
    answer ended, and is None for `end_turn`. Messages with the role `system` come only from clients of the OpenAI
    endpoint, as instructions for the model.

    Only an agent that takes tools gets *tool_calls*, and messages with the role `tool`: each is the result of the call
    *tool_call_id*, and comes after the message with that call. A call may have no result.
    """

    role: Role
    content: str
    agent: str | None = None
    parts: Sequence[Mapping[str, Any]] = ()
    stop_reason: StopReason | None = attrs.field(default=None, kw_only=True)
    tool_calls: Sequence[ToolCall] = attrs.field(default=(), kw_only=True)
    tool_call_id: str | None = attrs.field(default=None, kw_only=True)
    is_error: bool = attrs.field(default=False, kw_only=True)


def drop_tools(history: Sequence[Past]) -> list[Past]:
    """Return messages for an agent that takes no tools: without tool calls and results, and without what is empty then.

    A message that was empty before stays.
    """
    return [
        attrs.evolve(past, tool_calls=())
        for past in history
        if past.role != "tool" and (past.content or past.parts or not past.tool_calls)
    ]
