"""What a run said, for those who wait for its end."""

from itertools import chain
from typing import Any

import attrs

from hub.messages import Accepted, Chunk, Event, MessageRemoved, RunError, RunFinished, WholeMessage
from hub.node.node import Node
from hub.sessions.session import Session


async def outcome(node: Node, session: Session, accepted: Accepted) -> dict[str, Any]:
    """Return what a run that has ended said, and how it ended, from the log; raises SessionDeleted."""
    head = session.channel
    texts: dict[str, list[str]] = {}  # by message
    outcome: dict[str, Any] = {
        "sessionId": head.id,
        "runId": accepted.runId,
        "messageId": accepted.messageId,
        "content": "",
    }
    cursor = max(accepted.seq, head.floor)
    while found := await node.log.read(head.id, cursor, head.head):
        cursor = found[-1].seq
        for event in found:
            if event.runId == accepted.runId and _take(event, texts, outcome):
                return outcome | {"content": "".join(chain.from_iterable(texts.values()))}
    head.refuse_if_deleted()
    return outcome | {"content": "".join(chain.from_iterable(texts.values()))}


def _take(event: Event, texts: dict[str, list[str]], outcome: dict[str, Any]) -> bool:
    """Add an event to the outcome; say whether it was the last."""
    body = event.body
    if isinstance(body, (Chunk, WholeMessage)):
        texts.setdefault(body.messageId, []).append(body.content)
    elif isinstance(body, MessageRemoved):
        for message_id in body.messageIds:  # the run began anew
            texts.pop(message_id, None)
    elif isinstance(body, RunError):
        outcome["error"] = {"code": body.code, "message": body.message}
    elif isinstance(body, RunFinished):
        outcome["stopReason"] = body.stopReason
        if body.usage is not None:
            outcome["usage"] = attrs.asdict(body.usage)
        return True
    return False
