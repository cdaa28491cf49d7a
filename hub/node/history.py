"""Read a session's history in the form of the wire, for clients that begin or begin again."""

from collections.abc import Sequence
from typing import Any

import attrs

from hub.ids import Key
from hub.messages import HistoryMessage
from hub.node.node import Node


async def read_history(node: Node, key: Key, last: int) -> tuple[dict[str, Any], ...]:
    """Return the *last* finished messages, at most `history_messages`, with the wire's field names.

    The result is current until the caller's next await: a subscription that begins before it misses no message.
    """
    limits, session = node.limits, node.sessions.get(key)
    last = min(last, limits.history_messages)
    messages: Sequence[HistoryMessage] = ()
    while last:
        version = session.outbox.history_version if session is not None else 0
        messages = await node.log.sessions.read_last_messages(key, last, limits.history_bytes)
        if session is None or session.outbox.history_version == version:
            break  # otherwise a message was added or removed meanwhile: read again
    return tuple(attrs.asdict(message, filter=_is_on_wire) for message in messages)


async def read_reset_messages(node: Node, key: Key) -> tuple[dict[str, Any], ...]:
    """Return the messages for a client whose cursor is too old."""
    return await read_history(node, key, node.limits.history_messages)


def _is_on_wire(field: "attrs.Attribute[Any]", value: Any) -> bool:
    return value is not None and field.name != "seq"
