"""What is open at each event of a run for AG-UI: a message, steps, tool calls and calls of agents.

The log has no event for the start or the end of a message. A message ends when another event of its run follows. An
`interrupt_resolved` alone may stand in the middle of a message: the answer of a person can come at any time.

AG-UI's clients give up a run with an end without a start, or that finishes with something open.
"""

from bisect import bisect_left
from typing import Any, NamedTuple

import attrs

from hub.messages import (
    Body,
    Chunk,
    Event,
    InterruptResolved,
    Reasoning,
    StepFinished,
    StepStarted,
    SubagentError,
    SubagentFinished,
    SubagentStarted,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallStart,
    WholeMessage,
)
from hub.messages.parts import JsonParts

Item = tuple[str, str]  # what is open beside a message: its kind in ENDS, and its name


class OpenMessage(NamedTuple):
    """A message that streams: *kind* is the start of its events' types, `TEXT_MESSAGE` or `REASONING`."""

    kind: str
    id: str


class Opening(NamedTuple):
    """What is open after an event."""

    message: OpenMessage | None = None
    items: tuple[Item, ...] = ()


def find_open_message(body: Body, previous: OpenMessage | None) -> OpenMessage | None:
    """Return the message that is open during *body*. *previous* is the one that was open before."""
    if isinstance(body, (Chunk, WholeMessage)) and (body.content or getattr(body, "parts", None)):
        return OpenMessage("TEXT_MESSAGE", body.messageId)
    if isinstance(body, Reasoning):
        return OpenMessage("REASONING", body.messageId)
    return previous if isinstance(body, InterruptResolved) else None


def find_message_after(event: Event) -> OpenMessage | None:
    """Return the message that is open after the event at a client's cursor, where can_resume_after() is true."""
    return None if isinstance(event.body, WholeMessage) else find_open_message(event.body, None)


def make_turn(previous: OpenMessage | None, following: OpenMessage | None, ts: int) -> list[dict[str, Any]]:
    """Return the AG-UI events that end *previous* and start *following*, with the timestamp *ts*."""
    if previous == following:
        return []
    events: list[tuple[str, dict[str, Any]]] = []
    if previous is not None:
        kinds = ["REASONING_MESSAGE_END", "REASONING_END"] if previous.kind == "REASONING" else ["TEXT_MESSAGE_END"]
        events += [(kind, {"messageId": previous.id}) for kind in kinds]
    if following is not None and following.kind == "REASONING":
        events.append(("REASONING_START", {"messageId": following.id}))
        events.append(("REASONING_MESSAGE_START", {"messageId": following.id, "role": "reasoning"}))
    elif following is not None:
        events.append(("TEXT_MESSAGE_START", {"messageId": following.id, "role": "assistant"}))
    return [{"type": kind, "timestamp": ts, **fields} for kind, fields in events]


def add_parts(events: list[dict[str, Any]], parts: JsonParts | None) -> list[dict[str, Any]]:
    """Add the parts of a message to its END, as metadata: AG-UI's messages of agents have only text."""
    return [{**event, "metadata": {"parts": parts}} for event in events] if parts else events


def find_items(body: Body, items: tuple[Item, ...]) -> tuple[tuple[Item, ...], bool]:
    """Return the steps and tool calls that are open after *body*, and whether *body* is valid when *items* are open."""
    match body:
        case StepStarted(stepName=name):
            item, change = ("STEP", name), 1
        case ToolCallStart(toolCallId=name):
            item, change = ("TOOL_CALL", name), 1
        case StepFinished(stepName=name):
            item, change = ("STEP", name), -1
        case ToolCallEnd(toolCallId=name):
            item, change = ("TOOL_CALL", name), -1
        case SubagentStarted(subagentRunId=name):
            item, change = ("SUBAGENT", name), 1
        case SubagentFinished(subagentRunId=name) | SubagentError(subagentRunId=name):
            item, change = ("SUBAGENT", name), -1
        case ToolCallArgs(toolCallId=name):
            item, change = ("TOOL_CALL", name), 0
        case _:
            return items, True
    is_valid = (item in items) == (change < 1)
    if change == 0 or not is_valid:
        return items, is_valid
    return ((*items, item) if change > 0 else tuple(open_item for open_item in items if open_item != item)), True


ENDS = {
    "STEP": ("STEP_FINISHED", "stepName", {}),
    "TOOL_CALL": ("TOOL_CALL_END", "toolCallId", {}),
    "SUBAGENT": ("SUBAGENT_FINISHED", "subagentRunId", {"outcome": {"type": "suspended"}}),
}


def make_ends(items: tuple[Item, ...], ts: int) -> list[dict[str, Any]]:
    """Return the AG-UI events that end steps, tool calls and calls of agents, the last one first."""
    ends = [(*ENDS[kind], name) for kind, name in reversed(items)]
    return [{"type": kind, "timestamp": ts, field: name, **fields} for kind, field, fields, name in ends]


@attrs.define(eq=False, repr=False)
class Openings:
    """What is open after each event of a run, as changes by seq. *first* is open before the first event.

    An event may be translated twice: delivery drops it above the high-water mark, and reads it from the log again. Then
    chunks of one message may be merged, which were separate before.
    """

    first: Opening = Opening()
    _changes: list[tuple[int, Opening]] = attrs.Factory(list)

    def find_before(self, event: Event) -> Opening:
        """Return what is open before *event*."""
        index = bisect_left(self._changes, event.seq, key=lambda change: change[0])
        if isinstance(event.body, Chunk) and event.body.offset == 0:
            # A merged event has the seq of its last chunk: its first chunk may have been translated before, alone.
            while index > 0 and self._changes[index - 1][1].message == ("TEXT_MESSAGE", event.body.messageId):
                index -= 1
        return self._changes[index - 1][1] if index > 0 else self.first

    def note(self, seq: int, opening: Opening) -> None:
        """Note what is open after the event *seq*."""
        index = bisect_left(self._changes, seq, key=lambda change: change[0])
        if index < len(self._changes) and self._changes[index][0] == seq:
            self._changes[index] = (seq, opening)
        elif opening != (self._changes[index - 1][1] if index > 0 else self.first):
            self._changes.insert(index, (seq, opening))
