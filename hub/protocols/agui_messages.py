"""Frame the messages of a run for AG-UI: each message has a START before its content, and an END after it.

The log has no event for the start or the end of a message. A message ends when another event of its run follows. An
`interrupt_resolved` alone may stand in the middle of a message: the answer of a person can come at any time.
"""

from bisect import bisect_left
from typing import Any, NamedTuple

import attrs

from hub.messages import Body, Chunk, Event, InterruptResolved, Reasoning, WholeMessage


class OpenMessage(NamedTuple):
    """A message that streams: *kind* is the start of its events' types, `TEXT_MESSAGE` or `REASONING`."""

    kind: str
    id: str


def find_open_message(body: Body, previous: OpenMessage | None) -> OpenMessage | None:
    """Return the message that is open during *body*. *previous* is the one that was open before."""
    if isinstance(body, (Chunk, WholeMessage)) and body.content:
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


@attrs.define(eq=False, repr=False)
class OpenMessages:
    """Which message is open after each event of a run, as changes by seq. *first* is open before the first event.

    An event may be translated twice: delivery drops it above the high-water mark, and reads it from the log again. Then
    chunks of one message may be merged, which were separate before.
    """

    first: OpenMessage | None = None
    _changes: list[tuple[int, OpenMessage | None]] = attrs.Factory(list)

    def find_before(self, event: Event) -> OpenMessage | None:
        """Return the message that is open before *event*."""
        index = bisect_left(self._changes, event.seq, key=lambda change: change[0])
        if isinstance(event.body, Chunk) and event.body.offset == 0:
            # A merged event has the seq of its last chunk: its first chunk may have been translated before, alone.
            while index > 0 and self._changes[index - 1][1] == ("TEXT_MESSAGE", event.body.messageId):
                index -= 1
        return self._changes[index - 1][1] if index > 0 else self.first

    def note(self, seq: int, message: OpenMessage | None) -> None:
        """Note that *message* is open after the event *seq*."""
        index = bisect_left(self._changes, seq, key=lambda change: change[0])
        if index < len(self._changes) and self._changes[index][0] == seq:
            self._changes[index] = (seq, message)
        elif message != (self._changes[index - 1][1] if index > 0 else self.first):
            self._changes.insert(index, (seq, message))
