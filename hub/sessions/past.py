"""Read the history that an agent sees: the newest messages of its session, within limits."""

from collections.abc import Collection, Sequence

import orjson

from hub.hosting.contract import Past
from hub.ids import Key
from hub.limits import Limits
from hub.storage.log import SessionStore
from hub.storage.records import RunRecord


async def read_past(store: SessionStore, key: Key, open_runs: Collection[RunRecord], limits: Limits) -> Sequence[Past]:
    """Return the newest finished messages of a session within *limits*, oldest first.

    The messages that *open_runs* answer are left out. An answer that has a stop reason, but no text and no parts, is
    left out, too, because models refuse an empty message. Raises StorageUnavailable.
    """
    open_ids = {record.userMessageId for record in open_runs}
    open_bytes = sum(_count_bytes(record.message, record.parts) for record in open_runs)
    count = limits.history_messages + len(open_runs)
    messages = await store.read_last_messages(key, count, limits.history_bytes + open_bytes)
    past: list[Past] = []
    size = 0
    for message in reversed([message for message in messages if message.messageId not in open_ids]):
        size += _count_bytes(message.content, message.parts)
        if len(past) == limits.history_messages or size > limits.history_bytes:
            break
        parts, reason = message.parts or (), message.stopReason
        if message.content or parts or reason is None:
            past.append(Past(message.role, message.content, message.agentId, parts, stop_reason=reason))
    return past[::-1]


def _count_bytes(text: str, parts: object) -> int:
    """Return the bytes of a message, as the log counts them."""
    return len(text.encode()) + (len(orjson.dumps(parts)) if parts is not None else 0)
