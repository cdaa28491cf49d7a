"""Unique ids for the tool calls of one answer."""

import attrs

from hub.messages import Body, Interrupt, ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart

_NAMING = (ToolCallStart, ToolCallArgs, ToolCallEnd, ToolCallResult, Interrupt)  # events that name a tool call


@attrs.define(eq=False)
class CallIds:
    """The ids of the tool calls of one answer, as clients get them. Agents and models may use one id for several calls.

    Each further call with an id gets another one. Later events with the agent's id belong to the last of these calls.
    """

    _numbers: dict[str, int] = attrs.Factory(dict)  # how many calls have an id, by the agent's id
    _ids: dict[str, str] = attrs.Factory(dict)  # of the last call with an id, by the agent's id
    _used_ids: set[str] = attrs.Factory(set)

    def rename(self, event: Body) -> Body:
        """Return an event with the id for clients. Call this once for each event, in order."""
        if not isinstance(event, _NAMING) or event.toolCallId is None:
            return event
        if isinstance(event, ToolCallStart):
            self._add(event.toolCallId)
        id = self._ids.get(event.toolCallId, event.toolCallId)
        return event if id == event.toolCallId else attrs.evolve(event, toolCallId=id)

    def _add(self, agent_id: str) -> None:
        number = self._numbers.get(agent_id, 0) + 1
        while (id := f"{agent_id}-{number}" if number > 1 else agent_id) in self._used_ids:
            number += 1
        self._numbers[agent_id], self._ids[agent_id] = number, id
        self._used_ids.add(id)
