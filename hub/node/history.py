"""Read a session's history in the form of the wire, for a new subscription or a `reset`."""

from collections.abc import Sequence
from typing import Any

import attrs

from hub.ids import Key
from hub.messages import HistoryMessage
from hub.node.node import Node


async def read_history(node: Node, key: Key, count: int) -> tuple[dict[str, Any], ...]:
    """Return the last *count* finished messages, with the wire's field names.

    Returns fewer messages if *count* exceeds `history_messages`, or their bytes exceed `history_bytes`. The result has
    the messages up to the head of the session's channel, until the caller's next await. A subscription that begins
    before that await misses no message, and gets none twice.
    """
    limits, session = node.limits, node.sessions.get(key)
    count = min(count, limits.history_messages)
    messages: Sequence[HistoryMessage] = ()
    while count:
        version = session.outbox.history_version if session is not None else 0
        messages = await node.log.sessions.read_last_messages(key, count, limits.history_bytes)
        if session is None or session.outbox.history_version == version:
            break
        # A message was added or removed during the read: read again.
    if session is not None:  # a message may be in the log before its event is delivered: then it comes live
        messages = [message for message in messages if message.seq <= session.channel.head]
    return tuple(attrs.asdict(message, filter=_is_on_wire) for message in messages)


async def read_reset_messages(node: Node, key: Key) -> tuple[dict[str, Any], ...]:
    """Return the messages for a client whose cursor is too old."""
    return await read_history(node, key, node.limits.history_messages)


def _is_on_wire(field: "attrs.Attribute[Any]", value: Any) -> bool:
    return value is not None and field.name != "seq"
