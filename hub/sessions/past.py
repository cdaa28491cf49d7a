"""What an agent sees of its session: the newest messages, within the limits of a history."""

from collections.abc import Collection, Sequence

import orjson

from hub.hosting.contract import Past
from hub.ids import Key
from hub.limits import Limits
from hub.storage.log import SessionStore
from hub.storage.records import RunRecord


async def past(store: SessionStore, key: Key, waiting: Collection[RunRecord], limits: Limits) -> Sequence[Past]:
    """Return the finished messages of a session, oldest first, without those that *waiting* runs are to answer.

    An answer that ended before its first word is left out: models refuse a message without text.
    """
    left_out = {record.userMessageId for record in waiting}
    more = sum(_size(record.message, record.parts) for record in waiting)
    last = limits.history_messages + len(waiting)
    messages = await store.read_last_messages(key, last, limits.history_bytes + more)
    found: list[Past] = []
    size = 0
    for message in reversed([one for one in messages if one.messageId not in left_out]):
        size += _size(message.content, message.parts)
        if len(found) == limits.history_messages or size > limits.history_bytes:
            break
        parts, reason = message.parts or (), message.stopReason
        if message.content or parts or reason is None:
            found.append(Past(message.role, message.content, message.agentId, parts, stop_reason=reason))
    return found[::-1]


def _size(text: str, parts: object) -> int:
    """Return the bytes of a message as the log counts them."""
    return len(text.encode()) + (len(orjson.dumps(parts)) if parts is not None else 0)
